"""Writing result pictures: never over something by accident, never half."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mmms_deploy.errors import OutputExistsError, OutputWriteError
from mmms_deploy.files import replacing
from mmms_deploy.files.leftovers import sweep
from mmms_deploy.files.output import check_replaceable

if TYPE_CHECKING:
    from PIL import Image


def check_output(path: Path, *, overwrite: bool) -> None:
    """Fail early, before anything is computed, when a file could not be written; sweep what a killed run left there.

    Args:
        path: Where it will be written.
        overwrite: Whether an existing file may be replaced.

    Raises:
        OutputExistsError: The file exists.
        OutputWriteError: Its folder does not exist or cannot be written to, or it is a folder itself.
    """
    if check_replaceable(path):
        return
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists", expected="a new file", fix="choose another name, or pass --overwrite")
    if not path.parent.is_dir():
        raise OutputWriteError(
            f"the folder {path.parent} does not exist", expected="an existing folder", fix=f"mkdir -p {path.parent}"
        )
    if not os.access(path.parent, os.W_OK):
        raise OutputWriteError(
            f"the folder {path.parent.absolute()} cannot be written to",
            expected="a folder that this user may write to",
            fix="check its permissions, or choose another one",
        )
    sweep(path.parent, path.name)


def check_folder(path: Path) -> None:
    """Fail early when a folder could not be made or written to.

    Args:
        path: The folder; it and folders above it need not exist.

    Raises:
        OutputWriteError: It is a file, or this user may not write to it.
    """
    there = next((folder for folder in (path, *path.absolute().parents) if folder.exists()), path)
    if not there.is_dir():
        raise OutputWriteError(f"{there} is a file", expected="a folder, new or old", fix="choose another folder")
    if not os.access(there, os.W_OK):
        raise OutputWriteError(
            f"the folder {there} cannot be written to",
            expected="a folder that this user may write to",
            fix="check its permissions, or choose another one",
        )


def write_atomically(path: Path, picture: Image.Image, *, overwrite: bool) -> None:
    """Write a picture beside its destination and rename it into place, or leave nothing.

    Args:
        path: The file; its suffix chooses the format.
        picture: What to write.
        overwrite: Whether an existing file may be replaced.

    Raises:
        OutputExistsError: The file exists.
        OutputWriteError: It cannot be written.
    """
    from PIL import Image

    format_name = Image.registered_extensions()[path.suffix.lower()]
    options = {"quality": 92} if format_name in ("JPEG", "WEBP") else {}
    with replacing(path, overwrite=overwrite, sync=True) as stream:
        picture.save(stream, format=format_name, **options)
