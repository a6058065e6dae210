"""Bundles on the hub: a folder of a repository that holds a manifest, and of it only what the manifest lists.

The manifest comes first and is checked. Then come its files, whose sizes are compared with what the hub announces
before anything is fetched; their hashes are compared when the bundle is opened, as those of any bundle.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

from mmms_deploy.bundle.manifest import Manifest
from mmms_deploy.bundle.manifest_file import MOST_MANIFEST, read_manifest
from mmms_deploy.bundle.names import MANIFEST_NAME
from mmms_deploy.errors import BundleCorruptError, BundleNotFoundError
from mmms_deploy.hub import HubReference, Snapshot, open_snapshot
from mmms_deploy.hub.weights import checkpoints_in
from mmms_deploy.progress import OnProgress

_LISTED = 8


def fetch_bundle(reference: HubReference, on_progress: OnProgress | None = None) -> Path:
    """Return the folder of a bundle on the hub, in the cache; what the cache does not have is fetched.

    Args:
        reference: The repository, or a folder in it, or the manifest itself. The folder may be left out where the
            repository holds one bundle.
        on_progress: Receives how far each download is; None leaves that to the bars of ``huggingface_hub``.

    Warns:
        MMMSDeployWarning: The hub does not answer, and the copy in its cache is taken.

    Raises:
        BundleNotFoundError: The repository holds no bundle there, or several.
        BundleCorruptError: The manifest is damaged, or the repository does not hold what it lists.
        BundleVersionError: The manifest was written in another schema.
        HubError: There is no such repository or revision, or the hub does not answer and the cache has no copy.
        OutputWriteError: The cache cannot be written.
    """
    snapshot = open_snapshot(reference)
    place = _place(reference, snapshot)
    path = _join(place, MANIFEST_NAME)
    if snapshot.cached(path) is None and snapshot.sizes.get(path, 0) > MOST_MANIFEST:
        raise BundleCorruptError(
            f"{path} of {snapshot.reference} has {snapshot.sizes[path]} bytes",
            expected=f"a manifest of at most {MOST_MANIFEST} bytes",
            fix="name a bundle that mmms-export wrote",
        )
    folder = snapshot.file(path, on_progress).parent
    manifest = read_manifest(folder)
    missing = [name for name in manifest.files if snapshot.cached(_join(place, name)) is None]
    if missing:
        _check_sizes(snapshot, place, manifest, missing)
    for name in missing:
        snapshot.file(_join(place, name), on_progress)
    return folder


def _place(reference: HubReference, snapshot: Snapshot) -> str:
    """Return the folder in the repository that holds the bundle."""
    place = reference.path
    if PurePosixPath(place).name == MANIFEST_NAME:
        place = _parent(place)
    path = _join(place, MANIFEST_NAME)
    if snapshot.cached(path) is not None or path in snapshot.sizes:
        return place
    start = f"{place}/" if place else ""
    found = sorted(
        _parent(name) for name in snapshot.sizes if name.startswith(start) and PurePosixPath(name).name == MANIFEST_NAME
    )
    if len(found) == 1:
        return found[0]
    here = replace(reference, path=place)
    if found:
        named = [str(replace(reference, path=folder)) for folder in found]
        more = f" and {len(named) - _LISTED} more" if len(named) > _LISTED else ""
        raise BundleNotFoundError(
            f"{here} holds {len(found)} bundles",
            expected="the name of one of them",
            fix=f"name one: {', '.join(named[:_LISTED])}{more}",
        )
    weights = checkpoints_in(snapshot, place)
    raise BundleNotFoundError(
        f"{here} holds no bundle",
        expected=f"a folder of a repository with a {MANIFEST_NAME} in it",
        fix=f"make a bundle of its checkpoint: mmms-export --ckpt {replace(reference, path=weights[0])}"
        if weights
        else "check the name on the repository's page",
    )


def _check_sizes(snapshot: Snapshot, place: str, manifest: Manifest, names: list[str]) -> None:
    """Refuse what cannot become a whole bundle, before anything large is fetched."""
    for name in names:
        found, entry = snapshot.sizes.get(_join(place, name)), manifest.files[name]
        if found != entry.size and not snapshot.offline:
            raise BundleCorruptError(
                f"{snapshot.reference} has {'no file' if found is None else f'{found} bytes in'} {_join(place, name)}",
                expected=f"the {entry.size} bytes that its manifest lists",
                fix="name another revision, or tell its owner that the bundle is not complete",
            )


def _parent(name: str) -> str:
    """Return the folder of a file in a repository; empty for the repository itself."""
    return name.rpartition("/")[0]


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
