"""Reads images and modalities from files, PIL images and arrays into checked arrays.

All of the following is decided here, once, instead of by a library's default:

* EXIF orientation is applied, so that a photograph has the width and height that viewers show.
* The first picture of animations and multi-page files is taken.
* RGB: grey and palette images become RGB. Alpha is dropped and the stored colours are used, as OpenCV does; nothing is
  composited on a background that the caller did not choose. 16 bits a channel become 8, so that 65535 becomes 255.
  32-bit integer and float files have no agreed range and are refused.
* Modalities: numbers are taken as stored; :mod:`mmms_deploy.imaging.modality` scales them as the bundle says. Palette
  indices, and 16-bit colour files (which Pillow would silently cut to 8 bits), are refused.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from mmms_deploy.errors import ImageError, MMMSDeployError, ModalityError

ImageLike: TypeAlias = "npt.NDArray[Any] | Image.Image | str | os.PathLike[str]"
"""An array, a PIL image, or the path of a file."""

UInt8Array: TypeAlias = npt.NDArray[np.uint8]

_RGB = "an RGB image: (H, W, 3) uint8 array, PIL image, or path of an image file"


def load_rgb(source: ImageLike) -> UInt8Array:
    """Return an image as (H, W, 3) uint8, RGB.

    Args:
        source: (H, W, 3) uint8 array in RGB order, PIL image, or path. An array is returned as it is, not copied.

    Raises:
        ImageError: It is none of these, or the file is missing or cannot be decoded.
    """
    if isinstance(source, np.ndarray):
        return _checked_rgb(source)
    return _pil_to_rgb(*_open(source, ImageError, "the image", _RGB))


def load_modality(source: ImageLike, name: str) -> npt.NDArray[Any]:
    """Return a modality as (H, W, C) numbers, as stored.

    Args:
        source: (H, W) or (H, W, C) array of integers or floats, PIL image, or path of an image or ``.npy`` file. An
            array is not copied.
        name: Name of the modality, for messages.

    Raises:
        ModalityError: It is none of these, or the file is missing or cannot be read.
    """
    what = f"modality {name!r}"
    expected = "(H, W) or (H, W, C) numbers: array, PIL image, image file or .npy file"
    if isinstance(source, np.ndarray):
        array = source
    elif isinstance(source, str | os.PathLike) and Path(source).suffix.lower() == ".npy":
        array = _load_npy(Path(source), what, expected)
    else:
        array = _pil_to_numbers(*_open(source, ModalityError, what, expected), what, expected)
    given = f"{what} has shape {array.shape} and dtype {array.dtype}"
    if array.dtype.kind not in "uif":
        raise ModalityError(given, expected=expected, fix="convert it to integers or floats")
    if array.ndim not in (2, 3):
        raise ModalityError(given, expected=expected, fix="pass one image, without a batch axis, channels last")
    if array.size == 0:
        raise ModalityError(f"{given}: it has no pixels", expected=expected, fix="check how it was cropped")
    return array if array.ndim == 3 else array[:, :, None]


def _open(source: object, kind: type[MMMSDeployError], what: str, expected: str) -> tuple[Image.Image, bool]:
    """Return a decoded, upright image, and whether its file has 16 bits a channel."""
    if isinstance(source, Image.Image):
        return _upright(source, kind, what, expected, "the PIL image")
    if not isinstance(source, str | os.PathLike):
        raise kind(
            f"{what} is a {type(source).__module__}.{type(source).__qualname__}",
            expected=expected,
            fix="convert it to a NumPy array, channels last",
        )
    path = Path(source)
    try:
        with Image.open(path) as image:
            return _upright(image, kind, what, expected, str(path))
    except FileNotFoundError:
        raise kind(f"{what}: there is no file {path}", expected=expected, fix="check the path") from None
    except UnidentifiedImageError:
        raise kind(
            f"{what}: {path} is no image that Pillow can read",
            expected=expected,
            fix="convert it to PNG or JPEG",
        ) from None
    except Image.DecompressionBombError as error:
        raise kind(
            f"{what}: {path} is refused: {error}",
            expected=f"at most {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels",
            fix="if you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS",
            command_fix="make the image smaller",
        ) from error
    except OSError as error:
        raise kind(
            f"{what}: {path} cannot be read: {error.strerror or error}", expected=expected, fix="check the file"
        ) from error


def _upright(
    image: Image.Image, kind: type[MMMSDeployError], what: str, expected: str, where: str
) -> tuple[Image.Image, bool]:
    # Pillow forgets how the file was stored once it is decoded. Older versions read a 16-bit grey PNG as mode I.
    sixteen = ";16" in str(getattr(image, "tile", "")) or (image.format == "PNG" and image.mode == "I")
    try:
        image.load()
        return ImageOps.exif_transpose(image), sixteen
    # Decoders of broken files raise all of these.
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, Image.DecompressionBombError) as error:
        raise kind(
            f"{what}: {where} cannot be decoded: {error}", expected=expected, fix="check whether the file is complete"
        ) from error


def _pil_to_rgb(image: Image.Image, sixteen: bool) -> UInt8Array:
    if image.mode.startswith("I;16") or (image.mode == "I" and sixteen):
        grey = np.asarray(image).astype(np.uint32)
        # 65535 = 255 * 257, so this is the nearest 8-bit value.
        eight = ((np.minimum(grey, 65535) + 128) // 257).astype(np.uint8)
        return np.repeat(eight[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ImageError(
            f"the image has mode {image.mode!r} (32 bits a pixel)",
            expected=_RGB,
            fix="scale it to 0..255 yourself and pass a uint8 array",
            command_fix="scale it to 0..255 yourself and save it with 8 bits a channel",
        )
    if image.mode == "P":
        # Pillow warns about the palette's transparency when it converts straight to RGB.
        image = image.convert("RGBA")
    try:
        return _checked_rgb(np.asarray(image.convert("RGB")))
    except ValueError as error:
        raise ImageError(
            f"the image has mode {image.mode!r}, which Pillow cannot convert: {error}",
            expected=_RGB,
            fix="convert it to RGB yourself",
        ) from error


def _checked_rgb(array: npt.NDArray[Any]) -> UInt8Array:
    given = f"the image is an array of shape {array.shape} and dtype {array.dtype}"
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


def _load_npy(path: Path, what: str, expected: str) -> npt.NDArray[Any]:
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise ModalityError(f"{what}: there is no file {path}", expected=expected, fix="check the path") from None
    except (OSError, ValueError, EOFError) as error:
        raise ModalityError(
            f"{what}: {path} cannot be read: {error}",
            expected=f"{expected} (no pickled objects)",
            fix="save plain numbers with np.save(path, array, allow_pickle=False)",
            command_fix="save one array of plain numbers with numpy.save",
        ) from error
    if not isinstance(array, np.ndarray):
        raise ModalityError(
            f"{what}: {path} holds several arrays", expected=expected, fix="save one array with np.save"
        )
    return array


def _pil_to_numbers(image: Image.Image, sixteen: bool, what: str, expected: str) -> npt.NDArray[Any]:
    if image.mode in ("P", "PA", "1"):
        kind = "black and white" if image.mode == "1" else "palette"
        raise ModalityError(
            f"{what} is a {kind} image: its numbers are no measurements",
            expected=expected,
            fix="convert it to the numbers that are meant and pass an array",
            command_fix="convert it to the numbers that are meant and save them as .npy",
        )
    if sixteen and not image.mode.startswith("I"):
        raise ModalityError(
            f"{what} has 16 bits a channel and {len(image.getbands())} channels, which Pillow would cut to 8 bits",
            expected=expected,
            fix="save it as .npy",
        )
    return np.asarray(image)
