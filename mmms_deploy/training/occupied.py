"""One run at a time trains in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmms_deploy.files import writing
from mmms_deploy.files.locks import locked
from mmms_deploy.training.errors import TrainingInUseError

LOCK_FILE = "run.lock"


@contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder. Where files cannot be locked (some network drives), a warning says so.

    Args:
        folder: The folder; made when it is not there.

    Raises:
        TrainingInUseError: Another run trains in it.
        OutputWriteError: It cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    in_use = TrainingInUseError(
        f"another run trains in {folder}",
        expected="one run at a time in a folder",
        fix="wait until it has finished, or choose another folder",
        command_fix="wait until it has finished, or name another folder with --out",
    )
    with locked(folder / LOCK_FILE, in_use, "run one training at a time in it"):
        yield
