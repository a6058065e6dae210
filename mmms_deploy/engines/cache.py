"""The cache of what can be computed again: compiled graphs, and measurements of this machine.

Nothing depends on it: a cache that is off, full, read-only or damaged costs time, never an answer.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from mmms_deploy.errors import OutputWriteError
from mmms_deploy.files import write_file, writing

VARIABLE = "MMMS_DEPLOY_CACHE"
"""Environment variable that names the folder, or is ``off``."""

_LOG = logging.getLogger(__name__)
_NAME = "mmms-deploy"


def cache_folder() -> Path | None:
    """Return the cache folder of this user, which may not exist yet, or None when caching is off.

    ``MMMS_DEPLOY_CACHE`` names it, or is ``off``. Otherwise it is ``mmms-deploy`` in ``XDG_CACHE_HOME`` or
    ``~/.cache``, in ``~/Library/Caches`` on macOS, in ``%LOCALAPPDATA%`` on Windows.
    """
    named = os.environ.get(VARIABLE, "")
    if named.lower() == "off":
        return None
    if named:
        return Path(named).expanduser().absolute()
    try:
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME", ""))
            # The XDG specification: relative paths are invalid and to be ignored.
            base = base if base.is_absolute() else Path.home() / ".cache"
    except RuntimeError:  # a user without a home
        return None
    return base / _NAME


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
        Whether it was written; a refusal by the system is logged.
    """
    try:
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_file(file, chunks, mode=0o600)
    except OutputWriteError as error:
        _LOG.warning("%s; set %s to another folder, or to 'off'", error.given, VARIABLE)
        return False
    return True
