"""Reads images and modalities from files, PIL images and arrays into checked arrays.

All of the following is decided here and in the modules it calls, once, instead of by a library's default:

* Which formats are opened, and which picture of a file is taken: :mod:`mmms_deploy.imaging.picture`.
* EXIF orientation is applied, so that a photograph has the width and height that viewers show.
* RGB: grey and palette images become RGB. Alpha is dropped and the stored colours are used, as OpenCV does; nothing is
  composited on a background that the caller did not choose. What white is among 16 bits, and which samples are no
  brightness: :mod:`mmms_deploy.imaging.samples`. Arrays follow the rules for files of their kind:
  :mod:`mmms_deploy.imaging.colours`.
* A file's contents may be given as bytes or as a file object: :mod:`mmms_deploy.imaging.sources`.
* Modalities: numbers are taken as stored; :mod:`mmms_deploy.imaging.modality` scales them as the bundle says. Palette
  indices, and 16-bit colour files (which Pillow would silently cut to 8 bits), are refused.
* Masked arrays: :mod:`mmms_deploy.imaging.arrays`. What they hide is nothing measured in a modality, and no colour.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmms_deploy.errors import FileReadError, ImageError, ModalityError
from mmms_deploy.files.arrays import load_array, read_array
from mmms_deploy.imaging.arrays import plain
from mmms_deploy.imaging.colours import (
    ChannelOrderLike,
    array_to_rgb,
    check_file_order,
    checked_order,
)
from mmms_deploy.imaging.formats import READ
from mmms_deploy.imaging.picture import Picture, PictureLike, open_picture
from mmms_deploy.imaging.refusal import Refusal
from mmms_deploy.imaging.samples import UInt8Array, to_numbers, to_rgb
from mmms_deploy.imaging.sources import Contents, FileObject, check_text, contents, refused

__all__ = [
    "ChannelOrderLike",
    "ImageLike",
    "UInt8Array",
    "load_modality",
    "load_oriented_modality",
    "load_photo",
    "load_rgb",
]

ImageLike: TypeAlias = "npt.NDArray[Any] | PictureLike"
"""An array, a PIL image, the path of a file, or a file's contents: bytes, or a file object."""

_RGB = (
    "an RGB image: uint8 array (H, W, 3), or grey (H, W), with alpha or of uint16; PIL image; or a file as path, bytes"
    f" or file object ({READ})"
)
_NUMBERS = "(H, W) or (H, W, C) numbers: array, PIL image, or an image or .npy file as path, bytes or file object"
_NPY = b"\x93NUMPY"


def load_rgb(source: ImageLike, channel_order: ChannelOrderLike = "rgb") -> UInt8Array:
    """Return an image as (H, W, 3) uint8, RGB.

    Args:
        source: Array, PIL image, path, bytes of a file or file object. Arrays are (H, W, 3) uint8, grey (H, W) or
            (H, W, 1), with alpha (H, W, 2) or (H, W, 4), which is dropped; uint16 (65535 is white) or bool likewise.
        channel_order: ``rgb``, or ``bgr`` for an array as OpenCV gives it.

    Returns:
        A (H, W, 3) uint8 array in RGB order as it is, not copied; otherwise memory of its own.

    Raises:
        ImageError: It is none of these, the file is missing or cannot be decoded, or its numbers are no brightness.
    """
    order = checked_order(channel_order)
    refuse = Refusal(ImageError, "the image", _RGB)
    if isinstance(source, np.ndarray):
        return array_to_rgb(source, order, refuse)
    picture = _checked(source, refuse)
    check_file_order(order, refuse)
    return to_rgb(open_picture(picture, refuse), refuse)


def load_photo(path: str | os.PathLike[str]) -> tuple[UInt8Array, int]:
    """Return an image file as (H, W, 3) uint8, RGB, upright, and the EXIF orientation that was applied, 1 to 8.

    Args:
        path: The file.

    Raises:
        ImageError: The file is missing or cannot be decoded, or its numbers are no brightness.
    """
    refuse = Refusal(ImageError, "the image", _RGB)
    picture = open_picture(path, refuse)
    return to_rgb(picture, refuse), picture.orientation or 1


