"""Reads images and modalities from files, PIL images and arrays into checked arrays.

All of the following is decided here and in the modules it calls, once, instead of by a library's default:

* Which formats are opened, and which picture of a file is taken: :mod:`mmms_deploy.imaging.picture`.
* EXIF orientation is applied, so that a photograph has the width and height that viewers show.
* RGB: grey and palette images become RGB. Alpha is dropped and the stored colours are used, as OpenCV does; nothing is
  composited on a background that the caller did not choose. What white is among 16 bits, and which samples are no
  brightness: :mod:`mmms_deploy.imaging.samples`.
* Modalities: numbers are taken as stored; :mod:`mmms_deploy.imaging.modality` scales them as the bundle says. Palette
  indices, and 16-bit colour files (which Pillow would silently cut to 8 bits), are refused.
* Masked arrays: :mod:`mmms_deploy.imaging.arrays`. What they hide is nothing measured in a modality, and no colour.
"""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmms_deploy.errors import FileReadError, ImageError, ModalityError
from mmms_deploy.files.arrays import load_array
from mmms_deploy.imaging.arrays import hidden, plain, unmasked
from mmms_deploy.imaging.formats import READ
from mmms_deploy.imaging.picture import Picture, Refusal, open_picture
from mmms_deploy.imaging.samples import UInt8Array, to_numbers, to_rgb

__all__ = ["ImageLike", "UInt8Array", "load_modality", "load_oriented_modality", "load_photo", "load_rgb"]

ImageLike: TypeAlias = "npt.NDArray[Any] | Image.Image | str | os.PathLike[str]"
"""An array, a PIL image, or the path of a file."""

_RGB = f"an RGB image: (H, W, 3) uint8 array, PIL image, or path of an image file ({READ})"
_NUMBERS = "(H, W) or (H, W, C) numbers: array, PIL image, image file or .npy file"


def load_rgb(source: ImageLike) -> UInt8Array:
    """Return an image as (H, W, 3) uint8, RGB.

    Args:
        source: (H, W, 3) uint8 array in RGB order, PIL image, or path. An array is returned as it is, not copied.

    Raises:
        ImageError: It is none of these, the file is missing or cannot be decoded, or its numbers are no brightness.
    """
    if isinstance(source, np.ndarray):
        return _checked_rgb(source)
    refuse = Refusal(ImageError, "the image", _RGB)
    return to_rgb(_open(source, refuse), refuse)


def load_photo(path: str | os.PathLike[str]) -> tuple[UInt8Array, int]:
    """Return an image file as (H, W, 3) uint8, RGB, upright, and the EXIF orientation that was applied, 1 to 8.

    Args:
        path: The file.

    Raises:
        ImageError: The file is missing or cannot be decoded, or its numbers are no brightness.
    """
    refuse = Refusal(ImageError, "the image", _RGB)
    picture = _open(path, refuse)
    return to_rgb(picture, refuse), picture.orientation or 1


def load_modality(source: ImageLike, name: str) -> npt.NDArray[Any]:
    """Return a modality as (H, W, C) numbers, as stored.

    Args:
        source: (H, W) or (H, W, C) array of integers or floats, PIL image, or path of an image or ``.npy`` file. An
            array is not copied, and a masked one stays masked.
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
    if isinstance(source, np.ndarray):
        array = plain(source)
    elif isinstance(source, str | os.PathLike) and str(os.fspath(source)).lower().endswith(".npy"):
        array = _load_npy(source, refuse)
    else:
        picture = _open(source, refuse)
        _check_measurements(picture, refuse)
        array, oriented = to_numbers(picture, refuse), picture.orientation is not None
    given = f"modality {name!r} has shape {array.shape} and dtype {array.dtype}"
    if array.dtype.kind not in "uif":
        raise ModalityError(given, expected=_NUMBERS, fix="convert it to integers or floats")
    if array.ndim not in (2, 3):
        raise ModalityError(given, expected=_NUMBERS, fix="pass one image, without a batch axis, channels last")
    if array.size == 0:
        raise ModalityError(f"{given}: it has no pixels", expected=_NUMBERS, fix="check how it was cropped")
    return (array if array.ndim == 3 else array[:, :, None]), oriented


def _open(source: object, refuse: Refusal) -> Picture:
    if not isinstance(source, Image.Image | str | os.PathLike):
        raise refuse.error(
            f"{refuse.what} is a {type(source).__module__}.{type(source).__qualname__}",
            expected=refuse.expected,
            fix="convert it to a NumPy array, channels last",
        )
    return open_picture(source, refuse)


def _check_measurements(picture: Picture, refuse: Refusal) -> None:
    mode = picture.image.mode
    if mode in ("P", "PA", "1"):
        kind = "black and white" if mode == "1" else "palette"
        raise refuse(
            f"{picture.where} is a {kind} image: its numbers are no measurements",
            "convert it to the numbers that are meant and pass an array",
            "convert it to the numbers that are meant and save them as .npy",
        )


def _checked_rgb(array: npt.NDArray[Any]) -> UInt8Array:
    given = f"the image is an array of shape {array.shape} and dtype {array.dtype}"
    covered = hidden(array)
    if covered is not None:
        raise ImageError(
            f"{given}, and a masked one that hides {np.count_nonzero(covered)} of its numbers",
            expected=_RGB,
            fix="choose a colour for the pixels that were not measured: array.filled(0)",
        )
    array = unmasked(array) if isinstance(array, np.ma.MaskedArray) else plain(array)
    if array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8:
        if min(array.shape) == 0:
            raise ImageError(f"{given}: it has no pixels", expected=_RGB, fix="check how the image was cropped")
        return array
    if array.ndim == 2:
        fix = "repeat the grey channel: np.repeat(array[:, :, None], 3, axis=2)"
    elif array.ndim == 4 and array.shape[0] == 1:
        fix = "pass one image, array[0], without a batch axis"
    elif array.ndim == 3 and array.shape[2] == 4:
        fix = "drop the alpha channel: array[:, :, :3]"
    elif array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        fix = "put the channels last: array.transpose(1, 2, 0)"
    elif array.ndim == 3 and array.shape[2] == 3 and array.dtype.kind == "f":
        fix = "scale it to 0..255 and convert it with .astype(np.uint8)"
    else:
        fix = "convert it to (H, W, 3) uint8"
    raise ImageError(given, expected=_RGB, fix=fix)


def _load_npy(path: str | os.PathLike[str], refuse: Refusal) -> npt.NDArray[Any]:
    try:
        return load_array(path)
    except FileReadError as error:
        if error.missing:
            raise refuse(f"there is no file {path}", "check the path") from None
        raise refuse(
            f"{path} cannot be read: {error.reason}",
            "save one array of plain numbers with np.save(path, array, allow_pickle=False)",
            "save one array of plain numbers with numpy.save",
        ) from error
