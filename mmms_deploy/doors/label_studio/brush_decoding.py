"""Run lengths of a brush back to a mask, bit by bit as Label Studio's own readers do; shares no code with ``brush``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmms_deploy.errors import AnnotationError
from mmms_deploy.imaging.resize import BoolArray


def mask_of_brush(rle: Sequence[int], size: tuple[int, int]) -> BoolArray:
    """Draw the run lengths of a brush, whoever wrote them.

    Args:
        rle: Bytes from 0 to 255.
        size: (H, W) of the picture.

    Returns:
        (H, W) bool: where the picture is opaque.

    Raises:
        AnnotationError: They are no such run lengths, or of a picture of another size.
    """
    height, width = size
    try:
        picture = _picture(_Bits(bytes(rle)), 4 * height * width)
    except (ValueError, TypeError, OverflowError) as error:
        raise AnnotationError(
            f"the run lengths of the brush cannot be drawn: {error}",
            expected=f"the bytes of a brush of a picture of {width} x {height} pixels",
            fix="check where they come from",
        ) from error
    return np.frombuffer(picture, dtype=np.uint8).reshape(height, width, 4)[:, :, 3] > 0


class _Bits:
    """Bits of bytes, the most significant one first."""

    def __init__(self, content: bytes) -> None:
        self._content, self._place = content, 0

    def read(self, count: int) -> int:
        """Return the next bits as a number."""
        end = self._place + count
        if end > 8 * len(self._content):
            raise ValueError("they end in the middle of a number")
        first, last = self._place // 8, -(-end // 8)
        window = int.from_bytes(self._content[first:last], "big")
        self._place = end
        return window >> (8 * last - end) & ((1 << count) - 1)


def _picture(bits: _Bits, expected: int) -> bytearray:
    total = bits.read(32)
    if total != expected:
        raise ValueError(f"they are of {total} bytes, not of {expected}")
    word = bits.read(5) + 1
    sizes = [bits.read(4) + 1 for _ in range(4)]
    if word != 8:
        raise ValueError(f"their values have {word} bits, not 8")
    picture = bytearray()
    while len(picture) < total:
        repeated = bits.read(1)
        length = bits.read(sizes[bits.read(2)]) + 1
        if len(picture) + length > total:
            raise ValueError("a run reaches beyond the picture")
        if repeated:
            picture += bytes([bits.read(8)]) * length
        else:
            picture += bytes(bits.read(8) for _ in range(length))
    return picture