def load_modality(source: ImageLike, name: str) -> npt.NDArray[Any]:
    """Return a modality as (H, W, C) numbers, as stored.

    Args:
        source: (H, W) or (H, W, C) array of integers or floats, PIL image, or an image or ``.npy`` file: its path,
            its bytes or a file object. An array is not copied, and a masked one stays masked.
        name: Name of the modality, for messages.

    Raises:
        ModalityError: It is none of these, or the file is missing or cannot be read.
    """
    return load_oriented_modality(source, name)[0]


def load_oriented_modality(source: ImageLike, name: str) -> tuple[npt.NDArray[Any], bool]:
    """Return a modality as :func:`load_modality` does, and whether its file has an EXIF orientation of its own.

    Args:
        source: As there.
        name: As there.

    Raises:
        ModalityError: As there.
    """
    refuse = Refusal(ModalityError, f"modality {name!r}", _NUMBERS)
    oriented = False
    given = source if isinstance(source, np.ndarray) else contents(source, refuse) or source
    array = plain(given) if isinstance(given, np.ndarray) else _npy(given, refuse)
    if array is None:
        picture = open_picture(_checked(given, refuse), refuse)
        _check_measurements(picture, refuse)
        array, oriented = to_numbers(picture, refuse), picture.orientation is not None
    said = f"modality {name!r} has shape {array.shape} and dtype {array.dtype}"
    if array.dtype.kind not in "uif":
        raise ModalityError(said, expected=_NUMBERS, fix="convert it to integers or floats")
    if array.ndim not in (2, 3):
        raise ModalityError(said, expected=_NUMBERS, fix="pass one image, without a batch axis, channels last")
    if array.size == 0:
        raise ModalityError(f"{said}: it has no pixels", expected=_NUMBERS, fix="check how it was cropped")
    return (array if array.ndim == 3 else array[:, :, None]), oriented


def _checked(source: object, refuse: Refusal) -> PictureLike | Contents:
    """Return what is opened as a picture; anything else is refused."""
    if isinstance(source, Image.Image | str | os.PathLike | bytes | bytearray | memoryview | Contents):
        return source
    if isinstance(source, FileObject) and not isinstance(source, type):
        return source
    raise refused(source, refuse)


def _check_measurements(picture: Picture, refuse: Refusal) -> None:
    mode = picture.image.mode
    if mode in ("P", "PA", "1"):
        kind = "black and white" if mode == "1" else "palette"
        raise refuse(
            f"{picture.where} is a {kind} image: its numbers are no measurements",
            "convert it to the numbers that are meant and pass an array",
            "convert it to the numbers that are meant and save them as .npy",
        )


def _npy(source: object, refuse: Refusal) -> npt.NDArray[Any] | None:
    """Return the array in an ``.npy`` file, as it is stored; None for anything else."""
    if isinstance(source, Contents):
        if source.stream.getbuffer()[: len(_NPY)] != _NPY:
            return None
        return _loaded(lambda: read_array(source.stream, source.where), source.where, refuse)
    if isinstance(source, str | os.PathLike) and str(os.fspath(source)).lower().endswith(".npy"):
        check_text(source, refuse)
        return _loaded(lambda: load_array(source), source, refuse)
    return None


def _loaded(load: Callable[[], npt.NDArray[Any]], place: object, refuse: Refusal) -> npt.NDArray[Any]:
    try:
        return load()
    except FileReadError as error:
        if error.missing:
            raise refuse(f"there is no file {place}", "check the path") from None
        raise refuse(
            f"{place} cannot be read: {error.reason}",
            "save one array of plain numbers with np.save(path, array, allow_pickle=False)",
            "save one array of plain numbers with numpy.save",
        ) from error
