"""The click stage as a recurrent cell: which of its tensors a session drives.

The cell takes the features, its own previous state and the newest click, and returns the next state, the probability
and the mask. See ``ClickContract`` and ``StateLink``.
"""

from __future__ import annotations

from mmms_deploy.bundle import Manifest, Role
from mmms_deploy.bundle.names import PRESENT, RGB
from mmms_deploy.errors import BundleCorruptError, SessionError
from mmms_deploy.session.pipeline import Chain


def find_cell(manifest: Manifest, chain: Chain) -> tuple[str, str]:
    """Return the names of the click input and the probability output, after checking that a session can drive them.

    Args:
        manifest: The bundle's manifest.
        chain: Its stages.

    Raises:
        BundleCorruptError: There is not one click input (1, 4) and one probability (1, 1, H, W) of the network's size,
            or the state is linked to tensors that no stage has.
        SessionError: An input is something that a session does not know.
    """
    clicks = [spec for spec in chain.given.values() if spec.role is Role.CLICK]
    answers = [spec for spec in chain.computed.values() if spec.role is Role.PROBABILITY]
    fix = "export the checkpoint again"
    if len(clicks) != 1 or clicks[0].shape != (1, 4) or len(answers) != 1:
        raise BundleCorruptError(
            f"{manifest.name} has {len(clicks)} click inputs and {len(answers)} probability outputs",
            expected="one click input of shape (1, 4) and one probability",
            fix=fix,
        )
    if answers[0].shape != (1, 1, *manifest.size):
        raise BundleCorruptError(
            f"{manifest.name} gives a probability of shape {answers[0].shape}",
            expected=str((1, 1, *manifest.size)),
            fix=fix,
        )
    for link in manifest.state:
        if link.input not in chain.given or link.output not in chain.computed:
            raise BundleCorruptError(
                f"{manifest.name} links {link.output} to {link.input}", expected="tensors of its stages", fix=fix
            )
    known = {RGB, PRESENT, clicks[0].name, *(m.name for m in manifest.modalities)}
    known |= {link.input for link in manifest.state}
    foreign = sorted(s.name for s in chain.given.values() if s.name not in known and s.role is not Role.FEATURE)
    if foreign:
        raise SessionError(
            f"{manifest.name} wants {', '.join(foreign)}",
            expected="images, backbone features, modalities, clicks and state",
            fix="use a version of mmms-deploy that knows these inputs",
        )
    return clicks[0].name, answers[0].name
