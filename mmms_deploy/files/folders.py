"""Writes a folder whole or not at all, and in place of nothing but what was written so before."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmms_deploy.errors import OutputExistsError
from mmms_deploy.files.output import writing


def check_replaceable(
    folder: Path, kind: str, option: str, other: Callable[[Path], str | None], *, overwrite: bool
) -> None:
    """Check that a folder is not there, is empty, or is of a kind that may be replaced.

    Args:
        folder: The folder.
        kind: What may be replaced, with its article, e.g. ``a static export``.
        option: The option of the command line that names the folder, e.g. ``--out``.
        other: Returns what a folder that is not empty is in place of that kind, as in ``folder exists and ...``; None
            where it is of that kind.
        overwrite: Whether one of that kind may be replaced.

    Raises:
        OutputExistsError: It is something else, or may not be replaced.
        OutputWriteError: It cannot be looked at.
    """
    fixes = {"fix": "pass another out=...", "command_fix": f"name another folder with {option}"}
    with writing(folder):
        if not os.path.lexists(folder):
            return
        if folder.is_symlink() or not folder.is_dir():
            raise OutputExistsError(f"{folder} exists and is no folder", expected="a new or an empty folder", **fixes)
        if not any(folder.iterdir()):
            return
        problem = other(folder)
    if problem is not None:
        raise OutputExistsError(
            f"{folder} exists and {problem}",
            expected=f"a new or an empty folder, or {kind} to replace",
            **fixes,
        )
    if not overwrite:
        raise OutputExistsError(
            f"{folder} exists",
            expected="a new or an empty folder",
            fix="pass another out=..., or overwrite=True",
            command_fix=f"name another folder with {option}, or pass --overwrite",
        )


@contextmanager
def whole_folder(target: Path, check: Callable[[], None]) -> Iterator[Path]:
    """Give a new folder beside the target, which takes its place when the block ends without an error.

    Args:
        target: The folder. One that is there is replaced.
        check: Raises where what is at the target may not be replaced. It is called once more at the end, because
            writing may take long.

    Raises:
        OutputWriteError: It cannot be written.
    """
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        # Cut, because the whole name must not become longer than a file system allows.
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name[:40]}.", suffix=".partial", dir=target.parent))
        try:
            new, old = beside / "new", beside / "old"
            new.mkdir()
            yield new
            check()
            try:
                if target.exists():
                    target.rename(old)
                new.rename(target)
            finally:
                # Looked at and not remembered, because an interrupt may come between any two lines.
                if old.exists() and not os.path.lexists(target):
                    old.rename(target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
