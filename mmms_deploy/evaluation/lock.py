"""One evaluation at a time writes into a folder of results.

The lock belongs to the process: the system takes it away when the process ends, however it ends. So nothing that a
killed evaluation leaves behind keeps the next one out. The file stays; it says who holds the lock, for the message.
"""

from __future__ import annotations

import os
import platform
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mmms_deploy.errors import FileReadError, MMMSDeployWarning
from mmms_deploy.evaluation.errors import ResultsInUseError
from mmms_deploy.files import append_to, read_text, writing

LOCK_FILE = ".lock"
_held = threading.local()


@contextmanager
def results_lock(folder: Path) -> Iterator[None]:
    """Keep other evaluations, of this process and of others, out of a folder of results.

    A thread may take a lock that it holds again. Where files cannot be locked (some network drives), a warning says so.

    Args:
        folder: The folder; made when it is not there.

    Raises:
        ResultsInUseError: Another evaluation writes into the folder.
        OutputWriteError: The folder cannot be written.
    """
    mine: set[Path] = _held.__dict__.setdefault("folders", set())
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        place = folder.resolve()
    if place in mine:
        yield
        return
    with append_to(folder / LOCK_FILE) as stream:
        try:
            _lock(stream)
        except BlockingIOError:
            raise ResultsInUseError(
                f"another evaluation writes into {folder}{_holder(folder)}",
                expected="one evaluation at a time in a folder of results",
                fix="wait until it has finished, or pass another folder as out",
                command_fix="wait until it has finished, or name another folder with --out",
            ) from None
        except OSError as error:
            warnings.warn(
                f"{folder} cannot be locked ({error.strerror or error}): run one evaluation at a time in it",
                MMMSDeployWarning,
                stacklevel=3,
            )
        else:
            with writing(folder):
                stream.truncate(0)
                stream.write(f"process {os.getpid()} on {platform.node()}\n".encode())
                stream.flush()
        mine.add(place)
        try:
            yield
        finally:
            mine.discard(place)


def _holder(folder: Path) -> str:
    try:
        text = read_text(folder / LOCK_FILE, 1 << 10).strip()
    except FileReadError:  # Windows lets nobody read it
        return ""
    return f" ({text})" if text else ""


def _lock(stream: BinaryIO) -> None:
    """Lock an open file until it is closed, without waiting.

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

    position = stream.tell()
    stream.seek(_FAR)  # what is locked cannot be read either; the message lies before it
    try:
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except OSError as error:
        raise BlockingIOError(*error.args) from error
    finally:
        stream.seek(position)


_FAR = 1 << 16
"""Where the byte lies that is locked on Windows."""
