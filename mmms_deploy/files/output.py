"""Writes a file whole or not at all, and replaces nothing but regular files.

A file is written under an unpredictable name beside its destination and renamed into place. That name is created, and
never opened when something is there already. So a reader sees the old file or the new one, and a link at the temporary
name is not followed.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mmms_deploy.arguments import flag
from mmms_deploy.errors import OutputExistsError, OutputWriteError
from mmms_deploy.files.flags import flags

PARTIAL = re.compile(r"\..{1,40}\.[0-9a-f]{16}\.partial")
"""The pattern for names of files that are being written; one that stays after a crash is of no use to anybody."""
_CREATE = flags("O_WRONLY", "O_CREAT", "O_EXCL", "O_NOFOLLOW", "O_CLOEXEC", "O_BINARY")
# To a device: neither creates nor cuts off anything.
_THROUGH = flags("O_WRONLY", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC")
_APPEND = flags("O_WRONLY", "O_CREAT", "O_APPEND", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a device",
}


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn the system's errors while writing ``target`` into :class:`OutputWriteError`.

    Args:
        target: The file or folder that is written, for the message.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        # ValueError: only a path that no system takes.
        if isinstance(error, ValueError) and not _odd_name(target):
            raise
        fixes = {
            errno.ENOSPC: "free some space, or write elsewhere",
            errno.EDQUOT: "free some of your quota, or write elsewhere",
        }
        number = error.errno if isinstance(error, OSError) else None
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        if number == errno.ENOENT and not target.parent.exists():
            reason = f"there is no folder {target.parent}"
            fixes[errno.ENOENT] = "make the folder first, or write elsewhere"
        raise OutputWriteError(
            f"{target} cannot be written: {reason}",
            expected="a place with room that this user may write to",
            fix=fixes.get(number or 0, "check the folder and its permissions, or write elsewhere"),
        ) from error


@contextmanager
def replacing(path: Path, *, overwrite: bool = True, sync: bool = False, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Open a stream for the new content of a file; when the block ends without an error, the content is in place.

    To a character device, such as ``/dev/null`` or the terminal behind ``/dev/stdout``, the content is written instead.

    Args:
        path: The file. One that exists is replaced.
        overwrite: Whether an existing file may be replaced.
        sync: Whether the content is on the disk when the block ends.
        mode: Permissions of the new file, less the umask.

    Raises:
        OutputExistsError: It exists, and may not be replaced.
        OutputWriteError: It cannot be written; or what is there is a link, folder, FIFO, socket or block device.
    """
    if check_replaceable(path):
        content = io.BytesIO()
        yield content
        with writing(path), os.fdopen(os.open(path, _THROUGH), "wb", buffering=0) as device:
            _write_all(device, content.getbuffer())
        return
    with partial_beside(path, overwrite=overwrite, sync=sync, mode=mode) as partial, _created(partial) as stream:
        yield stream


def write_file(
    path: Path,
    content: bytes | Iterable[bytes | memoryview],
    *,
    overwrite: bool = True,
    sync: bool = False,
    mode: int = 0o666,
) -> None:
    """Write a file whole, or not at all.

    Args:
        path: The file. One that exists is replaced; see :func:`replacing`.
        content: Its content, or the parts of it.
        overwrite: Whether an existing file may be replaced.
        sync: Whether the content is on the disk when this returns.
        mode: Permissions of the new file, less the umask.

    Raises:
        OutputExistsError: It exists, and may not be replaced.
        OutputWriteError: It cannot be written; or what is there is a link, folder, FIFO, socket or block device.
    """
    with replacing(path, overwrite=overwrite, sync=sync, mode=mode) as stream:
        stream.writelines([content] if isinstance(content, bytes) else content)


@contextmanager
def partial_beside(path: Path, *, overwrite: bool = True, sync: bool = False, mode: int = 0o666) -> Iterator[Path]:
    """Give the path of a new, empty file, for a library that writes by name; it becomes ``path`` when the block ends.

    Args:
        path: The destination.
        overwrite: Whether an existing file may be replaced.
        sync: Whether the content is on the disk when the block ends.
        mode: Permissions of the new file, less the umask.

    Raises:
        OutputExistsError: It exists, and may not be replaced.
        OutputWriteError: It cannot be written; or what is there is no regular file.
    """
    with writing(path):
        if check_replaceable(path):
            raise _not_replaceable(path, "a device")
        partial = _new_partial(path, mode)
        try:
            yield partial
            if sync:
                _sync(partial)
            # Once more, because writing may have taken long.
            if check_replaceable(path):
                raise _not_replaceable(path, "a device")
            _into_place(partial, path, overwrite=overwrite)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)


def append_to(path: Path) -> BinaryIO:
    """Open a regular file to append to it; it is made where it is not there.

    Args:
        path: The file; no link is followed.

    Raises:
        OutputWriteError: It cannot be opened, or is no regular file.
    """
    with writing(path):
        check_replaceable(path)
        handle = os.open(path, _APPEND, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise _not_replaceable(path, "no regular file")
            return os.fdopen(handle, "ab")
        except BaseException:
            os.close(handle)
            raise


def check_replaceable(path: Path) -> bool:
    """Check that what is at a path may be replaced by a file: nothing, or a regular file.

    Args:
        path: The destination.

    Returns:
        Whether it is a character device, to which content is written instead.

    Raises:
        OutputWriteError: It is a link, folder, FIFO, socket or block device, or cannot be looked at.
    """
    with writing(path):
        try:
            found = os.lstat(path).st_mode
            if stat.S_ISLNK(found):
                with contextlib.suppress(FileNotFoundError):
                    if stat.S_ISCHR(path.stat().st_mode):
                        return True
                raise OutputWriteError(
                    f"{path} is a link to {path.readlink()}",
                    expected="a new file or a regular file; a link is neither followed nor replaced",
                    fix="name the file that the link leads to, or remove the link",
                )
        except FileNotFoundError:
            return False
    if stat.S_ISCHR(found):
        return True
    if not stat.S_ISREG(found):
        raise _not_replaceable(path, _KINDS.get(stat.S_IFMT(found), "no regular file"))
    return False


def _not_replaceable(path: Path, kind: str) -> OutputWriteError:
    return OutputWriteError(
        f"{path} is {kind}", expected="a new file, or a regular file to replace", fix="name another file"
    )


def _new_partial(path: Path, mode: int) -> Path:
    while True:
        # Cut, because the whole name must not become longer than a file system allows.
        partial = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.partial")
        with contextlib.suppress(FileExistsError):
            os.close(os.open(partial, _CREATE, mode))
            return partial


def _created(partial: Path) -> BinaryIO:
    return os.fdopen(os.open(partial, (_CREATE & ~os.O_EXCL & ~os.O_CREAT)), "wb")


def _into_place(partial: Path, path: Path, *, overwrite: bool) -> None:
    if flag("overwrite", overwrite, OutputWriteError):
        partial.replace(path)
        return
    try:
        # Unlike a rename, this fails when the name is taken.
        os.link(partial, path)
    except FileExistsError:
        raise OutputExistsError(
            f"{path} exists", expected="a new file", fix="choose another name, or remove it"
        ) from None
    except OSError:
        # A file system without hard links.
        if path.exists():
            raise
        partial.rename(path)


def _sync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _write_all(device: io.RawIOBase, content: memoryview) -> None:
    while content:
        written = device.write(content)
        if not written:
            raise BlockingIOError(errno.EAGAIN, "the device takes no more")
        content = content[written:]


def _odd_name(path: Path) -> bool:
    try:
        return b"\0" in os.fsencode(path)
    except UnicodeError:
        return True
