"""The cache of what can be made again: compiled graphs, measurements of this machine, unpacked bundles and checkpoints.

Nothing depends on it: a cache that is off, full, read-only or damaged costs time, never an answer.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from mmms_deploy.errors import OutputWriteError
from mmms_deploy.files.leftovers import sweep_once
from mmms_deploy.files.output import write_file, writing

VARIABLE = "MMMS_DEPLOY_CACHE"
"""Environment variable that names the folder, or is ``off``."""

_LOG = logging.getLogger(__name__)
_NAME = "mmms-deploy"
_TRIED = 1 << 16
"""Bytes that are written to see whether there is room."""


NO_HOME = "this user has no home folder"
_said: set[Path] = set()
"""Folders of which a log says already that they cannot be written."""


def cache_folder() -> Path | None:
    """Return the cache folder of this user, which may not exist yet, or None when caching is off.

    ``MMMS_DEPLOY_CACHE`` names it, or is ``off``. Otherwise it is ``mmms-deploy`` in ``XDG_CACHE_HOME`` or
    ``~/.cache``, in ``~/Library/Caches`` on macOS, in ``%LOCALAPPDATA%`` on Windows. Caching is off, too, where the
    user has no home folder to look for it.
    """
    named = os.environ.get(VARIABLE, "")
    if named.lower() == "off":
        return None
    try:
        if named:
            return Path(named).expanduser().absolute()
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME", ""))
            # The XDG specification: relative paths are invalid and to be ignored.
            base = base if base.is_absolute() else Path.home() / ".cache"
    except (RuntimeError, OSError):  # a user without a home folder, or a current folder that is gone
        return None
    return base / _NAME


def why_off() -> str | None:
    """Return why nothing can be kept, or None when it can; tries to write, and leaves no file.

    Returns:
        ``off (MMMS_DEPLOY_CACHE)``, or what the system says.
    """
    folder = cache_folder()
    if folder is None:
        chosen = os.environ.get(VARIABLE, "").lower() == "off"
        return f"off ({VARIABLE})" if chosen else f"off: {NO_HOME}; set {VARIABLE} to a folder"
    existing = next((place for place in (folder, *folder.parents) if _is_there(place)), folder)
    try:
        with tempfile.TemporaryFile(prefix=f".{_NAME}.", dir=existing) as stream:
            stream.write(b"\0" * _TRIED)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return f"nothing can be kept in {folder}: {error.strerror or error}; set {VARIABLE} to another folder"
    return None


def _is_there(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:
        return False


def cache_key(**parts: object) -> str:
    """Return a file name for what these parts determine."""
    encoded = json.dumps(parts, sort_keys=True, default=str).encode()
    return hashlib.sha256(encoded).hexdigest()[:40]


def store(file: Path, chunks: Iterable[bytes | memoryview]) -> bool:
    """Write a file beside its destination and rename it into place; only this user can read it.

    Args:
        file: The destination, in the cache folder. A reader sees the old file or the new one, never a part.
        chunks: Its contents.

    Returns:
        Whether it was written; the first refusal by the system is logged, once for a cache folder.
    """
    try:
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        sweep_once(file.parent)
        write_file(file, chunks, mode=0o600)
    except OutputWriteError as error:
        folder = file.parent.parent
        level = logging.DEBUG if folder in _said else logging.WARNING
        _said.add(folder)
        _LOG.log(level, "%s; set %s to another folder, or to 'off'", error.given, VARIABLE)
        return False
    return True
