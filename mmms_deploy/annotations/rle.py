"""Run lengths as COCO counts them: down the columns, background first, as numbers or in COCO's compressed text.

Here a mask is drawn from its runs without COCO's own library: where runs are missing, that draws whatever is in memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from mmms_deploy.annotations.boxes import xyxy_of
from mmms_deploy.annotations.masks import checked_bool
from mmms_deploy.arguments import flag
from mmms_deploy.errors import AnnotationError
from mmms_deploy.imaging.resize import BoolArray

PIXELS = 1 << 28
"""The most pixels of a mask that is drawn, so that a few bytes do not ask for gigabytes."""
_EXPECTED = "COCO's run lengths: {'size': [H, W], 'counts': text, or whole numbers that add up to H * W}"


class Rle(TypedDict):
    """COCO's run lengths, JSON-able.

    Attributes:
        size: [H, W].
        counts: The compressed text, or the lengths of the runs down the columns, background first.
    """

    size: list[int]
    counts: str | list[int]


def rle_of(mask: npt.NDArray[Any], compressed: bool = True) -> Rle:
    """Return the run lengths of a mask.

    Args:
        mask: (H, W) bool, or whole numbers 0 and 1 or 0 and 255.
        compressed: Whether as COCO's compressed text, which is shorter; else as numbers.

    Returns:
        ``{"size": [H, W], "counts": ...}``, JSON-able; pycocotools reads both forms.

    Raises:
        AnnotationError: It is no mask.
    """
    checked = checked_bool(mask)
    height, width = checked.shape
    counts: list[int] = np.diff(_changes(checked), prepend=0, append=checked.size).tolist()
    if len(counts) > 1 and not counts[-1]:
        counts.pop()
    if not flag("compressed", compressed, AnnotationError):
        return {"size": [height, width], "counts": counts}
    import pycocotools.mask

    encoded = pycocotools.mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


def _changes(mask: BoolArray) -> npt.NDArray[np.int64]:
    """Return where runs of the object and of the background begin, in turn, counted down the columns."""
    x0, y0, x1, y1 = xyxy_of(mask)
    # The columns of the object's box, with background above and below, as rows.
    columns = np.zeros((x1 - x0, y1 - y0 + 2), dtype=np.bool_)
    columns[:, 1:-1] = mask[y0:y1, x0:x1].T
    column, row = np.nonzero(columns[:, 1:] != columns[:, :-1])
    places = (column + x0) * mask.shape[0] + row + y0
    # A run that ends at the foot of the image goes on where the next one begins at the head.
    going_on = np.flatnonzero(places[1:] == places[:-1])
    return np.delete(places, np.concatenate([going_on, going_on + 1]))


def mask_of_rle(rle: Mapping[str, Any]) -> BoolArray:
    """Draw run lengths.

    Args:
        rle: ``{"size": [H, W], "counts": ...}`` with compressed text (str or bytes) or numbers, from here or from any
            other tool.

    Returns:
        (H, W) bool.

    Raises:
        AnnotationError: They are no run lengths, do not fill the size exactly, or have more than 2^28 pixels.
    """
    try:
        size, counts = rle["size"], rle["counts"]
    except (TypeError, LookupError, ValueError, AttributeError):
        raise AnnotationError(
            "the run lengths have no 'size' or no 'counts'", expected=_EXPECTED, fix="check where they come from"
        ) from None
    try:
        if isinstance(counts, bytes):
            counts = counts.decode("ascii")
        return draw_runs(counts, _checked_size(size))
    except (ValueError, TypeError, OverflowError) as error:
        raise AnnotationError(
            f"the run lengths cannot be drawn: {error}", expected=_EXPECTED, fix="check where they come from"
        ) from error


def draw_runs(counts: str | Sequence[int], size: tuple[int, int]) -> BoolArray:
    """Draw run lengths.

    Args:
        counts: Lengths of runs down the columns, background first; as COCO's compressed text, or as numbers.
        size: (H, W).

    Returns:
        (H, W) bool.

    Raises:
        ValueError: The runs do not fill the image exactly.
    """
    lengths = _uncompressed(counts) if isinstance(counts, str) else np.asarray(counts)
    pixels = math.prod(size)
    if lengths.ndim != 1 or lengths.dtype.kind not in "ui" or lengths.size == 0:
        raise ValueError(f"its runs do not add up to {size[0]}x{size[1]} pixels")
    # Checked first: the sum of very long runs would overflow.
    if lengths.min() < 0 or lengths.max() > pixels or lengths.astype(np.int64).sum() != pixels:
        raise ValueError(f"its runs do not add up to {size[0]}x{size[1]} pixels")
    drawn = np.repeat(np.arange(lengths.size) % 2 == 1, lengths)
    return np.ascontiguousarray(drawn.reshape(size[::-1]).T)


def _checked_size(size: Any) -> tuple[int, int]:
    sides = [int(side) for side in size if isinstance(side, int | np.integer) and not isinstance(side, bool)]
    if len(sides) != 2 or len(size) != 2 or min(sides) < 1:
        raise ValueError(f"the size is {str(size)[:80]}")
    if math.prod(sides) > PIXELS:
        raise ValueError(f"the size is {sides[0]}x{sides[1]}, more than {PIXELS} pixels")
    return sides[0], sides[1]


def _uncompressed(text: str) -> npt.NDArray[np.int64]:
    """Return the numbers in COCO's compressed text.

    A character holds five bits, the least significant ones first. Its sixth bit says that more characters follow; the
    fifth bit of the last one is the sign. From the fourth on, a number is the difference to the one two places before.

    Raises:
        ValueError: The text is no such numbers.
    """
    codes = np.frombuffer(text.encode("ascii", "replace"), dtype=np.uint8).astype(np.int64) - 48
    # A character that is none of ASCII became a question mark, which is a digit too.
    if codes.size == 0 or codes.min() < 0 or codes.max() > 63 or not text.isascii():
        raise ValueError("its run lengths hold characters where none belong")
    ends = np.flatnonzero((codes & 32) == 0)
    if ends.size == 0 or ends[-1] != codes.size - 1:
        raise ValueError("its run lengths end in the middle of a number")
    starts = np.concatenate([[0], ends[:-1] + 1])
    digits = ends - starts + 1
    if digits.max() > 12:
        raise ValueError("its run lengths hold a number of too many digits")
    shifts = 5 * (np.arange(codes.size) - np.repeat(starts, digits))
    numbers = np.add.reduceat((codes & 31) << shifts, starts)
    numbers -= np.where(codes[ends] & 16, np.int64(1) << (5 * digits), 0)
    # The first number stands alone; every later one from the fourth on adds to the one two places before it.
    for first in (1, 2):
        chain = numbers[first::2]
        if np.abs(chain.astype(np.float64)).sum() >= 2.0**62:
            raise ValueError("its run lengths are no numbers of pixels")
        np.cumsum(chain, out=chain)
    return numbers
