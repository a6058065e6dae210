"""Bundles that ship packed with the package: made once in the cache, and compared with their hashes at every use.

One archive holds what the packed bundles have in no other file, and another one a checkpoint: ``NAME/FILE``, a file of
a bundle or the bytes of it that are no tensor of a checkpoint or of a backbone, and ``NAME/pieces.json``, how such
files are put together (:mod:`mmms_deploy.bundle.pieces`). The checkpoints ship, too; a backbone's weights come from
where :func:`mmms_deploy.weights.find_weights` finds them, the first time only.

``NAME.sha256``, in the form of ``sha256sum``, has the names of the bundle's files and their hashes. Nothing else is
made. Where the cache is off or cannot be written, a temporary folder takes its place until this process ends.

Several processes may do this at once: a file appears whole or not at all, and one that is right is not touched again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import tarfile
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from mmms_deploy.bundle.names import FILE_NAME
from mmms_deploy.errors import (
    BundleCorruptError,
    BundleError,
    CheckpointCorruptError,
    FileReadError,
    OutputExistsError,
    OutputWriteError,
)
from mmms_deploy.files import MIB, decode_json, write_file, writing
from mmms_deploy.files.cache import cache_folder
from mmms_deploy.files.kept import has_hash, temporary_folder
from mmms_deploy.files.leftovers import sweep_once
from mmms_deploy.progress import OnProgress

if TYPE_CHECKING:
    from mmms_deploy.bundle.pieces import Recipe, Source, Tensors

NAMES = ("demo", "demo-small")
"""Names of the bundles that ship with the package."""

CHECKPOINTS = ("demo-thermal",)
"""Names of checkpoints that ship with the package packed, and without a bundle."""

SMALLER = {"demo": "demo-small"}
"""What takes the place of a bundle whose backbone's weights no source has."""

SUMS, PIECES = "{}.sha256", "pieces.json"
"""Names of the hashes of a bundle or checkpoint, and, in the archive, of how its files are made."""

_LOG = logging.getLogger(__name__)
_LARGEST = 64 * MIB
"""The most bytes of one file in an archive."""
_LINE = re.compile(r"(?P<sha256>[0-9a-f]{64})  (?P<name>\S+)")


def archive_name(name: str) -> str:
    """Return the name of the archive of a bundle, which all bundles share, or of a checkpoint."""
    return f"{name}.tar.xz" if name in CHECKPOINTS else "bundles.tar.xz"


def packed_checkpoint(name: str) -> Path:
    """Return the file of a checkpoint that ships packed; see :func:`packed_bundle`.

    Args:
        name: One of ``CHECKPOINTS``.
    """
    return packed_bundle(name) / f"{name}.safetensors"


def packed_bundle(name: str, on_progress: OnProgress | None = None) -> Path:
    """Return the folder of a bundle that ships with the package, and make it where that was not done yet.

    Args:
        name: One of ``NAMES`` or ``CHECKPOINTS``.
        on_progress: Receives how far the download of a backbone's weights is.

    Raises:
        BundleCorruptError: The packed bundle is damaged.
        WeightsError: No source has the weights of its backbone.
        BundleError: This Python cannot unpack it.
        OutputWriteError: Neither the cache nor the folder for temporary files can be written.
    """
    source = resources.files("mmms_deploy.demo")
    sums = _sums(source, name)
    cache = cache_folder()
    if cache is not None:
        folder = cache / "bundles" / f"{name}-{_key(sums)}"
        try:
            _complete(folder, source, name, sums, on_progress)
            return folder
        except OutputWriteError as error:
            _LOG.info("%s; the bundle %r is unpacked into a temporary folder", error.given, name)
    folder = temporary_folder(name)
    _complete(folder, source, name, sums, on_progress)
    return folder


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


