"""Finding a data set's files, and pairing those that belong to one scene by their names."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from mmms_deploy.errors import ImageError, MMMSDeployError, ModalityError
from mmms_deploy.evaluation.datasets.kind import Layout
from mmms_deploy.evaluation.errors import DatasetFileError
from mmms_deploy.imaging.io import load_modality, load_rgb

T = TypeVar("T")

IMAGES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
NUMBERS = IMAGES | {".npy"}


def stems(folder: Path, suffixes: Collection[str] = IMAGES) -> dict[str, Path]:
    """Return the files in a folder and in those below, by their path without the suffix.

    Args:
        folder: The folder. Links to folders in it are followed; hidden files and folders are skipped.
        suffixes: Lower-case suffixes that count.

    Returns:
        E.g. ``bmx-trees/00003`` -> ``folder/bmx-trees/00003.jpg``, sorted by key.

    Raises:
        DatasetFileError: Two files differ only in their suffix.
    """
    found: dict[str, Path] = {}
    for file in _walk(folder):
        if file.suffix.lower() not in suffixes:
            continue
        key = file.relative_to(folder).with_suffix("").as_posix()
        if key in found:
            raise DatasetFileError(
                f"{found[key]} and {file} have the same name",
                expected="one file a name: files are matched by their names without suffix",
                fix="remove one of them",
            )
        found[key] = file
    return dict(sorted(found.items()))


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and in those below that are not hidden."""
    for place, folders, files in os.walk(folder, followlinks=True):
        here = Path(place)
        above = {here.resolve(), *here.resolve().parents}
        # Links are followed, but not in circles.
        folders[:] = [name for name in folders if not name.startswith(".") and (here / name).resolve() not in above]
        yield from (here / name for name in sorted(files) if not name.startswith("."))


def nonempty(layout: Layout, root: Path, items: Mapping[str, T], what: str) -> Mapping[str, T]:
    """Return the items, or raise the layout's error when there are none.

    Raises:
        DatasetLayoutError: There is none.
    """
    if not items:
        raise layout.error(root, f"there are no {what}")
    return items


def partner(names: Collection[str], find: Callable[[str], T | None], what: str, where: Path) -> dict[str, T]:
    """Find what belongs to every name.

    Args:
        names: Names of scenes.
        find: Returns what belongs to a name; None when it is not there.
        what: Its name in messages, e.g. ``mask``.
        where: The folder that was searched.

    Raises:
        DatasetFileError: Something is missing; the first is named.
    """
    found = {name: find(name) for name in names}
    missing = [name for name, value in found.items() if value is None]
    if missing:
        others = f" (nor for {len(missing) - 1} others of {len(found)})" if len(missing) > 1 else ""
        raise DatasetFileError(
            f"there is no {what} for image {missing[0]!r} in {where}{others}",
            expected=f"a {what} for every image, of the same name without suffix",
            fix="complete the data set, or remove what is incomplete from its images or its list",
        )
    return {name: value for name, value in found.items() if value is not None}


def read_list(file: Path) -> list[str]:
    """Return the names in a list file: the first word of every line that has one, without repeats, sorted."""
    try:
        words = [line.split() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetFileError(
            f"the list {file} cannot be read: {error}", expected="a text file, one name a line", fix="check the file"
        ) from error
    return sorted({line[0] for line in words if line})


def check_size(what: str, file: Path, array: npt.NDArray[Any], image: npt.NDArray[np.uint8], name: str) -> None:
    """Check that something has as many rows and columns as its image.

    Raises:
        DatasetFileError: It has other numbers.
    """
    if array.shape[:2] != image.shape[:2]:
        raise DatasetFileError(
            f"the {what} {file} has {array.shape[0]} rows and {array.shape[1]} columns",
            expected=f"{image.shape[0]} rows and {image.shape[1]} columns, like the image of scene {name!r}",
            fix="nothing is resized here: bring it to the image's size, or check whether the image was rotated (EXIF)",
        )


def read_image(file: Path) -> npt.NDArray[np.uint8]:
    """Read an image: (H, W, 3) uint8, RGB.

    Raises:
        DatasetFileError: It cannot be read.
    """
    try:
        return load_rgb(file)
    except ImageError as error:
        raise _named(file, error) from error


def read_numbers(file: Path, modality: str) -> npt.NDArray[Any]:
    """Read a modality's numbers as they are stored: (H, W, C) integers or floats.

    Raises:
        DatasetFileError: It cannot be read.
    """
    try:
        return load_modality(file, modality)
    except ModalityError as error:
        raise _named(file, error) from error


def read_modality(file: Path, modality: str, image: npt.NDArray[np.uint8], name: str) -> npt.NDArray[Any]:
    """Read a modality's numbers as they are stored.

    Args:
        file: An image file or ``.npy``.
        modality: Its name.
        image: (H, W, 3), the image of its scene.
        name: The scene's name, for messages.

    Returns:
        (H, W, C) integers or floats.

    Raises:
        DatasetFileError: It cannot be read, or has another size than the image.
    """
    array = read_numbers(file, modality)
    check_size(modality, file, array, image, name)
    return array


def _named(file: Path, error: MMMSDeployError) -> DatasetFileError:
    """Return an error that names the file, which is one of many."""
    given = error.given if str(file) in error.given else f"{file}: {error.given}"
    return DatasetFileError(given, expected=error.expected, fix=error.fix, command_fix=error.command_fix)
