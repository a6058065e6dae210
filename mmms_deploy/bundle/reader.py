"""Reads a bundle and checks it against its manifest. Nothing in a bundle is executed when it is read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from mmms_deploy.bundle.manifest import SCHEMA, FileEntry, Manifest
from mmms_deploy.bundle.names import FILE_NAME, GOLDEN_NAME, MANIFEST_NAME
from mmms_deploy.errors import BundleCorruptError, BundleNotFoundError, BundleVersionError

# For bytes that are not UTF-8 and for values nested too deeply, msgspec raises Python's own exceptions.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Bundle:
    """A bundle on disk, checked when it is opened.

    Args:
        path: The bundle's folder.
        verify: Whether to compare every file with its recorded hash (about a second per GB).

    Raises:
        BundleNotFoundError: There is no bundle there.
        BundleCorruptError: A file is missing or differs from the manifest.
        BundleVersionError: The manifest was written in another schema.
    """

    def __init__(self, path: str | os.PathLike[str], *, verify: bool = True) -> None:
        self.path = Path(path)
        self.manifest = _read_manifest(self.path)
        for name, entry in self.manifest.files.items():
            _check_file(self.path, name, entry, hashed=verify)

    def file(self, name: str) -> Path:
        """Return the path of a file of the bundle."""
        return self.path / name

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r})"


def _read_manifest(folder: Path) -> Manifest:
    file = folder / MANIFEST_NAME
    fix = "export it again with mmms-export, or name the folder that holds bundle.json"
    try:
        raw = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise BundleNotFoundError(
            f"no bundle at {folder}", expected=f"a folder with a {MANIFEST_NAME} in it", fix=fix
        ) from None
    except OSError as error:
        raise BundleCorruptError(f"{file} cannot be read: {error}", expected="a readable manifest", fix=fix) from error
    try:
        schema = msgspec.json.decode(raw, type=_SchemaOnly).schema
    except _UNREADABLE as error:
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
    except _UNREADABLE as error:
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


def _check_file(folder: Path, name: str, entry: FileEntry, *, hashed: bool) -> None:
    file = folder / name
    fix = "copy the bundle again, or export the checkpoint again"
    try:
        size = file.stat().st_size
        if size != entry.size:
            raise BundleCorruptError(f"{file} has {size} bytes", expected=f"{entry.size} bytes", fix=fix)
        if hashed and (found := sha256_of(file)) != entry.sha256:
            raise BundleCorruptError(f"{file} has SHA-256 {found}", expected=entry.sha256, fix=fix)
    except OSError as error:
        raise BundleCorruptError(f"{file} cannot be read: {error}", expected="a complete bundle", fix=fix) from error


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file as a hexadecimal string."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of(manifest: dict[str, object]) -> str:
    """Return the hash of a manifest as it is written, so that a field with a default needs no new schema."""
    return hashlib.sha256(msgspec.json.encode({**manifest, "digest": ""}, order="sorted")).hexdigest()
