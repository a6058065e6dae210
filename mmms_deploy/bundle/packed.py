"""Bundles that ship packed with the package: unpacked once into the cache, and compared with their hashes at every use.

Beside ``NAME.tar.xz`` lies ``NAME.sha256``, in the form of ``sha256sum``: the names of the bundle's files and their
hashes. Nothing else is taken from the archive. Where the cache is off or cannot be written, a temporary folder takes
its place until this process ends.

Several processes may unpack at once: a file appears whole or not at all, and one that is right is not touched again.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import logging
import os
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import BinaryIO

from mmms_deploy.bundle.names import FILE_NAME
from mmms_deploy.errors import BundleCorruptError, BundleError, FileReadError, OutputExistsError, OutputWriteError
from mmms_deploy.files import MIB, open_regular, write_file, writing
from mmms_deploy.files.cache import cache_folder
from mmms_deploy.files.leftovers import sweep_once

NAMES = ("demo",)
"""Names of the bundles that ship with the package."""

ARCHIVE, SUMS = "{}.tar.xz", "{}.sha256"
"""Names of the two files of a packed bundle in ``mmms_deploy/demo/``."""

_LOG = logging.getLogger(__name__)
_LARGEST = 64 * MIB
"""The most bytes of one file in an archive."""
_LINE = re.compile(r"(?P<sha256>[0-9a-f]{64})  (?P<name>\S+)")

_right: dict[Path, tuple[int, int, int]] = {}
"""Files whose hashes were compared in this process: their inode, size and time."""
_temporary: dict[str, tuple[int, Path]] = {}
"""Folders that were made in place of the cache, by name of the bundle: the process that removes each, and its path."""


def packed_bundle(name: str) -> Path:
    """Return the folder of a bundle that ships with the package, and unpack it where that was not done yet.

    Args:
        name: One of ``NAMES``.

    Raises:
        BundleCorruptError: The packed bundle is damaged.
        BundleError: This Python cannot unpack it.
        OutputWriteError: Neither the cache nor the folder for temporary files can be written.
    """
    source = resources.files("mmms_deploy.demo")
    sums = _sums(source, name)
    cache = cache_folder()
    if cache is not None:
        folder = cache / "bundles" / f"{name}-{_key(sums)}"
        try:
            _complete(folder, source, name, sums)
            return folder
        except OutputWriteError as error:
            _LOG.info("%s; the bundle %r is unpacked into a temporary folder", error.given, name)
    return _in_temporary_folder(source, name, sums)


def _sums(source: Traversable, name: str) -> dict[str, str]:
    """Return the SHA-256 of every file of a packed bundle, by its name."""
    file = source / SUMS.format(name)
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeError) as error:
        raise _damaged(name, f"{file} cannot be read: {error}") from error
    found = [_LINE.fullmatch(line) for line in lines]
    sums = {line["name"]: line["sha256"] for line in found if line is not None and FILE_NAME.fullmatch(line["name"])}
    if not sums or len(sums) != len(lines):
        raise _damaged(name, f"{file} is no list of hashes")
    return sums


def _key(sums: dict[str, str]) -> str:
    return hashlib.sha256(repr(sorted(sums.items())).encode()).hexdigest()[:16]


# --- unpacking --------------------------------------------------------------------------------------------------------


def _complete(folder: Path, source: Traversable, name: str, sums: dict[str, str]) -> None:
    """Write the files of a bundle that a folder lacks, or has with other content."""
    wrong = {file for file, sha256 in sums.items() if not _is_right(folder / file, sha256)}
    if not wrong:
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    sweep_once(folder)
    for file, content in _contents(source, name, sums):
        # Looked at once more: another process may have written it, and may use it now.
        if file in wrong and not _is_right(folder / file, sums[file]):
            with contextlib.suppress(OutputExistsError):
                write_file(folder / file, content, overwrite=os.path.lexists(folder / file), mode=0o600)
            if not _is_right(folder / file, sums[file]):
                raise OutputWriteError(f"{folder / file} cannot be read back", expected="what was written to it")


def _is_right(file: Path, sha256: str) -> bool:
    try:
        with open_regular(file) as stream:
            status = os.fstat(stream.fileno())
            seen = status.st_ino, status.st_size, status.st_mtime_ns
            if _right.get(file) != seen:
                if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
                    return False
                _right[file] = seen
            return True
    except (FileReadError, OSError):
        return False


def _contents(source: Traversable, name: str, sums: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a packed bundle and what each holds, which has the hash that is listed."""
    left = dict(sums)
    for file, content in _members(source, name):
        if hashlib.sha256(content).hexdigest() != left.pop(file, None):
            raise _damaged(name, f"{file} in it is not the file that is listed")
        yield file, content
    if left:
        raise _damaged(name, f"it lacks {', '.join(sorted(left))}")


def _members(source: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    try:
        import lzma
    except ImportError as error:
        raise BundleError(
            f"this Python cannot unpack the bundle {name!r}: it was built without lzma ({error})",
            expected="a Python with the module lzma",
            fix="use another Python, or build this one where liblzma's headers are installed (liblzma-dev, xz-devel);"
            f" or name the folder of a bundle: mmms-export --ckpt {name} writes bundles/{name}",
        ) from error
    file = source / ARCHIVE.format(name)
    try:
        with file.open("rb") as stream, tarfile.open(fileobj=_binary(stream), mode="r|xz") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isreg() and member.size <= _LARGEST else None
                if content is None:
                    raise _damaged(name, f"{member.name!r} in it is no file of a bundle")
                yield member.name, content.read()
    except (OSError, EOFError, tarfile.TarError, lzma.LZMAError) as error:
        raise _damaged(name, f"{file}: {error}") from error


def _binary(stream: object) -> BinaryIO:
    return stream  # type: ignore[return-value]  # what Traversable.open gives for "rb"


def _damaged(name: str, how: str) -> BundleCorruptError:
    return BundleCorruptError(
        f"the bundle {name!r} that ships with mmms-deploy is damaged: {how}",
        expected="the files as they were packed",
        fix="install mmms-deploy again, or, in a clone, git checkout mmms_deploy/demo",
    )


# --- without a cache --------------------------------------------------------------------------------------------------


def _in_temporary_folder(source: Traversable, name: str, sums: dict[str, str]) -> Path:
    """Return a folder that lives as long as this process; the processes it forks use it, too."""
    held = _temporary.get(name)
    if held is None or not held[1].is_dir():
        held = os.getpid(), _new_folder(name)
        _remove_at_exit(*held)
        _temporary[name] = held
    _complete(held[1], source, name, sums)
    return held[1]


def _new_folder(name: str) -> Path:
    with writing(Path(tempfile.gettempdir()) / f"mmms-deploy.{name}"):
        return Path(tempfile.mkdtemp(prefix=f"mmms-deploy.{name}."))


def _remove_at_exit(process: int, folder: Path) -> None:
    def remove() -> None:
        if os.getpid() == process:  # a process that was forked leaves what its parent uses
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    workers = sys.modules.get("multiprocessing.util")
    if workers is not None:  # its processes end without atexit
        workers.Finalize(None, remove, exitpriority=0)
