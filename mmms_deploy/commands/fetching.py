"""Bundles and checkpoints that are not there yet, and published weights: fetched with progress, and named on stderr."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mmms_deploy.commands.common import err_console, warn
from mmms_deploy.commands.display import progress_bars
from mmms_deploy.hub import is_reference, parse_reference, reference_of

if TYPE_CHECKING:
    from mmms_deploy.bundle import Bundle
    from mmms_deploy.progress import OnProgress
    from mmms_deploy.weights import FoundWeights


def fetched_bundle(bundle: Path) -> Path:
    """Return the folder of a bundle on the hub; any other path is returned as it is.

    A bundle of the package is made ready, and its name is returned: that of the smaller one, where it was taken.

    Args:
        bundle: What the command line names.

    Warns:
        MMMSDeployWarning: A smaller bundle takes the place of one of the package.

    Raises:
        BundleError, HubError: It cannot be fetched.
    """
    from mmms_deploy.bundle.reference import is_packed, ready_bundle

    if is_packed(bundle):
        with progress_bars(f"unpacking {bundle}") as on_progress:
            return Path(ready_bundle(str(bundle), on_progress)[0])
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


def backbone_finder(on_progress: OnProgress) -> Callable[[str], Path]:
    """Return what finds published weights by the backbone's name, and says on stderr where they came from.

    Args:
        on_progress: Receives how far a download is.
    """

    def find(name: str) -> Path:
        from mmms_deploy.weights import locate_weights

        found = locate_weights(name, on_progress=on_progress)
        say_found(found)
        return found.path

    return find


def say_found(found: FoundWeights, *, kept_elsewhere: bool = False) -> None:
    """Say where published weights came from, and how to keep them where they go with this process.

    Args:
        found: The weights.
        kept_elsewhere: Whether they are written to another place, too.
    """
    err_console.print(f"backbone {found.name} from {found.origin}", markup=False, soft_wrap=True)
    if not found.stays and not kept_elsewhere:
        from mmms_deploy.files.cache import why_off

        warn(
            f"the weights are fetched again next time, because the cache is {why_off()};"
            f" mmms-weights {found.name} --out FILE keeps them, and --backbone-ckpt FILE takes them"
        )


def _say(what: str, place: Path) -> None:
    """Say at which commit it was taken, so that the same can be named again."""
    err_console.print(f"{what:<8} {reference_of(place) or place}", markup=False, soft_wrap=True)


def lasting_name(bundle: Bundle) -> str:
    """Return what names a bundle from any folder and any process: its whole path, or a name that is no path."""
    return str(bundle.path.resolve()) if Path(bundle.reference) == bundle.path else bundle.reference
