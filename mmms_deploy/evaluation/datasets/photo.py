"""The image of a scene, and what belongs to it pixel by pixel: masks, label maps, modalities.

Cameras store a picture as the sensor lay and write its orientation beside it (EXIF). An image is turned upright. Masks
and modalities rarely have an orientation of their own, and tools differ: some draw on the upright image, some on the
pixels as stored. The rule:

1. A file that has an orientation of its own is turned upright by it, and has to fit the upright image.
2. Where the image needs no turn, there is nothing to decide.
3. Where upright and stored sizes differ (a quarter turn of an image that is no square), the size tells: a map of the
   upright size is taken as it is, one of the stored size is turned as the image is.
4. Else the two cannot be told apart, and a map that would change by the turn is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.errors import ImageError, MMMSDeployError, ModalityError
from mmms_deploy.evaluation.errors import DatasetFileError
from mmms_deploy.imaging.io import load_oriented_modality, load_photo
from mmms_deploy.imaging.picture import turned


@dataclass(frozen=True, eq=False)
class Photo:
    """The image of a scene.

    Attributes:
        pixels: (H, W, 3) uint8, RGB, upright.
        orientation: The EXIF orientation that was applied, 1 to 8.
        file: Where it is.
        scene: The scene's name.
    """

    pixels: npt.NDArray[np.uint8]
    orientation: int
    file: Path
    scene: str

    @property
    def size(self) -> tuple[int, int]:
        """(H, W), upright."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def stored_size(self) -> tuple[int, int]:
        """(H, W) of the pixels as stored."""
        return self.size[::-1] if self.orientation >= 5 else self.size


def read_photo(file: Path, scene: str) -> Photo:
    """Read the image of a scene.

    Raises:
        DatasetFileError: It cannot be read.
    """
    try:
        pixels, orientation = load_photo(file)
    except ImageError as error:
        raise _named(file, error) from error
    return Photo(pixels, orientation, file, scene)


def read_numbers(file: Path, modality: str) -> tuple[npt.NDArray[Any], bool]:
    """Read a modality's numbers as they are stored.

    Returns:
        (H, W, C) integers or floats; and whether the file has an EXIF orientation, which was applied.

    Raises:
        DatasetFileError: It cannot be read.
    """
    try:
        return load_oriented_modality(file, modality)
    except ModalityError as error:
        raise _named(file, error) from error


def read_modality(file: Path, modality: str, photo: Photo) -> npt.NDArray[Any]:
    """Read a modality's numbers as they are stored.

    Args:
        file: An image file or ``.npy``.
        modality: Its name.
        photo: The image of its scene.

    Returns:
        (H, W, C) integers or floats.

    Raises:
        DatasetFileError: It cannot be read, or does not fit the image.
    """
    array, oriented = read_numbers(file, modality)
    return fitted(array, modality, file, photo, oriented=oriented)


def fitted(array: npt.NDArray[Any], what: str, file: Path, photo: Photo, *, oriented: bool = False) -> npt.NDArray[Any]:
    """Return a map of an image so that its pixels are those of the upright image.

    Args:
        array: (H, W) or (H, W, C).
        what: What it is, for messages.
        file: Where it comes from, for messages.
        photo: The image.
        oriented: Whether the file has an orientation of its own, which was applied.

    Raises:
        DatasetFileError: It has another size, or may be meant upright or as stored.
    """
    shape = array.shape[:2]
    if photo.orientation == 1 or oriented or (shape == photo.size != photo.stored_size):
        check_size(what, file, array, photo)
        return array
    if shape == photo.stored_size != photo.size:
        return np.ascontiguousarray(turned(array, photo.orientation))
    check_size(what, file, array, photo)
    if np.array_equal(array, turned(array, photo.orientation), equal_nan=array.dtype.kind == "f"):
        return array
    raise DatasetFileError(
        f"the image {photo.file} has EXIF orientation {photo.orientation}, and the {what} {file} has none: it may be"
        " meant for the upright image or for the pixels as stored, and both have the same size",
        expected="an orientation in both files, or in neither",
        fix=f"turn the image's pixels upright (magick mogrify -auto-orient {photo.file.name}), remove its orientation"
        f" (exiftool -Orientation= {photo.file.name}) if the {what} was drawn on the pixels as stored, or write an"
        f" orientation into the {what}, 1 for upright",
    )


def check_size(what: str, file: Path, array: npt.NDArray[Any], photo: Photo) -> None:
    """Check that something has as many rows and columns as its image.

    Raises:
        DatasetFileError: It has other numbers.
    """
    if array.shape[:2] != photo.size:
        raise DatasetFileError(
            f"the {what} {file} has {array.shape[0]} rows and {array.shape[1]} columns",
            expected=f"{photo.size[0]} rows and {photo.size[1]} columns, like the image of scene {photo.scene!r}",
            fix="nothing is resized here: bring it to the image's size, or check whether the image was rotated (EXIF)",
        )


def _named(file: Path, error: MMMSDeployError) -> DatasetFileError:
    """Return an error that names the file, which is one of many."""
    given = error.given if str(file) in error.given else f"{file}: {error.given}"
    return DatasetFileError(given, expected=error.expected, fix=error.fix, command_fix=error.command_fix)
