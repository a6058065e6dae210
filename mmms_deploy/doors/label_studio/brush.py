"""A mask as Label Studio's brush keeps it: run lengths in the bit stream of thi.ng/rle-pack, as a list of bytes.

The stream is of the mask's RGBA picture, row by row, in which a pixel is four equal bytes: 255 on the object, 0 off it.
It begins with the number of bytes of the picture (32 bits), the bits of a value less one (5 bits), and the bits of four
sizes of lengths less one (4 bits each). Then every run is a bit 1, the size of its length (2 bits), its length less one
(3, 4, 8 or 16 bits), and its value (8 bits). Bits go from the most significant one down, and zeros fill the last byte.

The bytes are those of ``label_studio_sdk.converter.brush.mask2rle``, which builds them one run after the other as text.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.annotations.masks import checked_bool
from mmms_deploy.errors import AnnotationError

SIZES = (3, 4, 8, 16)
"""Bits of the four sizes of lengths."""
CHANNELS = 4
"""Bytes of a pixel of the picture."""
_VALUE_BITS = 8
_LONGEST = 1 << SIZES[-1]
_PIXELS = (1 << 32) // CHANNELS
_SPAN = 5
"""The most bytes that a run's bits lie in: 27 bits, and up to 7 before them."""


def brush_rle(mask: npt.NDArray[Any]) -> list[int]:
    """Return the run lengths of a mask as Label Studio's brush keeps them.

    Args:
        mask: (H, W) bool, or whole numbers 0 and 1 or 0 and 255; at most 2^30 - 1 pixels.

    Returns:
        Bytes from 0 to 255, for ``value.rle`` of a region with the format ``rle``.

    Raises:
        AnnotationError: It is no mask, or too large.
    """
    checked = checked_bool(mask)
    if checked.size >= _PIXELS:
        raise AnnotationError(
            f"the mask has {checked.size} pixels",
            expected=f"fewer than {_PIXELS}: the run lengths of a brush count its bytes in 32 bits",
            fix="make the picture smaller",
        )
    lengths, values = _runs(checked.reshape(-1))
    lengths, values, sizes = _split(lengths, values)
    tokens = (0b100 | sizes) << np.asarray(SIZES)[sizes]
    tokens = (tokens | (lengths - 1)) << _VALUE_BITS
    tokens |= values * 255
    widths = 3 + np.asarray(SIZES)[sizes] + _VALUE_BITS
    return _packed(tokens, widths, CHANNELS * checked.size)


def _runs(flat: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the lengths, in bytes of the picture, and the values, 0 or 1, of all runs."""
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    return CHANNELS * np.diff(starts, append=flat.size), flat[starts].astype(np.int64)


def _split(lengths: npt.NDArray[np.int64], values: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], ...]:
    """Split runs that no length can say, and return lengths, values and sizes; a rest keeps the largest size."""
    longest = len(SIZES) - 1
    sizes = np.searchsorted([1 << bits for bits in SIZES], lengths).clip(max=longest)
    pieces = -(-lengths // _LONGEST)
    rests = lengths - (pieces - 1) * _LONGEST
    split = np.full(int(pieces.sum()), _LONGEST, dtype=np.int64)
    split[np.cumsum(pieces) - 1] = rests
    return split, np.repeat(values, pieces), np.repeat(sizes, pieces)


def _packed(tokens: npt.NDArray[np.int64], widths: npt.NDArray[np.int64], total: int) -> list[int]:
    """Return the stream: its head, and tokens of so many bits one after the other."""
    head = total << 5 | (_VALUE_BITS - 1)
    for bits in SIZES:
        head = head << 4 | (bits - 1)
    head_bits = 32 + 5 + 4 * len(SIZES)
    # The head as tokens of at most 27 bits, so that there is one way to put bits into bytes.
    first, rest = head_bits - 27, 27
    tokens = np.concatenate([[head >> rest, head & ((1 << rest) - 1)], tokens])
    widths = np.concatenate([[first, rest], widths])
    ends = np.cumsum(widths)
    byte, bit = np.divmod(ends - widths, 8)
    placed = tokens << (8 * _SPAN - bit - widths)
    # Bits of different tokens never meet in a byte: their sum is their union, and floats hold it exactly. Where they
    # end on a whole byte, the library adds one more byte of zeros.
    count = int(ends[-1]) // 8 + 1
    stream = np.zeros(count + _SPAN)
    for place in range(_SPAN):
        part = placed >> (8 * (_SPAN - 1 - place)) & 255
        stream += np.bincount(byte + place, weights=part, minlength=stream.size)
    numbers: list[int] = stream[:count].astype(np.uint8).tolist()
    return numbers
