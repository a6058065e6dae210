"""Locks on open files: the system takes them away when the process ends, however it ends."""

from __future__ import annotations

from typing import BinaryIO

_FAR = (1 << 31) - 2
"""Where the byte lies that is locked on Windows, which lets no other process read it."""


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
