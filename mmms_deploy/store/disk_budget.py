"""The bytes of a folder of features, and which entries go when they are more than its budget.

Several processes write to one folder. Each counts what it writes, and looks through the folder when that may be too
much; one at a time takes entries out, oldest use first. A file's time of change is its last use.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mmms_deploy.errors import OutputWriteError
from mmms_deploy.files import append_to
from mmms_deploy.files.locks import lock
from mmms_deploy.session.features_file import SUFFIX

LOCK = "evicting.lock"
"""Name of the file that the process which takes entries out has locked."""
ROOM = 0.9
"""Share of the budget that is left when entries were taken out, so that this does not happen at every write."""
_FOLDER = re.compile("[0-9a-f]{2}")
_ENTRY = re.compile(rf"[0-9a-f]{{64}}{re.escape(SUFFIX)}")


class Found(NamedTuple):
    """An entry of a folder.

    Attributes:
        used: When it was used last, in nanoseconds.
        size: Its bytes.
        path: Its file.
    """

    used: int
    size: int
    path: Path


def entries(folder: Path) -> Iterator[Found]:
    """Yield the entries of a folder, in no order; what cannot be looked at is left out."""
    for inner in _scanned(folder):
        if _FOLDER.fullmatch(inner.name):
            for one in _scanned(Path(inner.path)):
                if _ENTRY.fullmatch(one.name):
                    with contextlib.suppress(OSError):
                        status = one.stat(follow_symlinks=False)
                        yield Found(status.st_mtime_ns, status.st_size, Path(one.path))


def _scanned(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []


class DiskBudget:
    """Counts the bytes of a folder, and takes entries out.

    Args:
        folder: The folder.
        budget: The most bytes of all entries together; None for no limit.
    """

    def __init__(self, folder: Path, budget: int | None) -> None:
        self._folder = folder
        self.budget = budget
        self.evictions = 0
        self.renew_lock()
        self._bytes: int | None = None

    def renew_lock(self) -> None:
        """Take a new lock, in a forked child."""
        self._lock = threading.Lock()

    def wrote(self, size: int) -> None:
        """Count an entry that was written, and take others out where they are too many together.

        Args:
            size: Its bytes.
        """
        if self.budget is None:
            return
        with self._lock:
            if self._bytes is None:
                self._bytes = sum(found.size for found in entries(self._folder))
            else:
                self._bytes += size
            if self._bytes > self.budget:
                self._bytes = self._evict(self.budget)

    def _evict(self, budget: int) -> int:
        """Take out what was not used for longest, and return how many bytes are left."""
        try:
            with append_to(self._folder / LOCK) as stream:
                with contextlib.suppress(OSError):  # files cannot be locked here
                    try:
                        lock(stream)
                    except BlockingIOError:  # another process does it
                        return budget
                return self._take_out(budget)
        except OutputWriteError:
            return budget

    def _take_out(self, budget: int) -> int:
        found = sorted(entries(self._folder))
        left = sum(one.size for one in found)
        if left <= budget:
            return left
        for one in found:
            if left <= ROOM * budget:
                break
            with contextlib.suppress(OSError):
                if one.path.lstat().st_mtime_ns == one.used:  # nothing used or replaced it meanwhile
                    one.path.unlink()
                    self.evictions += 1
                    left -= one.size
        return left
