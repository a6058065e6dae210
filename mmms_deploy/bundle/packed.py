"""Bundles and checkpoints that ship packed: made once in the cache, and compared with their hashes at every use.

``bundles.tar.xz`` holds what the bundles have in no other file, ``NAME-checkpoint.tar.xz`` a checkpoint. Both have
``NAME/FILE``, a file or the bytes of it that come from nowhere else, and ``NAME/pieces.json``, how such files are put
together (:mod:`mmms_deploy.bundle.pieces`). A bundle takes tensors of a checkpoint from the checkpoint's archive, in
memory, and a backbone's weights from where :func:`mmms_deploy.weights.find_weights` finds them, the first time only.

``NAME.sha256`` and ``NAME-checkpoint.sha256``, in the form of ``sha256sum``, have the names of the files and their
hashes. Nothing else is made. Where the cache is off or cannot be written, a temporary folder takes its place until this
process ends.

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
from dataclasses import dataclass
from enum import StrEnum
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
    CheckpointError,
    CheckpointNotFoundError,
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

CHECKPOINTS = ("demo", "demo-small", "demo-thermal")
"""Names of the checkpoints that ship with the package; one may hold its tensors in the archives of those before it."""

ONLY_CHECKPOINTS = tuple(name for name in CHECKPOINTS if name not in NAMES)
"""Names of the checkpoints that ship without a bundle."""

SMALLER = {"demo": "demo-small"}
"""What takes the place of a bundle whose backbone's weights no source has."""

PIECES = "pieces.json"
"""Name, in an archive, of how files are made."""

_LOG = logging.getLogger(__name__)
_LARGEST = 64 * MIB
"""The most bytes of one file in an archive."""
_LINE = re.compile(r"(?P<sha256>[0-9a-f]{64})  (?P<name>\S+)")


class Kind(StrEnum):
    """What ships packed."""

    BUNDLE = "bundle"
    CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class Packed:
    """What ships packed under a name, which a bundle and a checkpoint may share.

    Attributes:
        kind: What it is.
        name: One of ``NAMES`` or of ``CHECKPOINTS``.
    """

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"

    @property
    def stem(self) -> str:
        """What its own files in the package are named by."""
        return self.name if self.kind is Kind.BUNDLE else f"{self.name}-checkpoint"

    @property
    def archive(self) -> str:
        """Name of its archive; all bundles share one."""
        return "bundles.tar.xz" if self.kind is Kind.BUNDLE else f"{self.stem}.tar.xz"

    @property
    def sums(self) -> str:
        """Name of the list of its files' hashes."""
        return f"{self.stem}.sha256"


def checkpoint_file(name: str) -> str:
    """Return the name of the file that a checkpoint of the package becomes."""
    return f"{name}.safetensors"


def packed_checkpoint(name: str) -> Path:
    """Return the file of a checkpoint that ships with the package, and make it where that was not done yet.

    Args:
        name: One of ``CHECKPOINTS``.

    Raises:
        CheckpointNotFoundError: There is none of this name.
        CheckpointCorruptError: The packed checkpoint is damaged.
        CheckpointError: This Python cannot unpack it.
        OutputWriteError: Neither the cache nor the folder for temporary files can be written.
    """
    if name not in CHECKPOINTS:
        raise CheckpointNotFoundError(
            f"no checkpoint {name!r:.200} ships with mmms-deploy",
            expected=f"one of {', '.join(map(repr, CHECKPOINTS))}",
            fix="name one of them, or the path of a file",
        )
    return _folder(Packed(Kind.CHECKPOINT, name), None) / checkpoint_file(name)


def checkpoint_tensors(name: str, package: Traversable | None = None) -> Tensors:
    """Return the tensors of a checkpoint that ships with the package, by name; no file is written.

    Args:
        name: One of ``CHECKPOINTS``.
        package: The folder of its archive; None for the one of the package.

    Raises:
        CheckpointCorruptError: The packed checkpoint is damaged.
        CheckpointError: This Python cannot unpack it.
    """
    from mmms_deploy.weights.safetensors_file import tensors_of

    one, package = Packed(Kind.CHECKPOINT, name), package or resources.files("mmms_deploy.demo")
    contents = _Contents(package, one, _sums(package, one), None)
    ((file, held),) = contents.held()
    return tensors_of(b"".join(contents.whole(file, held)), file)


def packed_bundle(name: str, on_progress: OnProgress | None = None) -> Path:
    """Return the folder of a bundle that ships with the package, and make it where that was not done yet.

    Args:
        name: One of ``NAMES``.
        on_progress: Receives how far the download of a backbone's weights is.

    Raises:
        BundleCorruptError: The packed bundle is damaged.
        WeightsError: No source has the weights of its backbone.
        BundleError: This Python cannot unpack it.
        OutputWriteError: Neither the cache nor the folder for temporary files can be written.
    """
    return _folder(Packed(Kind.BUNDLE, name), on_progress)


def _folder(one: Packed, on_progress: OnProgress | None) -> Path:
    package = resources.files("mmms_deploy.demo")
    sums = _sums(package, one)
    cache = cache_folder()
    if cache is not None:
        folder = cache / f"{one.kind}s" / f"{one.name}-{_key(sums)}"
        try:
            _complete(folder, package, one, sums, on_progress)
            return folder
        except OutputWriteError as error:
            _LOG.info("%s; the %s is unpacked into a temporary folder", error.given, one)
    folder = temporary_folder(one.stem)
    _complete(folder, package, one, sums, on_progress)
    return folder


