"""From an array that a caller passes to 8-bit RGB, by the rules for files of the same kind.

======================================  ==============================================================
array                                   what is taken
======================================  ==============================================================
(H, W, 3) uint8                         as it is
(H, W) or (H, W, 1) uint8               grey
(H, W, 2), (H, W, 4) uint8              grey, or three colours; the last channel is alpha and is dropped
the same as uint16                      65535 is white; see :mod:`mmms_deploy.imaging.samples`
(H, W) or (H, W, 1) bool                black and white
======================================  ==============================================================

The same numbers in a file give the same pixels. Of 16 bits in colour, or with alpha, the upper 8 are taken, as Pillow
does. Floats, signed numbers and wider integers have no agreed range and are refused.

OpenCV's arrays hold blue, green, red. Nothing in an array says so, and no network complains about it; so the caller
says it, with ``channel_order="bgr"``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mmms_deploy.arguments import shown
from mmms_deploy.errors import ImageError
from mmms_deploy.imaging.arrays import hidden, plain, unmasked
from mmms_deploy.imaging.refusal import Refusal
from mmms_deploy.imaging.samples import AS_UINT8, STRIP, UInt8Array, check_range, scaled


class ChannelOrder(StrEnum):
    """The order of an array's colour channels; alpha comes after them in both."""

    RGB = "rgb"
    BGR = "bgr"


ChannelOrderLike: TypeAlias = 'ChannelOrder | Literal["rgb", "bgr", "RGB", "BGR"]'
"""``rgb``, or ``bgr`` as OpenCV has it, in lower or upper case."""


def checked_order(order: object) -> ChannelOrder:
    """Return an order of channels, checked.

    Args:
        order: What was given.

    Raises:
        ImageError: It is neither.
    """
    name = order.lower() if isinstance(order, str) else ""
    if name in ("rgb", "bgr"):
        return ChannelOrder(name)
    meant = "bgr" if name.startswith("bgr") or name in ("cv2", "opencv") else "rgb"
    alpha = "; a fourth channel is alpha, and is seen from the array's shape" if name in ("rgba", "bgra") else ""
    raise ImageError(
        f"channel_order is {shown(order, 80)}",
        expected='"rgb", or "bgr" as OpenCV has it',
        fix=f'pass channel_order="{meant}"{alpha}',
        command_fix="leave it out: a file says its own order",
    )


def check_file_order(order: ChannelOrder, refuse: Refusal) -> None:
    """Refuse an order of channels for a picture that says its own.

    Args:
        order: The order that was given.
        refuse: Makes the error.

    Raises:
        MMMSDeployError: ``refuse``'s error.
    """
    if order is not ChannelOrder.RGB:
        raise refuse(
            f'channel_order="{order}" with a file or a PIL image, which says its own order',
            "leave channel_order out; it is for arrays, such as cv2.imread and cv2.VideoCapture give",
        )


def array_to_rgb(array: npt.NDArray[Any], order: ChannelOrder, refuse: Refusal) -> UInt8Array:
    """Return the colours of an array: (H, W, 3) uint8, RGB.

    Args:
        array: As in the module's table. A masked array must not hide a number.
        order: The order of its colours; a grey one has none.
        refuse: Makes the error.

    Returns:
        The array itself, where it is (H, W, 3) uint8 in RGB order; otherwise memory of its own.

    Raises:
        MMMSDeployError: ``refuse``'s error: the array has another shape or dtype, or would come out black.
    """
    given = f"the image is an array of shape {array.shape} and dtype {array.dtype}"
    covered = hidden(array)
    if covered is not None:
        raise refuse.error(
            f"{given}, and a masked one that hides {np.count_nonzero(covered)} of its numbers",
            expected=refuse.expected,
            fix="choose a colour for the pixels that were not measured: array.filled(0)",
        )
    array = unmasked(array) if isinstance(array, np.ma.MaskedArray) else plain(array)
    fix = _wrong_shape(array) or _wrong_dtype(array)
    if fix is not None:
        raise refuse.error(given, expected=refuse.expected, fix=fix)
    if min(array.shape) == 0:
        raise refuse.error(
            f"{given}: it has no pixels", expected=refuse.expected, fix="check how the image was cropped"
        )
    channels = 1 if array.ndim == 2 else array.shape[2]
    if channels == 3 and array.dtype == np.uint8 and order is ChannelOrder.RGB:
        return array
    # Planes by planes: NumPy copies arrays of channels in another order slowly.
    planes = [array] if array.ndim == 2 else [array[:, :, index] for index in range(3 if channels > 2 else 1)]
    if array.dtype.kind == "u" and array.itemsize == 2:
        greatest = max(int(plane.max()) for plane in planes)
        check_range(greatest, "the array", refuse)
    pixels = np.empty((*array.shape[:2], 3), dtype=np.uint8)
    sources = planes[::-1] if order is ChannelOrder.BGR else planes
    for index in range(3):
        _put(sources[index % len(sources)], pixels[:, :, index], plain_grey=channels == 1)
    return pixels


def _put(plane: npt.NDArray[Any], target: UInt8Array, *, plain_grey: bool) -> None:
    """Write one channel as 8 bits."""
    if plane.dtype == np.uint8:
        target[:] = plane
        return
    rows = max(1, STRIP // plane.shape[1])
    for top in range(0, len(plane), rows):
        part = plane[top : top + rows]
        if plane.dtype == np.bool_:
            target[top : top + rows] = part * np.uint8(255)
        else:
            target[top : top + rows] = scaled(part, 65535) if plain_grey else part >> 8


def _wrong_shape(array: npt.NDArray[Any]) -> str | None:
    """Return what to do about an array's shape; None where it is right."""
    shape = array.shape
    if array.ndim == 2 or (array.ndim == 3 and 1 <= shape[2] <= 4):
        return None
    if array.ndim == 4:
        return "pass one image, array[0], without a batch axis"
    if array.ndim != 3:
        return "convert it to (H, W, 3) uint8"
    first = {1: "pass the grey channel alone, array[0]"}
    first |= dict.fromkeys((3, 4), "put the channels last: array.transpose(1, 2, 0)")
    return first.get(shape[0], f"choose three of its {shape[2]} channels: array[:, :, [0, 1, 2]]")


def _wrong_dtype(array: npt.NDArray[Any]) -> str | None:
    """Return what to do about an array's dtype; None where it is right."""
    kind, size = array.dtype.kind, array.itemsize
    if (kind == "u" and size <= 2) or (kind == "b" and (array.ndim == 2 or array.shape[2] == 1)):
        return None
    if kind == "b":
        return "convert it: array.astype(np.uint8) * 255"
    if kind not in "iuf" or not array.size:
        return "convert it to (H, W, 3) uint8"
    with np.errstate(invalid="ignore"):
        least, greatest = array.min(), array.max()
    if kind == "f" and least >= 0 and greatest <= 1:
        return "scale it to 0..255: (array * 255).round().astype(np.uint8)"
    if kind == "f":
        return "scale it to 0..255 and convert it with .astype(np.uint8)"
    return "its numbers fit into 8 bits: array.astype(np.uint8)" if least >= 0 and greatest <= 255 else AS_UINT8[0]
