"""Bundles and checkpoints on the hub, for commands: fetched with progress, and named with their commit on stderr."""

from __future__ import annotations

from pathlib import Path

from mmms_deploy.commands.common import err_console
from mmms_deploy.commands.display import progress_bars
from mmms_deploy.hub import is_reference, parse_reference, reference_of


def fetched_bundle(bundle: Path) -> Path:
    """Return the folder of a bundle on the hub; any other path is returned as it is.

    Args:
        bundle: What the command line names.

    Raises:
        BundleError, HubError: It cannot be fetched.
    """
    if not is_reference(bundle):
        return bundle
    reference = parse_reference(bundle)
    with progress_bars(f"fetching {reference}") as on_progress:
        from mmms_deploy.bundle import find_bundle

        folder = find_bundle(str(reference), on_progress)
    _say("bundle", folder)
    return folder


def fetched_checkpoint(checkpoint: str | Path) -> Path:
    """Return the file of a checkpoint on the hub; any other path is returned as it is.

    Args:
        checkpoint: What the command line names.

    Raises:
        HubError: It cannot be fetched.
    """
    if not is_reference(checkpoint):
        return Path(checkpoint)
    reference = parse_reference(checkpoint)
    with progress_bars(f"fetching {reference}") as on_progress:
        from mmms_deploy.hub import find_checkpoint

        file = find_checkpoint(reference, on_progress)
    _say("weights", file)
    return file


def _say(what: str, place: Path) -> None:
    """Say at which commit it was taken, so that the same can be named again."""
    err_console.print(f"{what:<8} {reference_of(place) or place}", markup=False, soft_wrap=True)
