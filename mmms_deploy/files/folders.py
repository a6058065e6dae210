"""Writes a folder whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmms_deploy.files.output import writing


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
