"""Puts a bundle into a model repository on the hub: its files and its model card, in one commit."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Collection

import msgspec

from mmms_deploy.bundle.card import card_of, checked_license
from mmms_deploy.bundle.manifest_file import MOST_MANIFEST
from mmms_deploy.bundle.names import CARD_NAME, FILE_NAME, MANIFEST_NAME
from mmms_deploy.bundle.reader import Bundle
from mmms_deploy.errors import FileReadError, HubError, MMMSDeployWarning
from mmms_deploy.files import MIB, PathLike, read_bytes
from mmms_deploy.hub import (
    Destination,
    RepositoryFile,
    open_destination,
    open_snapshot,
    parse_repository,
    upload,
)
from mmms_deploy.progress import OnProgress

_MOST_CARD = 4 * MIB


def push_bundle(
    bundle: Bundle | PathLike,
    repository: str,
    *,
    private: bool = False,
    overwrite: bool = False,
    license: str | None = None,
    on_progress: OnProgress | None = None,
) -> str:
    """Put a bundle on the Hugging Face hub, so that ``Session("hf:owner/name")`` opens it.

    The bundle's files, compared with their hashes, and its model card become one commit of the main branch. The card is
    written anew with the reference and the licence; one that was edited is taken as it is. A token with the right to
    write comes from ``hf auth login`` or ``HF_TOKEN``.

    Args:
        bundle: The bundle, or what names it.
        repository: ``owner/name``, which is made where it is not there; or ``owner/name/folder``, for several bundles
            in one repository.
        private: Whether a repository that is made is private.
        overwrite: Whether the repository, or the folder, may hold files. Those of the same names are replaced, and
            those of an older bundle removed; others stay.
        license: The licence of the weights, as the hub lists it, such as ``apache-2.0``; None takes what the export was
            told.
        on_progress: Receives that the upload starts and ends; None leaves how far it is to the bars of
            ``huggingface_hub``.

    Returns:
        The reference of what was pushed, with its commit: ``hf:owner/name@commit``.

    Warns:
        MMMSDeployWarning: The licence is not stated; or the weights are random; or the repository is public already.

    Raises:
        BundleError: There is no usable bundle, or the licence is no identifier.
        HubReferenceError: ``repository`` is no owner and name.
        HubRepositoryExistsError: The repository holds files, and ``overwrite`` is not set.
        HubAccessError: There is no token, or it does not allow this.
        HubError: The hub does not answer, or refuses.
    """
    license = checked_license(license)
    reference = parse_repository(repository)
    opened = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
    destination = open_destination(reference, private=private, overwrite=overwrite)
    manifest = opened.manifest
    card = _edited_card(opened)
    if card is None:
        card = card_of(manifest, reference, license).encode()
        if license is None and manifest.provenance.license is None:
            warnings.warn(
                "the model card says that the licence of the weights is unknown; state it with license= in Python,"
                " --license from the command line",
                MMMSDeployWarning,
                stacklevel=2,
            )
    elif license is not None:
        warnings.warn(
            f"{CARD_NAME} was edited and is taken as it is: the licence {license} is not written into it",
            MMMSDeployWarning,
            stacklevel=2,
        )
    if not manifest.trained:
        warnings.warn("the weights are random: the masks of this bundle mean nothing", MMMSDeployWarning, stacklevel=2)
    names = [*manifest.files, MANIFEST_NAME]
    files = [RepositoryFile(name, opened.file(name)) for name in names]
    done = upload(
        destination,
        [*files, RepositoryFile(CARD_NAME, card)],
        f"Bundle {' '.join(manifest.name.split())[:60]} of mmms-deploy",
        obsolete=_older_files(destination),
        on_progress=on_progress,
    )
    return str(done)


def _edited_card(bundle: Bundle) -> bytes | None:
    """Return the bundle's model card where it differs from the one that was written; None otherwise."""
    try:
        card = read_bytes(bundle.path / CARD_NAME, _MOST_CARD)
    except FileReadError as error:
        if error.missing:
            return None
        raise
    return None if hashlib.sha256(card).hexdigest() == bundle.manifest.card else card


class _Listed(msgspec.Struct):
    files: dict[str, object]


def _older_files(destination: Destination) -> Collection[str]:
    """Return the files of the bundle that lies in a destination already, as its manifest lists them."""
    if MANIFEST_NAME not in destination.files or destination.commit is None:
        return ()
    place = destination.reference.path
    path = f"{place}/{MANIFEST_NAME}" if place else MANIFEST_NAME
    try:
        snapshot = open_snapshot(destination.reference.at(destination.commit))
        raw = read_bytes(snapshot.file(path), MOST_MANIFEST)
        return tuple(filter(FILE_NAME.fullmatch, msgspec.json.decode(raw, type=_Listed).files))
    except (HubError, FileReadError, msgspec.DecodeError, ValueError, RecursionError):
        return ()