def _sums(package: Traversable, one: Packed) -> dict[str, str]:
    """Return the SHA-256 of every file of a bundle or checkpoint, by its name."""
    file = package / one.sums
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeError) as error:
        raise _damaged(one, f"{file} cannot be read: {error}") from error
    found = [_LINE.fullmatch(line) for line in lines]
    sums = {line["name"]: line["sha256"] for line in found if line is not None and FILE_NAME.fullmatch(line["name"])}
    if not sums or len(sums) != len(lines):
        raise _damaged(one, f"{file} is no list of hashes")
    if one.kind is Kind.CHECKPOINT and set(sums) != {checkpoint_file(one.name)}:
        raise _damaged(one, f"{file} lists other files than {checkpoint_file(one.name)}")
    return sums


def _key(sums: dict[str, str]) -> str:
    return hashlib.sha256(repr(sorted(sums.items())).encode()).hexdigest()[:16]


# --- unpacking --------------------------------------------------------------------------------------------------------


def _complete(
    folder: Path, package: Traversable, one: Packed, sums: dict[str, str], on_progress: OnProgress | None
) -> None:
    """Write the files of a bundle or checkpoint that a folder lacks, or has with other content."""
    wrong = {file for file, sha256 in sums.items() if not has_hash(folder / file, sha256)}
    if not wrong:
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    sweep_once(folder)
    contents = _Contents(package, one, sums, on_progress)
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
    """The files of a packed bundle or checkpoint."""

    def __init__(self, package: Traversable, one: Packed, sums: dict[str, str], on_progress: OnProgress | None) -> None:
        self._package, self._one, self._sums, self._on_progress = package, one, sums, on_progress
        self._recipe: Recipe | None = None
        self._tensors: dict[str, Tensors] = {}

    def held(self) -> Iterator[tuple[str, bytes]]:
        """Yield the names of the files, and what the archive holds of each."""
        left = set(self._sums)
        for place, content in _members(self._package, self._one):
            name, _, file = place.partition("/")
            if self._one.kind is Kind.BUNDLE and name in NAMES and name != self._one.name:
                continue
            if name == self._one.name and file == PIECES and left == set(self._sums):
                self._recipe = self._read_recipe(content)
            elif name == self._one.name and file in left:
                left.remove(file)
                yield file, content
            else:
                raise _damaged(self._one, f"{place!r} in it is not listed, or there twice")
        if left:
            raise _damaged(self._one, f"it lacks {', '.join(sorted(left))}")

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
            reason = error.given if isinstance(error, CheckpointCorruptError) else error
            raise _damaged(self._one, f"{file} cannot be put together: {reason}") from error
        if digest.hexdigest() != self._sums[file]:
            raise _damaged(self._one, f"{file} in it is not the file that is listed")

    def _read_recipe(self, content: bytes) -> Recipe:
        from mmms_deploy.bundle.pieces import Recipe

        try:
            return msgspec.convert(decode_json(content, PIECES), Recipe)
        except (FileReadError, msgspec.ValidationError) as error:
            raise _damaged(self._one, f"{PIECES} cannot be read: {error}") from error

    def _source(self, name: str) -> Tensors:
        if name not in self._tensors:
            if self._recipe is None or name not in self._recipe.sources:
                raise ValueError(f"there is no source {name!r}")
            self._tensors[name] = self._read(self._recipe.sources[name])
        return self._tensors[name]

    def _read(self, source: Source) -> Tensors:
        if source.backbone:
            from mmms_deploy.weights.find import find_weights
            from mmms_deploy.weights.safetensors_file import read_safetensors

            return read_safetensors(find_weights(source.backbone, on_progress=self._on_progress))
        for name in self._at_hand():
            if source.file == checkpoint_file(name):
                return checkpoint_tensors(name, self._package)
        raise ValueError(f"{source.file!r:.200} is no checkpoint that it may take tensors from")

    def _at_hand(self) -> tuple[str, ...]:
        """Return the names of the checkpoints whose tensors this one may take, so that none waits for itself."""
        return CHECKPOINTS if self._one.kind is Kind.BUNDLE else CHECKPOINTS[: CHECKPOINTS.index(self._one.name)]


def _members(package: Traversable, one: Packed) -> Iterator[tuple[str, bytes]]:
    """Yield the files in the archive of a bundle or checkpoint by their places in it."""
    try:
        import lzma
    except ImportError as error:
        raise (BundleError if one.kind is Kind.BUNDLE else CheckpointError)(
            f"this Python cannot unpack the {one}: it was built without lzma ({error})",
            expected="a Python with the module lzma",
            fix="use another Python, or build this one where liblzma's headers are installed (liblzma-dev, xz-devel);"
            + _elsewhere(one),
        ) from error
    file = package / one.archive
    try:
        with file.open("rb") as stream, tarfile.open(fileobj=_binary(stream), mode="r|xz") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isreg() and member.size <= _LARGEST else None
                if content is None:
                    raise _damaged(one, f"{member.name!r} in it is no file of a {one.kind}")
                yield member.name, content.read()
    except (OSError, EOFError, tarfile.TarError, lzma.LZMAError) as error:
        raise _damaged(one, f"{file}: {error}") from error


def _elsewhere(one: Packed) -> str:
    """Return what else can be named where this Python unpacks nothing."""
    if one.kind is Kind.CHECKPOINT:
        return " or name the file of another checkpoint"
    return f" or name the folder of a bundle: with another Python, mmms-export --ckpt {one.name} writes it"


def _binary(stream: object) -> BinaryIO:
    return stream  # type: ignore[return-value]  # what Traversable.open gives for "rb"


def _damaged(one: Packed, how: str) -> BundleCorruptError | CheckpointCorruptError:
    return (BundleCorruptError if one.kind is Kind.BUNDLE else CheckpointCorruptError)(
        f"the {one} that ships with mmms-deploy is damaged: {how}",
        expected="the files as they were packed",
        fix="install mmms-deploy again, or, in a clone, git checkout mmms_deploy/demo",
    )
