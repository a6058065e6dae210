"""Reading masks and label maps as the numbers that are stored, never as the colours that a palette gives them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.errors import FileReadError
from mmms_deploy.evaluation.datasets.listed import Labels
from mmms_deploy.evaluation.datasets.photo import Photo, fitted
from mmms_deploy.evaluation.errors import DatasetFileError
from mmms_deploy.files.arrays import load_array
from mmms_deploy.imaging.formats import READ
from mmms_deploy.imaging.picture import open_picture
from mmms_deploy.imaging.refusal import Refusal
from mmms_deploy.imaging.samples import to_numbers

JPEG_THRESHOLD = 127
"""JPEG smears a mask's 0 and 255 over all values; values above the middle were 255."""


class Channel(StrEnum):
    """Which channel counts in a mask that is saved in colour."""

    FIRST = "first"
    """The red channel, where a simulator writes the class."""
    GREATEST = "greatest"
    """The greatest of all channels, for masks in which any colour means the object."""


_EXPECTED = f"a mask or label map: one integer a pixel ({READ}, or .npy)"
_COLOURS = "colours are no labels: map them to integers"
_MODES = frozenset({"1", "L", "P", "I", "LA", "PA", "RGB", "RGBA"})
"""Modes of Pillow in which masks and label maps are saved; others hold colours that need a conversion first."""


def read_labels(file: Path, channel: Channel | None = None) -> Labels:
    """Read a label map, upright where the file has an EXIF orientation.

    Palette images give their indices. Grey images saved in colour give one of their equal channels. JPEG, which keeps
    no labels, gives 255 above :data:`JPEG_THRESHOLD` and 0 elsewhere. Where the colours are the same all over and alpha
    is not, alpha is the mask; where both differ, they have to mark the same pixels.

    Args:
        file: Path.
        channel: Which channel counts when channels differ; None to refuse such an image.

    Returns:
        (H, W) unsigned or signed integers as stored.

    Raises:
        DatasetFileError: The file cannot be read, or is no label map.
    """
    return _read(file, channel)[0]


def read_fitted_labels(file: Path, photo: Photo, what: str = "mask", channel: Channel | None = None) -> Labels:
    """Read the label map of an image, so that its pixels are those of the upright image.

    Args:
        file: Path.
        photo: The image.
        what: What the file is, for messages.
        channel: As :func:`read_labels`.

    Raises:
        DatasetFileError: As :func:`read_labels`, or it does not fit the image.
    """
    labels, oriented = _read(file, channel)
    return fitted(labels, what, file, photo, oriented=oriented)


def _read(file: Path, channel: Channel | None) -> tuple[Labels, bool]:
    """Return the labels, and whether the file has an orientation of its own."""
    oriented = jpeg = False
    if file.suffix.lower() == ".npy":
        array = _read_npy(file)
    else:
        picture = open_picture(file, _REFUSE)
        if picture.image.mode not in _MODES and not picture.image.mode.startswith("I;16"):
            raise DatasetFileError(
                f"the label map {file} has the colour mode {picture.image.mode!r}", expected=_EXPECTED, fix=_COLOURS
            )
        array, oriented = to_numbers(picture, _REFUSE), picture.orientation is not None
        jpeg = picture.format in ("JPEG", "MPO")
    if array.ndim == 3 and array.shape[2] in (2, 4):
        array = _without_alpha(array, file, channel)
    if array.ndim == 3 and jpeg:
        array = array.mean(axis=2).astype(np.uint8)
    if array.ndim == 3 and channel is not None:
        array = array[:, :, 0] if channel is Channel.FIRST else array.max(axis=2)
    if array.ndim == 3 and (array == array[:, :, :1]).all():
        array = array[:, :, 0]
    if array.ndim != 2 or array.dtype.kind not in "bui" or array.size == 0:
        problem = "has channels that differ" if array.ndim == 3 else f"has shape {array.shape} and dtype {array.dtype}"
        raise DatasetFileError(f"the label map {file} {problem}", expected=_EXPECTED, fix=_COLOURS)
    if jpeg:
        return np.where(array > JPEG_THRESHOLD, 255, 0).astype(np.uint8), oriented
    return array.astype(np.uint8) if array.dtype == np.bool_ else array, oriented


def _without_alpha(array: npt.NDArray[Any], file: Path, channel: Channel | None) -> npt.NDArray[Any]:
    """Return the channels that hold the mask: the colours, or alpha where the object is in it alone."""
    colours, alpha = array[:, :, :-1], array[:, :, -1]
    if channel is Channel.FIRST or (alpha == alpha.flat[0]).all():
        return colours
    if (colours == colours[:1, :1]).all():
        return alpha
    if np.array_equal((colours != 0).any(axis=2), alpha != 0):
        return colours
    raise DatasetFileError(
        f"the label map {file} marks other pixels by its colours than by its alpha channel",
        expected=_EXPECTED,
        fix="save the mask without an alpha channel, or the alpha channel alone as the mask",
    )


def _read_npy(file: Path) -> npt.NDArray[Any]:
    try:
        return load_array(file)
    except FileReadError as error:
        raise _REFUSE(f"{file} cannot be read: {error.reason}", "check whether the file is complete") from error


_REFUSE = Refusal(DatasetFileError, "the label map", _EXPECTED)
