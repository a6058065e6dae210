"""Which file of a repository is the checkpoint."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path, PurePosixPath

from mmms_deploy.errors import HubNotFoundError
from mmms_deploy.hub.reference import HubReference, is_reference, parse_reference
from mmms_deploy.hub.snapshot import Snapshot, listed, open_snapshot
from mmms_deploy.progress import OnProgress

_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
"""Suffixes of files with weights; the first is taken where others lie beside it."""


def find_checkpoint(reference: HubReference | str, on_progress: OnProgress | None = None) -> Path:
    """Return the file of a checkpoint on the hub; it is fetched where the cache does not have it.

    Args:
        reference: The file, as ``hf:owner/name/weights.safetensors``; or the repository, or a folder in it, where it
            holds one file of weights, or one ``.safetensors`` file beside others.
        on_progress: Receives how far the download is; None leaves that to the bars of ``huggingface_hub``.

    Returns:
        The file in the cache of the hub.

    Raises:
        HubError: There is no such repository, revision or file, or several could be meant; or it cannot be fetched.
    """
    wanted = reference if isinstance(reference, HubReference) else parse_reference(reference)
    snapshot = open_snapshot(wanted)
    if wanted.path and (snapshot.cached(wanted.path) is not None or wanted.path in snapshot.sizes):
        return snapshot.file(wanted.path, on_progress)
    return snapshot.file(_the_one(wanted, snapshot), on_progress)


def name_of(checkpoint: str | os.PathLike[str]) -> str:
    """Return a name for what is made of a checkpoint: that of its file, or that of the repository that holds it.

    Args:
        checkpoint: A file, or a reference to the hub.

    Raises:
        HubReferenceError: It is a wrong reference.
    """
    if not is_reference(checkpoint):
        path = Path(checkpoint)
        return path.name.removesuffix(path.suffix)
    reference = parse_reference(checkpoint)
    return PurePosixPath(reference.path).stem or reference.name


def checkpoints_in(snapshot: Snapshot, folder: str = "") -> list[str]:
    """Return the files of weights in a repository, or in a folder of it, as their suffixes show them."""
    start = f"{folder}/" if folder else ""
    return sorted(
        name for name in snapshot.sizes if name.startswith(start) and PurePosixPath(name).suffix.lower() in _SUFFIXES
    )


def _the_one(wanted: HubReference, snapshot: Snapshot) -> str:
    found = checkpoints_in(snapshot, wanted.path)
    native = [name for name in found if name.endswith(_SUFFIXES[0])]
    for names in (found, native):
        if len(names) == 1:
            return names[0]
    if not found:
        raise HubNotFoundError(
            f"{wanted} holds no file of weights" if not wanted.path else f"{wanted} is not there",
            expected=f"a file that ends in {', '.join(_SUFFIXES)}; it holds {listed(snapshot.sizes)}",
            fix="name the file, as in hf:owner/name/weights.safetensors",
        )
    raise HubNotFoundError(
        f"{wanted} holds {len(found)} files of weights",
        expected="the name of one of them",
        fix=f"name one: {listed([str(replace(wanted, path=name)) for name in found])}",
    )
