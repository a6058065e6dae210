"""From a decoded picture to numbers: 8-bit colours, or the samples as they are stored.

Colours. White is the greatest number that a sample can have, so 65535 becomes 255. Where the file says that fewer bits
are used (12 bits a sample, MaxSampleValue 4095 in TIFF, the greatest value of a PGM file), white is that number. A
16-bit picture that says nothing and uses less than a sixteenth of its range would come out black, and is refused; one
that uses less than a quarter is taken, with a warning. Signed, 32-bit and floating-point samples have no agreed range.

Stored samples. Some of Pillow's decoders stretch samples to 8 or 16 bits (2 and 4 bits in PNG and TIFF, PGM files with
another greatest value). That is undone, so that numbers and labels are those in the file.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmms_deploy.errors import MMMSDeployWarning
from mmms_deploy.imaging.picture import Picture, turned
from mmms_deploy.imaging.refusal import Refusal

UInt8Array = npt.NDArray[np.uint8]

_PLAIN = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "La", "CMYK", "YCbCr", "HSV"})
"""Modes of 8-bit colours that become RGB; CMYK by the plain formula, without a colour profile."""
_INDEXED = ("P", "PA")
STRIP = 1 << 22
"""Pixels that are converted at a time, so that a large picture is not there three times."""
_BLACK, _DARK = 1 << 12, 1 << 14
"""A 16-bit picture whose greatest number is below is black, or dark."""
_STRETCHED = {"L;2": 85, "L;2R": 85, "L;4": 17, "L;4R": 17}
"""Factors by which Pillow stretches samples of 2 and 4 bits."""
_SIGNED = frozenset({"I;16S", "I;16BS", "I;16NS"})
AS_UINT8 = (
    "scale it to 0..255 yourself and pass a uint8 array",
    "scale it to 0..255 yourself and save it with 8 bits a channel",
)


def to_rgb(picture: Picture, refuse: Refusal) -> UInt8Array:
    """Return a picture's colours, upright: (H, W, 3) uint8, RGB.

    Raises:
        MMMSDeployError: ``refuse``'s error: its samples have no agreed range, or would come out black.
    """
    image = picture.image
    if _is_signed_byte(picture) or picture.rawmode in _SIGNED:
        raise refuse(f"{picture.where} has signed samples, as CT images have: they are no brightness", *AS_UINT8)
    if _is_sixteen(picture):
        pixels = _sixteen_to_rgb(picture, refuse)
    elif image.mode in ("I", "F"):
        raise refuse(f"{picture.where} has mode {image.mode!r} (32 bits a pixel)", *AS_UINT8)
    elif image.mode in _PLAIN:
        pixels = _plain_to_rgb(image)
    else:
        raise refuse(
            f"{picture.where} has the colour mode {image.mode!r}, which has no one conversion to RGB",
            "convert it to RGB yourself",
        )
    if ";16" in picture.rawmode and image.mode not in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
        # Of 16 bits a channel in colour, Pillow keeps the upper 8.
        check_range(int(pixels.max()) << 8 | 255 if pixels.any() else 0, picture.where, refuse)
    turns = picture.turns
    del image, picture  # turning copies; a large picture need not be there three times
    return np.ascontiguousarray(turned(pixels, turns))


def _plain_to_rgb(image: Image.Image) -> UInt8Array:
    width, height = image.size
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        part = image if rows >= height else image.crop((0, top, width, min(top + rows, height)))
        if part.mode in _INDEXED:
            part = part.convert("RGBA")  # Pillow warns of a palette's transparency when it converts to RGB at once
        elif part.mode == "La":
            part = part.convert("LA")
        elif part.mode == "RGBa":
            part = part.convert("RGBA")
        pixels[top : top + rows] = np.asarray(part if part.mode == "RGB" else part.convert("RGB"))
    return pixels


def _is_signed_byte(picture: Picture) -> bool:
    # Pillow reads signed bytes as unsigned ones.
    return picture.format == "TIFF" and picture.image.mode == "L" and picture.sample_format == 2


def _is_sixteen(picture: Picture) -> bool:
    mode = picture.image.mode
    return mode.startswith("I;16") or (mode == "I" and (picture.format == "PPM" or picture.rawmode == "I;16B"))


def _sixteen_to_rgb(picture: Picture, refuse: Refusal) -> UInt8Array:
    image = picture.image
    width, height = image.size
    white = _white(picture, refuse)
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        part = image.crop((0, top, width, min(top + rows, height)))
        grey = scaled(np.asarray(part), white)
        if picture.inverted:
            grey = 255 - grey
        pixels[top : top + rows] = grey[:, :, None]
    return pixels


def _white(picture: Picture, refuse: Refusal) -> int:
    """Return the number that stands for white."""
    if picture.format == "PPM":
        return 65535  # Pillow has stretched it already
    greatest = int(np.asarray(picture.image).max())  # Pillow's getextrema() does not take I;16B
    if picture.greatest is not None and greatest <= picture.greatest:
        return picture.greatest
    if not picture.inverted:
        check_range(greatest, picture.where, refuse)
    return 65535


def scaled(numbers: npt.NDArray[Any], white: int) -> npt.NDArray[np.uint32]:
    """Return 16-bit numbers of any shape as brightness from 0 to 255, where ``white`` and what is above it are 255."""
    return (np.minimum(numbers.astype(np.uint32), white) * 255 + white // 2) // white


def check_range(greatest: int, where: str, refuse: Refusal) -> None:
    """Check that a 16-bit picture uses enough of its range; one that uses less than a quarter gives a warning.

    Args:
        greatest: Its greatest number.
        where: What it is, for messages.
        refuse: Makes the error.

    Raises:
        MMMSDeployError: ``refuse``'s error: it uses less than a sixteenth.
    """
    if not 0 < greatest < _DARK:
        return
    said = f"{where} has 16 bits a channel and no number above {greatest}, of 65535"
    if greatest < _BLACK:
        raise refuse(f"{said}: it would come out black", *AS_UINT8)
    warnings.warn(
        f"{said}: it is taken as a dark picture. If its white is {(1 << greatest.bit_length()) - 1}, scale it to 0..255"
        " and save it with 8 bits a channel",
        MMMSDeployWarning,
        stacklevel=2,
    )


def to_numbers(picture: Picture, refuse: Refusal) -> npt.NDArray[Any]:
    """Return a picture's samples as they are stored, upright: (H, W) or (H, W, C).

    Integers, floats or bools, in the byte order of this machine.

    Raises:
        MMMSDeployError: ``refuse``'s error: Pillow does not give the samples as they are stored.
    """
    image = picture.image
    colour = image.mode not in ("I", "F", "1", "L", "P") and not image.mode.startswith("I;16")
    if colour and (";16" in picture.rawmode or (picture.greatest or 0) > 255):
        raise refuse(
            f"{picture.where} has 16 bits a channel and {len(image.getbands())} channels, which Pillow would cut to 8"
            " bits",
            "save it as .npy",
        )
    if colour and picture.format == "PPM" and picture.greatest not in (None, 255):
        raise refuse(
            f"{picture.where} has numbers up to {picture.greatest}, which Pillow would stretch to 255",
            "save it as .npy",
        )
    array = np.asarray(image)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if _is_signed_byte(picture):
        array = array.view(np.int8)
    if picture.rawmode == "I;32N" and picture.sample_format == 1 and array.min() < 0:
        array = array.view(np.uint32)
    if picture.rawmode in _STRETCHED and picture.format in ("PNG", "TIFF"):
        array = array // np.uint8(_STRETCHED[picture.rawmode])
    if picture.format == "PPM" and image.mode in ("L", "I") and picture.greatest not in (None, 255, 65535):
        array = _unstretched(array, picture.greatest or 1, 65535 if image.mode == "I" else 255)
    if picture.format == "PPM" and image.mode == "I":
        array = array.astype(np.uint16)
    return turned(array, picture.turns)


def _unstretched(array: npt.NDArray[Any], greatest: int, full: int) -> npt.NDArray[Any]:
    return ((array.astype(np.int64) * greatest + full // 2) // full).astype(array.dtype)
