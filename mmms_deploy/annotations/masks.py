"""What counts as a mask: bools, or the whole numbers 0 and 1 or 0 and 255 that files and other tools have for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.errors import AnnotationError, MMMSDeployError
from mmms_deploy.imaging.resize import BoolArray

MASK = "(H, W) bool, or whole numbers that are 0 and 1 or 0 and 255"


def checked_bool(mask: object, expected: str = MASK, error: type[MMMSDeployError] = AnnotationError) -> BoolArray:
    """Return a mask as bools, not copied where it has that type.

    Args:
        mask: (H, W) bool; or integers that are all 0 and 1, or all 0 and 255.
        expected: What would have been right, for messages.
        error: The error to raise.

    Returns:
        (H, W) bool.

    Raises:
        MMMSDeployError: ``error``: it is another type or shape, has no pixels, or other numbers.
    """
    array = checked_array(mask, expected, error)
    given = f"the mask has shape {array.shape} and dtype {array.dtype}"
    if array.ndim != 2 or array.size == 0:
        raise error(given, expected=expected, fix="pass the mask of one object: two axes, rows and columns")
    if array.dtype.kind == "f":
        raise error(given, expected=expected, fix="choose a threshold: mask > 0.5")
    if array.dtype.kind not in "bui":
        raise error(given, expected=expected, fix="convert it: mask > 0")
    return bool_of(array, expected, error)


def checked_array(mask: object, expected: str, error: type[MMMSDeployError]) -> npt.NDArray[Any]:
    """Return a mask that a caller gave as an array, not copied where it is one.

    Raises:
        MMMSDeployError: ``error``: it is no array, or hides some of its numbers.
    """
    if isinstance(mask, np.ma.MaskedArray):
        raise error("the mask is a masked array", expected=expected, fix="fill it: mask.filled(False)")
    if mask is None:
        fix = "check where it comes from: cv2.imread returns None for a file that it cannot read"
        raise error("the mask is None", expected=expected, fix=fix)
    try:
        return np.asarray(mask)
    except (ValueError, TypeError) as failure:  # ragged lists, tensors of a GPU
        raise error(
            f"the mask is a {type(mask).__qualname__} that is no array: {failure}",
            expected=expected,
            fix="pass a NumPy array on the host",
        ) from failure


def bool_of(array: npt.NDArray[Any], expected: str, error: type[MMMSDeployError]) -> BoolArray:
    """Return bools or whole numbers as bools.

    Args:
        array: Bools; or integers that are all 0 and 1, or all 0 and 255.
        expected: What would have been right, for messages.
        error: The error to raise.

    Raises:
        MMMSDeployError: ``error``: there are other numbers, of which nothing says what belongs to the object.
    """
    if array.dtype == np.bool_:
        return array
    inside: BoolArray = array != 0
    greatest = array.max(initial=0)
    if greatest in (0, 1, 255) and array.min(initial=0) >= 0 and (array[inside] == greatest).all():
        return inside
    found = np.unique(array)
    listed = ", ".join(str(number) for number in found[:6]) + (", ..." if len(found) > 6 else "")
    grey = len(found) > 2 and found[0] >= 0 and 200 <= greatest <= 255
    one = f"mask == {found[found != 0][0]}"
    raise error(
        f"the mask has the values {listed}",
        expected=expected,
        fix=f"choose a threshold, if they are grey levels: mask > 127; or one object, if they are labels: {one}"
        if grey
        else f"choose what belongs to the object: {one} for one label, mask > 0 for all of them",
    )
