"""Folders for what is expensive to make: in the cache, or, where nothing can be kept there, until this process ends."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

from mmms_deploy.errors import FileReadError, OutputWriteError
from mmms_deploy.files.cache import cache_folder
from mmms_deploy.files.leftovers import sweep_once
from mmms_deploy.files.output import writing
from mmms_deploy.files.reading import open_regular

_LOG = logging.getLogger(__name__)

_right: dict[tuple[Path, str], tuple[int, int, int]] = {}
"""Files whose hashes were compared in this process, with the hash: their inode, size and time."""
_temporary: dict[str, tuple[int, Path]] = {}
"""Folders that were made in place of the cache, by name: the process that removes each, and its path."""


def kept_folder(*parts: str) -> tuple[Path, bool]:
    """Return a folder that this user can write to; it is made where it is not there.

    Args:
        *parts: Names from the cache folder on.

    Returns:
        The folder, and whether it stays: one in place of a cache that is off or cannot be written is removed when this
        process ends.

    Raises:
        OutputWriteError: There is no room for temporary files either.
    """
    cache = cache_folder()
    if cache is not None:
        folder = cache.joinpath(*parts)
        try:
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                with tempfile.TemporaryFile(prefix=".", dir=folder):
                    pass
        except OutputWriteError as error:
            _LOG.info("%s; a temporary folder takes its place", error.given)
        else:
            sweep_once(folder)
            return folder, True
    return temporary_folder("-".join(parts)), False


def temporary_folder(name: str) -> Path:
    """Return a folder that lives as long as this process; the processes it forks use it, too.

    Args:
        name: What it is for; the same name has the same folder.

    Raises:
        OutputWriteError: There is no room for temporary files.
    """
    held = _temporary.get(name)
    if held is None or not held[1].is_dir():
        with writing(Path(tempfile.gettempdir()) / f"mmms-deploy.{name}"):
            held = os.getpid(), Path(tempfile.mkdtemp(prefix=f"mmms-deploy.{name}."))
        _remove_at_exit(*held)
        _temporary[name] = held
    return held[1]


def has_hash(file: Path, sha256: str) -> bool:
    """Return whether a regular file is there and has this content; one that was looked at is not read again.

    Args:
        file: The file.
        sha256: The SHA-256 of its content, in hexadecimal digits.
    """
    try:
        with open_regular(file) as stream:
            status = os.fstat(stream.fileno())
            seen = status.st_ino, status.st_size, status.st_mtime_ns
            if _right.get((file, sha256)) != seen:
                if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
                    return False
                _right[file, sha256] = seen
            return True
    except (FileReadError, OSError):
        return False


def _remove_at_exit(process: int, folder: Path) -> None:
    def remove() -> None:
        if os.getpid() == process:  # a process that was forked leaves what its parent uses
            with contextlib.suppress(OSError):
                shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    workers = sys.modules.get("multiprocessing.util")
    if workers is not None:  # its processes end without atexit
        workers.Finalize(None, remove, exitpriority=0)
