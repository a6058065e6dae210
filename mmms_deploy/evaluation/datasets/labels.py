"""Reading masks and label maps as the numbers that are stored, never as the colours that a palette gives them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from mmms_deploy.evaluation.datasets.listed import Labels
from mmms_deploy.evaluation.errors import DatasetFileError

JPEG_THRESHOLD = 127
"""JPEG smears a mask's 0 and 255 over all values; values above the middle were 255."""


class Channel(StrEnum):
    """Which channel counts in a mask that is saved in colour."""

    FIRST = "first"
    """The red channel, where a simulator writes the class."""
    GREATEST = "greatest"
    """The greatest of all channels, for masks in which any colour means the object."""


_EXPECTED = "a mask or label map: one integer a pixel (PNG, BMP, TIFF, GIF, JPEG or .npy)"


def read_labels(file: Path, channel: Channel | None = None) -> Labels:
    """Read a label map.

    Palette images give their indices. Grey images saved in colour give one of their equal channels; alpha is dropped.
    JPEG, which keeps no labels, gives 255 above :data:`JPEG_THRESHOLD` and 0 elsewhere.

    Args:
        file: Path.
        channel: Which channel counts when channels differ; None to refuse such an image.

    Returns:
        (H, W) unsigned or signed integers as stored.

    Raises:
        DatasetFileError: The file cannot be read, or is no label map.
    """
    array, jpeg = (_read_npy(file), False) if file.suffix.lower() == ".npy" else _read_image(file)
    if array.ndim == 3 and array.shape[2] in (2, 4):
        array = array[:, :, :-1]
    if array.ndim == 3 and jpeg:
        array = array.mean(axis=2).astype(np.uint8)
    if array.ndim == 3 and channel is not None:
        array = array[:, :, 0] if channel is Channel.FIRST else array.max(axis=2)
    if array.ndim == 3 and (array == array[:, :, :1]).all():
        array = array[:, :, 0]
    if array.ndim != 2 or array.dtype.kind not in "bui" or array.size == 0:
        problem = "has channels that differ" if array.ndim == 3 else f"has shape {array.shape} and dtype {array.dtype}"
        raise DatasetFileError(
            f"the label map {file} {problem}", expected=_EXPECTED, fix="colours are no labels: map them to integers"
        )
    if jpeg:
        return np.where(array > JPEG_THRESHOLD, 255, 0).astype(np.uint8)
    return array.astype(np.uint8) if array.dtype == np.bool_ else array


def _read_npy(file: Path) -> npt.NDArray[Any]:
    try:
        array = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _unreadable(file, error) from error
    return np.asarray(array)


def _read_image(file: Path) -> tuple[npt.NDArray[Any], bool]:
    try:
        with Image.open(file) as image:
            return np.asarray(image), image.format in ("JPEG", "MPO")
    # Decoders of broken files raise all of these.
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, Image.DecompressionBombError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> DatasetFileError:
    reason = "Pillow does not know its format" if isinstance(error, UnidentifiedImageError) else str(error)
    return DatasetFileError(
        f"the label map {file} cannot be read: {reason}", expected=_EXPECTED, fix="check whether the file is complete"
    )
