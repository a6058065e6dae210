"""What a bundle is named by: the path of its folder, a name of the package's own, or a place on the hub."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from mmms_deploy.bundle.fetched import fetch_bundle
from mmms_deploy.bundle.names import MANIFEST_NAME
from mmms_deploy.bundle.packed import NAMES, ONLY_CHECKPOINTS, SMALLER, packed_bundle
from mmms_deploy.errors import BundleNotFoundError, FileReadError, MMMSDeployWarning, WeightsError
from mmms_deploy.files import PathLike, as_path
from mmms_deploy.hub import is_reference, parse_reference
from mmms_deploy.progress import OnProgress
from mmms_deploy.spelling import closest

A_BUNDLE = f"the folder of a bundle, which holds {MANIFEST_NAME}, or 'demo' or 'demo-small', or hf:owner/name"
"""What errors expect where a bundle is named."""


def find_bundle(reference: PathLike, on_progress: OnProgress | None = None) -> Path:
    """Return the folder of the bundle that a reference names.

    Args:
        reference: The path of a bundle's folder; or ``demo`` or ``demo-small``, the bundles that ship with the package,
            which are unpacked into the cache, where no bundle lies in a folder of that name; or
            ``hf:owner/name[@revision][/folder]``, a bundle on the hub, of which the files that its manifest lists are
            fetched into the cache of the hub.
        on_progress: Receives how far a download is; None leaves that to the bars of ``huggingface_hub``.

    Returns:
        The folder, which may not hold a bundle where a path was given.

    Warns:
        MMMSDeployWarning: No source has the backbone's weights of ``demo``, and ``demo-small`` is taken.

    Raises:
        BundleNotFoundError: The reference is no path, or nothing is there.
        BundleCorruptError: The packed bundle is damaged.
        BundleError: This Python cannot unpack it.
        OutputWriteError: There is no place to unpack it, or to fetch it to.
        HubError: A bundle on the hub cannot be fetched.
    """
    return locate(reference, on_progress)[1]


def locate(reference: PathLike, on_progress: OnProgress | None = None) -> tuple[str, Path]:
    """Return what messages name a bundle by, and its folder; see :func:`find_bundle`."""
    if is_reference(reference):
        return str(reference), fetch_bundle(parse_reference(reference), on_progress)
    try:
        path = as_path(reference, "the bundle")
    except FileReadError as error:
        raise BundleNotFoundError(
            error.given,
            expected=f"the path of a folder with a {MANIFEST_NAME} in it, 'demo' or 'demo-small', or hf:owner/name",
            fix="name that folder",
        ) from error
    if is_packed(path):
        return ready_bundle(str(path), on_progress)
    if _nothing_at(path):
        raise BundleNotFoundError(f"no bundle at {path}", expected=A_BUNDLE, fix=how_to_find(path))
    return os.fspath(reference), path


def _nothing_at(path: Path) -> bool:
    """Whether the system says that a path does not exist; what it refuses to look at may."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return False


def is_packed(path: Path) -> bool:
    """Return whether a path is the name of a bundle that ships with the package, and no bundle lies there."""
    return str(path) in NAMES and not os.path.lexists(path / MANIFEST_NAME)


def ready_bundle(name: str, on_progress: OnProgress | None = None) -> tuple[str, Path]:
    """Make a bundle that ships with the package ready; where no source has its backbone's weights, a smaller one.

    Args:
        name: One of the names of such bundles.
        on_progress: Receives how far the download of the backbone's weights is.

    Returns:
        The name of the bundle that was made ready, and its folder.

    Warns:
        MMMSDeployWarning: A smaller one takes its place.

    Raises:
        BundleError, OutputWriteError, WeightsError: As :func:`~mmms_deploy.bundle.packed.packed_bundle`.
    """
    try:
        return name, packed_bundle(name, on_progress)
    except WeightsError as error:
        smaller = SMALLER.get(name)
        if smaller is None:
            raise
        folder = packed_bundle(smaller, on_progress)
        why = error.given.partition("\n")[0].rstrip(":")  # what each source said follows
        text = f"the bundle {smaller!r} takes the place of {name!r}, because {why}; for {name!r}, {error.fix}"
        warnings.warn(text, MMMSDeployWarning, stacklevel=5)
        return smaller, folder


def how_to_find(path: Path) -> str:
    """Return what to do where nothing lies at the path that should name a bundle."""
    if str(path) in ONLY_CHECKPOINTS:
        return _how_to_export(path.name)
    if path in [Path("bundles") / name for name in NAMES]:
        return f"name it {path.name!r}: it ships with mmms-deploy; or mmms-export --ckpt {path.name} writes {path}"
    if path in [Path("bundles") / name for name in ONLY_CHECKPOINTS]:
        return f"mmms-export --ckpt {path.name} writes {path}"
    name = closest(path.name, NAMES)
    if name is not None and len(path.parts) == 1:
        return f"did you mean {name!r}, which ships with mmms-deploy?"
    return "check the path, or make a bundle: mmms-export --ckpt FILE"


def _how_to_export(name: str) -> str:
    made = Path("bundles") / name
    if (made / MANIFEST_NAME).is_file():
        return f"name the bundle that was made of it, {made}"
    return f"{name!r} ships as a checkpoint: mmms-export --ckpt {name} makes {made} of it"