def _complete(
    folder: Path, source: Traversable, name: str, sums: dict[str, str], on_progress: OnProgress | None
) -> None:
    """Write the files of a bundle that a folder lacks, or has with other content."""
    wrong = {file for file, sha256 in sums.items() if not has_hash(folder / file, sha256)}
    if not wrong:
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    sweep_once(folder)
    contents = _Contents(source, name, sums, on_progress)
    for file, held in contents.held():
        # Looked at once more: another process may have written it, and may use it now. What was not there when it was
        # looked for is not replaced.
        there = os.path.lexists(folder / file)
        if file in wrong and not has_hash(folder / file, sums[file]):
            with contextlib.suppress(OutputExistsError):
                write_file(folder / file, contents.whole(file, held), overwrite=there, mode=0o600)
            if not has_hash(folder / file, sums[file]):
                raise OutputWriteError(f"{folder / file} cannot be read back", expected="what was written to it")


class _Contents:
    """The files of a packed bundle."""

    def __init__(self, package: Traversable, name: str, sums: dict[str, str], on_progress: OnProgress | None) -> None:
        self._package, self._name, self._sums, self._on_progress = package, name, sums, on_progress
        self._recipe: Recipe | None = None
        self._tensors: dict[str, Tensors] = {}

    def held(self) -> Iterator[tuple[str, bytes]]:
        """Yield the names of the bundle's files, and what the archive holds of each."""
        left = set(self._sums)
        for place, content in _members(self._package, self._name):
            bundle, _, file = place.partition("/")
            if bundle in NAMES and bundle != self._name:
                continue
            if bundle == self._name and file == PIECES and left == set(self._sums):
                self._recipe = self._read_recipe(content)
            elif bundle == self._name and file in left:
                left.remove(file)
                yield file, content
            else:
                raise _damaged(self._name, f"{place!r} in it is not listed, or there twice")
        if left:
            raise _damaged(self._name, f"it lacks {', '.join(sorted(left))}")

    def whole(self, file: str, held: bytes) -> Iterator[bytes | memoryview]:
        """Yield a file, part by part; raises at its end when it has not the hash that is listed."""
        from mmms_deploy.bundle.pieces import assemble  # it loads NumPy, which a command line needs not

        digest = hashlib.sha256()
        pieces = None if self._recipe is None else self._recipe.files.get(file)
        try:
            for part in [held] if pieces is None else assemble(pieces, held, self._source):
                digest.update(part)
                yield part
        except (CheckpointCorruptError, ValueError) as error:
            raise _damaged(self._name, f"{file} cannot be put together: {error}") from error
        if digest.hexdigest() != self._sums[file]:
            raise _damaged(self._name, f"{file} in it is not the file that is listed")

    def _read_recipe(self, content: bytes) -> Recipe:
        from mmms_deploy.bundle.pieces import Recipe

        try:
            return msgspec.convert(decode_json(content, PIECES), Recipe)
        except (FileReadError, msgspec.ValidationError) as error:
            raise _damaged(self._name, f"{PIECES} cannot be read: {error}") from error

    def _source(self, name: str) -> Tensors:
        if name not in self._tensors:
            if self._recipe is None or name not in self._recipe.sources:
                raise ValueError(f"there is no source {name!r}")
            self._tensors[name] = self._read(self._recipe.sources[name])
        return self._tensors[name]

    def _read(self, source: Source) -> Tensors:
        from mmms_deploy.weights.safetensors_file import read_safetensors

        if source.backbone:
            from mmms_deploy.weights.find import find_weights

            return read_safetensors(find_weights(source.backbone, on_progress=self._on_progress))
        if not FILE_NAME.fullmatch(source.file):
            raise ValueError(f"{source.file!r} is no name of a file")
        with resources.as_file(self._package / source.file) as path:
            return read_safetensors(path)


def _members(source: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    """Yield the files in the archive by their places in it; ``name`` is for messages."""
    try:
        import lzma
    except ImportError as error:
        raise BundleError(
            f"this Python cannot unpack the bundle {name!r}: it was built without lzma ({error})",
            expected="a Python with the module lzma",
            fix="use another Python, or build this one where liblzma's headers are installed (liblzma-dev, xz-devel);"
            f" or name the folder of a bundle: mmms-export --ckpt {name} writes bundles/{name}",
        ) from error
    file = source / archive_name(name)
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
