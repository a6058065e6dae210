"""Reads ``bundle.json`` and checks that it is an unchanged manifest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from mmms_deploy.bundle.manifest import SCHEMA, Manifest
from mmms_deploy.bundle.mistaken import bundle_instead, named
from mmms_deploy.bundle.names import FILE_NAME, GOLDEN_NAME, MANIFEST_NAME
from mmms_deploy.bundle.recognise import Thing, recognise
from mmms_deploy.errors import BundleCorruptError, BundleNotFoundError, BundleVersionError, FileReadError
from mmms_deploy.files import MIB, read_bytes

UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError, OverflowError)
"""What msgspec raises for bytes that are no manifest: also Python's own, for values nested too deeply or too large."""
MOST_MANIFEST = 16 * MIB
"""The most bytes of a manifest."""


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a bundle.

    Args:
        folder: The bundle's folder.

    Raises:
        BundleNotFoundError: There is none.
        BundleCorruptError: It cannot be read, is no manifest, or was changed after it was written.
        BundleVersionError: It was written in another schema.
    """
    file = folder / MANIFEST_NAME
    fix = "export it again with mmms-export, or name the folder that holds bundle.json"
    try:
        raw = read_bytes(file, MOST_MANIFEST)
    except FileReadError as error:
        if error.missing:
            raise _no_bundle(folder) from None
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


def _no_bundle(folder: Path) -> BundleNotFoundError:
    """Return the error that names what lies in a bundle's place."""
    found = recognise(folder)
    what = f": it is {named(found)}" if found.thing is not Thing.NOTHING else ""
    fix = bundle_instead(found)
    if found.thing is Thing.PICTURE:
        fix = "name the bundle here, and give the picture to set_image"
    return BundleNotFoundError(
        f"no bundle at {folder}{what}",
        expected=f"a folder with a {MANIFEST_NAME} in it",
        fix=fix or "name the folder that mmms-export wrote",
    )


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


def digest_of(manifest: dict[str, object]) -> str:
    """Return the hash of a manifest as it is written, so that a field with a default needs no new schema."""
    return hashlib.sha256(msgspec.json.encode({**manifest, "digest": ""}, order="sorted")).hexdigest()
