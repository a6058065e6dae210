"""Removes what a killed process left behind: temporary files and folders of this package that are a day old.

Nothing else is touched. A leftover has a name as our writers make them, belongs to this user, is no link, was not
changed for a day, so that no process writes it any more, and, if it is a folder, holds nothing but files of a bundle,
or what was fetched to be read once.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from pathlib import Path

OLD_SECONDS = 24 * 3600.0
_CUT = 40
"""Characters of the destination's name that a temporary name begins with."""
_MOST_ENTRIES = 10_000
_FILE = re.compile(r"\.(?P<name>.+)\.(?:[0-9a-f]{16}|[a-z0-9_]{8})\.partial", re.DOTALL)
_FOLDER = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}\.partial", re.DOTALL)
_GRAPHS = re.compile(r"\.(?:whole|rounded)\.[a-z0-9_]{8}")
_FETCHING = re.compile(r"\.fetching\.[a-z0-9_]{8}")
_REPLACED = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}\.old", re.DOTALL)
_OF_A_BUNDLE = re.compile(r"bundle\.json|golden\.npz|[A-Za-z0-9_][A-Za-z0-9_.\-]*\.onnx(?:\.data)?")
_BUNDLE = "bundle"


def sweep(folder: Path, name: str | None = None) -> list[Path]:
    """Remove old leftovers in a folder. What cannot be removed stays; nothing is raised.

    Args:
        folder: The folder; it need not exist.
        name: Name of a destination in it: only what was to become this file or bundle is removed, and the graphs that
            an export writes beside it. None for every destination, in a folder that only this package writes to.

    Returns:
        What was removed.
    """
    removed = []
    before = time.time() - OLD_SECONDS
    try:
        entries = sorted(entry.name for entry in os.scandir(folder) if entry.name.startswith("."))[:_MOST_ENTRIES]
    except OSError:
        return []
    for entry in entries:
        path = folder / entry
        with contextlib.suppress(OSError):
            mode = os.lstat(path).st_mode
            remove = _remove_file if stat.S_ISREG(mode) else _remove_folder if stat.S_ISDIR(mode) else None
            if remove is not None and remove(path, name, before):
                removed.append(path)
    return removed


def _remove_file(path: Path, name: str | None, before: float) -> bool:
    if not _is_of(_FILE.fullmatch(path.name), name) or not _is_old(path, before):
        return False
    path.unlink()
    return True


def _remove_folder(path: Path, name: str | None, before: float) -> bool:
    if _is_of(_FOLDER.fullmatch(path.name), name) or _GRAPHS.fullmatch(path.name):
        return _remove_flat(path, before)
    if name is None and _FETCHING.fullmatch(path.name):
        return _remove_flat(path, before, of_a_bundle=False)
    if name is None or not _is_of(_REPLACED.fullmatch(path.name), name):
        return False
    # The bundle that was replaced; until the new one is in its place, this is the only one.
    new, old = path.with_name(name) / "bundle.json", path / _BUNDLE
    if not new.is_file() or list(path.iterdir()) != [old] or old.is_symlink() or not _is_old(path, before):
        return False
    if not _remove_flat(old, before=float("inf")):
        return False
    path.rmdir()
    return True


def _remove_flat(folder: Path, before: float, *, of_a_bundle: bool = True) -> bool:
    """Remove a folder that holds nothing but old files, of a bundle or of any name; otherwise leave all of it."""
    files = list(folder.iterdir())
    fitting = (
        (_OF_A_BUNDLE.fullmatch(file.name) or not of_a_bundle) and _is_old(file, before) and _is_regular(file)
        for file in files
    )
    if not _is_old(folder, before) or not all(fitting):
        return False
    for file in files:
        file.unlink()
    folder.rmdir()
    return True


def _is_of(match: re.Match[str] | None, name: str | None) -> bool:
    """Whether a temporary name was made for a destination; older versions did not cut it."""
    return match is not None and (name is None or match["name"] in (name, name[:_CUT]))


def _is_old(path: Path, before: float) -> bool:
    """Whether a path belongs to this user and was not changed since a time."""
    found = os.lstat(path)
    own = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
    return own and found.st_mtime < before


def _is_regular(path: Path) -> bool:
    return stat.S_ISREG(os.lstat(path).st_mode)


_swept: set[Path] = set()


def sweep_once(folder: Path) -> None:
    """Sweep a folder that only this package writes to, once in the life of this process."""
    if folder not in _swept:
        _swept.add(folder)
        sweep(folder)
