"""Opens regular files only: never a FIFO that blocks, a device that has no end, or more than a limit in memory."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path
from typing import BinaryIO, TypeAlias

from mmms_deploy.errors import FileReadError
from mmms_deploy.files.flags import flags

PathLike: TypeAlias = "str | os.PathLike[str]"
"""The path of a file or folder."""

MIB, GIB = 1 << 20, 1 << 30
_FLAGS = flags("O_RDONLY", "O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY")
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_REASONS = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "a part of the path is no folder",
    errno.EACCES: "this user may not read it",
    errno.EPERM: "this user may not read it",
    errno.ELOOP: "its links lead in a circle",
    errno.ENAMETOOLONG: "the path is too long",
    errno.ENXIO: "it is a socket or a device that is not there",
    errno.EISDIR: "it is a folder",
}
_MISSING = (errno.ENOENT, errno.ENOTDIR)


def as_path(value: object, what: str = "the path") -> Path:
    """Return a path that a caller gave.

    Args:
        value: What was given.
        what: Its name in messages.

    Raises:
        FileReadError: It is no text and no path, is empty, holds a NUL character, or cannot be a file's name here.
    """
    expected = "a path: a text or a pathlib.Path"
    try:
        if not isinstance(value, str | os.PathLike):
            raise TypeError
        text = os.fspath(value)
        if not isinstance(text, str):
            raise TypeError
    except TypeError:
        given = f"{what} is {_brief(value)}, of type {type(value).__qualname__}"
        raise FileReadError(given, reason="it is no path", expected=expected) from None
    if not text:
        raise FileReadError(f"{what} is empty", reason="the path is empty", expected=expected)
    try:
        encoded = os.fsencode(text)
    except UnicodeError:
        encoded = b"\0"
    if b"\0" in encoded:
        reason = "a file's name cannot hold these characters"
        raise FileReadError(f"{what} is {_brief(text)}: {reason}", reason=reason, expected=expected)
    return Path(text)


def open_regular(path: object) -> io.BufferedReader:
    """Open a regular file for reading, through links, without waiting for anything.

    Args:
        path: The file.

    Returns:
        A buffered stream; close it.

    Raises:
        FileReadError: There is no such file, this user may not read it, or it is a folder, FIFO, socket or device.
    """
    place = as_path(path)
    try:
        # Looked at before it is opened, because opening a device can do something; and after it, because a file may
        # have been put in its place.
        _check_regular(place, place.stat().st_mode)
        handle = os.open(place, _FLAGS)
        try:
            _check_regular(place, os.fstat(handle).st_mode)
            return io.BufferedReader(io.FileIO(handle, "rb"))
        except BaseException:
            os.close(handle)
            raise
    except (OSError, ValueError) as error:
        raise unreadable(place, error) from error


def check_regular(path: object) -> int:
    """Check that a path leads to a regular file that a library will open by its name.

    Args:
        path: The file.

    Returns:
        Its size in bytes.

    Raises:
        FileReadError: As :func:`open_regular`.
    """
    with open_regular(path) as stream:
        return os.fstat(stream.fileno()).st_size


def read_bytes(path: object, limit: int) -> bytes:
    """Read a whole regular file.

    Args:
        path: The file.
        limit: The most bytes it may have; a larger file is refused before it is read.

    Raises:
        FileReadError: As :func:`open_regular`; it is larger than the limit; or reading fails.
    """
    with open_regular(path) as stream:
        return read_stream(stream, as_path(path), limit)


def read_stream(stream: BinaryIO, path: Path, limit: int) -> bytes:
    """Read an open regular file to its end; see :func:`read_bytes`."""
    try:
        size = os.fstat(stream.fileno()).st_size - stream.tell()
        # One byte more shows a file that has no size of its own (/proc), or grew.
        content = b"" if size > limit else stream.read(limit + 1 if size <= 0 else min(size, limit) + 1)
        if size > 0 and len(content) > size:
            content += stream.read(max(limit - len(content), 0) + 1)
    except (OSError, MemoryError) as error:
        raise unreadable(path, error) from error
    if max(size, len(content)) > limit:
        found = f"more than {limit} bytes" if size <= limit else f"{size} bytes"
        raise FileReadError(
            f"{path} has {found}", reason=f"it has {found}", expected=f"at most {limit} bytes in such a file"
        )
    return content


def read_text(path: object, limit: int, encoding: str = "utf-8") -> str:
    """Read a whole regular file as text.

    Args:
        path: The file.
        limit: The most bytes it may have.
        encoding: UTF-8, or ``utf-8-sig`` where a byte order mark may come first.

    Raises:
        FileReadError: As :func:`read_bytes`, or it is no UTF-8.
    """
    content = read_bytes(path, limit)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise FileReadError(
            f"{path} is no text in UTF-8: {error.reason} at byte {error.start}",
            reason=f"it is no text in UTF-8 ({error.reason} at byte {error.start})",
            expected="a text in UTF-8",
        ) from error


def unreadable(path: object, error: BaseException) -> FileReadError:
    """Return the error for what the system, or a library, said about a file.

    Args:
        path: The file.
        error: What was raised.
    """
    if isinstance(error, FileReadError):
        return error
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError):
        reason = "there is not enough memory for it"
    elif isinstance(error, RecursionError):
        reason = "it is nested too deeply"
    elif number in _REASONS:
        reason = _REASONS[number]
    elif isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    else:
        lines = str(error).strip().splitlines()
        reason = lines[0][:300] if lines else type(error).__name__
    return FileReadError(
        f"{path} cannot be read: {reason}",
        reason=reason,
        missing=number in _MISSING,
        expected="a regular file that this user may read",
        fix="check the path and the permissions",
    )


def _check_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        reason = f"it is {_KINDS.get(stat.S_IFMT(mode), 'no regular file')}"
        raise FileReadError(
            f"{path} cannot be read: {reason}", reason=reason, expected="a regular file", fix="check the path"
        )


def _brief(value: object) -> str:
    try:
        text = ascii(value)
    except Exception:  # whatever a foreign object's __repr__ raises
        text = "an object"
    return text if len(text) <= 80 else f"{text[:77]}..."
