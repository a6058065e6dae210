"""Standard output and standard error: what is written to them never ends in a traceback."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from mmms_deploy.errors import OutputWriteError


class Output:
    """Standard output as it is at the moment; an error of the system becomes one of ours, but for a closed pipe."""

    def write(self, text: str) -> int:
        """Write text."""
        with named():
            return 0 if sys.stdout is None else sys.stdout.write(text)

    def flush(self) -> None:
        """Write what is buffered."""
        with named():
            if sys.stdout is not None:
                sys.stdout.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stdout, name)


class Messages:
    """Standard error as it is at the moment; what cannot be written to it is lost, and nothing else happens."""

    def write(self, text: str) -> int:
        """Write text."""
        with contextlib.suppress(OSError, ValueError):
            return 0 if sys.stderr is None else sys.stderr.write(text)
        return 0

    def flush(self) -> None:
        """Write what is buffered."""
        with contextlib.suppress(OSError, ValueError):
            if sys.stderr is not None:
                sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


@contextmanager
def named() -> Iterator[None]:
    """Turn an error of the system while standard output is written into one of ours, but for a closed pipe."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        abandon()
        raise OutputWriteError(
            f"standard output cannot be written: {error.strerror or error}",
            expected="a terminal, pipe or file with room",
            fix="write to another place",
        ) from error


def is_closed_pipe(error: BaseException) -> bool:
    """Whether an error says that the reader of a pipe has closed it."""
    return isinstance(error, OSError) and error.errno == errno.EPIPE


def abandon() -> None:
    """Write to standard output no more, or Python would try once more at its end and complain."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        place = os.open(os.devnull, os.O_WRONLY)
        os.dup2(place, sys.stdout.fileno())
        os.close(place)


def prepare() -> None:
    """Make both streams take every character, such as those of file names that are no UTF-8.

    A stream that is closed gets a descriptor that leads nowhere, or the next file that is opened would be taken for it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free
    for stream in (sys.stdout, sys.stderr):
        _take_everything(stream)


def _take_everything(stream: TextIO | None) -> None:
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None and getattr(stream, "errors", None) in ("strict", "surrogateescape"):
        reconfigure(errors="backslashreplace")
