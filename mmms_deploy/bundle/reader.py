"""Reads a bundle and checks it against its manifest. Nothing in a bundle is executed when it is read.

Every file is a regular one, or a link to one (caches of downloads are folders of links). Libraries open graphs by their
names, so between the comparison of a hash and the loading a person who may write to the folder could put another file
there. :meth:`Bundle.file` notices every change of a file's size or time since then; whoever can forge those, too, can
change the bundle before it is opened.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TypeAlias

import msgspec

from mmms_deploy.bundle.external_data import check_graph
from mmms_deploy.bundle.manifest import SCHEMA, FileEntry, Manifest, StageGraph
from mmms_deploy.bundle.names import FILE_NAME, GOLDEN_NAME, MANIFEST_NAME
from mmms_deploy.bundle.reference import find_bundle
from mmms_deploy.errors import BundleCorruptError, BundleNotFoundError, BundleVersionError, FileReadError
from mmms_deploy.files import MIB, PathLike, open_regular, read_bytes, unreadable

UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError, OverflowError)
"""What msgspec raises for bytes that are no manifest: also Python's own, for values nested too deeply or too large."""
MOST_MANIFEST = 16 * MIB
"""The most bytes of a manifest."""
_Seen: TypeAlias = tuple[int, int]


class Bundle:
    """A bundle on disk, checked when it is opened.

    Args:
        path: The bundle's folder; or ``demo``, the bundle that ships with the package.
        verify: Whether to compare every file with its recorded hash (about a second per GB).

    Attributes:
        path: The bundle's folder.
        reference: What it was named by, and is named by in a command.
        manifest: What it holds.

    Raises:
        BundleNotFoundError: There is no bundle there.
        BundleCorruptError: A file is missing, is no regular file or differs from the manifest; or a graph takes
            weights from a file that the manifest does not list.
        BundleVersionError: The manifest was written in another schema.
        BundleError, OutputWriteError: ``demo`` cannot be unpacked here.
    """

    def __init__(self, path: PathLike, *, verify: bool = True) -> None:
        self.path = find_bundle(path)
        self.reference = os.fspath(path)
        self.manifest = _read_manifest(self.path)
        self._seen = {
            name: _check_file(self.path, name, entry, hashed=verify) for name, entry in self.manifest.files.items()
        }
        sizes = {name: entry.size for name, entry in self.manifest.files.items()}
        self._external = {
            graph.file: check_graph(self.path / graph.file, sizes)
            for stage in self.manifest.stages
            for graph in stage.graphs.values()
        }

    def file(self, name: str) -> Path:
        """Return the path of a file of the bundle.

        Raises:
            BundleCorruptError: The file was changed after the bundle was opened.
        """
        path = self.path / name
        if name in self.manifest.files and name in self._seen:
            try:
                same = _seen(path.stat()) == self._seen[name]
            except OSError:
                same = False
            if not same:
                raise BundleCorruptError(
                    f"{path} was changed or removed after the bundle was opened",
                    expected="the files whose hashes were compared",
                    fix="open the bundle again",
                )
        return path

    def files_of(self, graph: StageGraph) -> tuple[str, ...]:
        """Return the names of all files of a graph: its own, and those that hold its weights."""
        names = {graph.data} if graph.data else set()
        return (graph.file, *sorted(names | self._external.get(graph.file, frozenset())))

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r})"


def _read_manifest(folder: Path) -> Manifest:
    file = folder / MANIFEST_NAME
    fix = "export it again with mmms-export, or name the folder that holds bundle.json"
    try:
        raw = read_bytes(file, MOST_MANIFEST)
    except FileReadError as error:
        if error.missing:
            raise BundleNotFoundError(
                f"no bundle at {folder}", expected=f"a folder with a {MANIFEST_NAME} in it", fix=fix
            ) from None
        raise BundleCorruptError(
            f"{file} cannot be read: {error.reason}", expected="a readable manifest", fix=fix
        ) from error
    try:
        schema = msgspec.json.decode(raw, type=_SchemaOnly).schema
    except UNREADABLE as error:
        raise BundleCorruptError(f"{file} is no manifest: {error}", expected="JSON with a schema", fix=fix) from error
    if schema != SCHEMA:
        newer = schema > SCHEMA
        raise BundleVersionError(
            f"{folder} has bundle schema {schema}",
            expected=f"schema {SCHEMA}, the one this version of mmms-deploy reads",
            fix="upgrade mmms-deploy" if newer else "export the checkpoint again with this version",
        )
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except UNREADABLE as error:
        raise BundleCorruptError(f"{file}: {error}", expected=f"a manifest of schema {SCHEMA}", fix=fix) from error
    if manifest.digest != digest_of(msgspec.json.decode(raw)):
        raise BundleCorruptError(
            f"{file} was changed after it was written (its digest does not fit)",
            expected="an unchanged manifest",
            fix="export the checkpoint again; a bundle cannot be edited by hand",
        )
    _check_references(folder, manifest)
    return manifest


class _SchemaOnly(msgspec.Struct):
    schema: int


def _check_references(folder: Path, manifest: Manifest) -> None:
    used = {GOLDEN_NAME}
    for stage in manifest.stages:
        for graph in stage.graphs.values():
            used |= {graph.file} | ({graph.data} if graph.data else set())
    odd = sorted(n for n in manifest.files if not FILE_NAME.fullmatch(n)) + sorted(used - set(manifest.files))
    if odd:
        raise BundleCorruptError(
            f"the manifest of {folder} names files it may not name or does not list: {', '.join(odd)}",
            expected="plain file names, each with its size and hash",
            fix="export the checkpoint again",
        )


def _check_file(folder: Path, name: str, entry: FileEntry, *, hashed: bool) -> _Seen:
    file = folder / name
    fix = "copy the bundle again, or export the checkpoint again"
    try:
        with open_regular(file) as stream:
            status = os.fstat(stream.fileno())
            if status.st_size != entry.size:
                raise BundleCorruptError(f"{file} has {status.st_size} bytes", expected=f"{entry.size} bytes", fix=fix)
            if hashed and (found := hashlib.file_digest(stream, "sha256").hexdigest()) != entry.sha256:
                raise BundleCorruptError(f"{file} has SHA-256 {found}", expected=entry.sha256, fix=fix)
            return _seen(status)
    except FileReadError as error:
        raise BundleCorruptError(
            f"{file} cannot be read: {error.reason}", expected="a complete bundle of regular files", fix=fix
        ) from error
    except OSError as error:
        raise BundleCorruptError(f"{file} cannot be read: {error}", expected="a complete bundle", fix=fix) from error


def _seen(status: os.stat_result) -> _Seen:
    return status.st_size, status.st_mtime_ns


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a regular file as a hexadecimal string.

    Raises:
        FileReadError: It cannot be read, or is no regular file.
    """
    with open_regular(file) as stream:
        try:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise unreadable(file, error) from error


def digest_of(manifest: dict[str, object]) -> str:
    """Return the hash of a manifest as it is written, so that a field with a default needs no new schema."""
    return hashlib.sha256(msgspec.json.encode({**manifest, "digest": ""}, order="sorted")).hexdigest()
