"""Finding a data set's files, and pairing those that belong to one scene by their names."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from mmms_deploy.errors import FileReadError
from mmms_deploy.evaluation.datasets.kind import Layout
from mmms_deploy.evaluation.errors import DatasetFileError
from mmms_deploy.files import MIB, read_text

T = TypeVar("T")

IMAGES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
NUMBERS = IMAGES | {".npy"}


def stems(folder: Path, suffixes: Collection[str] = IMAGES) -> dict[str, Path]:
    """Return the files in a folder and in those below, by their path without the suffix.

    Args:
        folder: The folder. Links to folders in it are followed; hidden files and folders are skipped.
        suffixes: Lower-case suffixes that count.

    Returns:
        E.g. ``bmx-trees/00003`` -> ``folder/bmx-trees/00003.jpg``, sorted by key; keys as :func:`plain_name` has them.

    Raises:
        DatasetFileError: Two files differ only in their suffix.
    """
    found: dict[str, Path] = {}
    for file in _walk(folder):
        if file.suffix.lower() not in suffixes:
            continue
        key = plain_name(file.relative_to(folder).with_suffix("").as_posix())
        if key in found:
            raise DatasetFileError(
                f"{found[key]} and {file} have the same name",
                expected="one file a name: files are matched by their names without suffix",
                fix="remove one of them",
            )
        found[key] = file
    return dict(sorted(found.items()))


def plain_name(name: str) -> str:
    """Return a name in the one form in which names are compared.

    Accented letters can be written as one character (NFC) or as two (NFD, which macOS stores), and both look the same.
    The bytes of a name that are not UTF-8 become text with a backslash, so that it can be printed and stored.
    """
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)


def file_named(folder: Path, name: str) -> Path | None:
    """Return the file with a name, in whichever form the disk has it; None when there is none.

    Args:
        folder: The folder.
        name: Its path below the folder, as a list or a JSON file writes it.
    """
    return next((folder / form for form in forms_of(name) if (folder / form).is_file()), None)


def forms_of(name: str) -> tuple[str, ...]:
    """Return the forms in which a disk may have a name."""
    return name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)


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
        words = [line.split() for line in read_text(file, 256 * MIB, "utf-8-sig").splitlines()]
    except FileReadError as error:
        raise DatasetFileError(
            f"the list {file} cannot be read: {error.reason}",
            expected="a text file in UTF-8, one name a line",
            fix="check the file",
        ) from error
    return sorted({plain_name(line[0]) for line in words if line})
