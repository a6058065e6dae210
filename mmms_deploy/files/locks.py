"""Locks on open files: the system takes them away when the process ends, however it ends."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mmms_deploy.errors import MMMSDeployError, MMMSDeployWarning
from mmms_deploy.files.output import append_to

_FAR = (1 << 31) - 2
"""Where the byte lies that is locked on Windows, which lets no other process read it."""


@contextmanager
def locked(file: Path, in_use: MMMSDeployError, advice: str) -> Iterator[None]:
    """Hold a file's lock, for a context manager that others enter; where files cannot be locked, a warning says so.

    Args:
        file: The file; made when it is not there.
        in_use: The error when another holds the lock.
        advice: What the user has to see to without a lock, such as ``run one training at a time in it``.

    Raises:
        MMMSDeployError: ``in_use``.
        OutputWriteError: The file cannot be written.
    """
    with append_to(file) as stream:
        try:
            lock(stream)
        except BlockingIOError:
            raise in_use from None
        except OSError as error:
            warnings.warn(
                f"{file.parent} cannot be locked ({error.strerror or error}): {advice}",
                MMMSDeployWarning,
                stacklevel=5,  # past this and the caller's context manager
            )
        yield


def lock(stream: BinaryIO) -> None:
    """Lock an open file until it is closed, without waiting.

    Args:
        stream: The file.

    Raises:
        BlockingIOError: It is locked.
        OSError: Files cannot be locked here.
    """
    try:
        import fcntl
    except ImportError:
        _lock_on_windows(stream)
        return
    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _lock_on_windows(stream: BinaryIO) -> None:
    import msvcrt

    stream.seek(_FAR)
    try:
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except OSError as error:
        raise BlockingIOError(*error.args) from error
