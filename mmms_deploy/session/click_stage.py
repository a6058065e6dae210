"""The click stage is recurrent: this module finds the tensors of it that a session feeds and reads.

It takes the features, its own previous state and the newest click, and returns the next state, the probability and the
mask. See ``ClickContract`` and ``StateLink``.
"""

from __future__ import annotations

from mmms_deploy.bundle import Manifest, Role
from mmms_deploy.bundle.contract import ClickMemory
from mmms_deploy.bundle.names import LABELS, MODULATED, PRESENT, RGB
from mmms_deploy.errors import BundleCorruptError, SessionError
from mmms_deploy.session.pipeline import StagePipeline


def find_click_stage(manifest: Manifest, pipeline: StagePipeline) -> tuple[str, str]:
    """Return the names of the click input and the probability output, after checking that a session can drive them.

    Args:
        manifest: The bundle's manifest.
        pipeline: Its stages.

    Raises:
        BundleCorruptError: There is not exactly one click input (1, 4) and one probability (1, 1, H, W) of the
            network's size, the state is linked to tensors that no stage has, or a map of labels is announced and is
            not what it has to be.
        SessionError: The bundle has an input that this version does not know.
    """
    clicks = [spec for spec in pipeline.inputs.values() if spec.role is Role.CLICK]
    answers = [spec for spec in pipeline.outputs.values() if spec.role is Role.PROBABILITY]
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
        if link.input not in pipeline.inputs or link.output not in pipeline.outputs:
            raise BundleCorruptError(
                f"{manifest.name} links {link.output} to {link.input}", expected="tensors of its stages", fix=fix
            )
    if manifest.clicks.memory is ClickMemory.LABELS:
        _check_labels(manifest, pipeline)
    known = {RGB, PRESENT, clicks[0].name, *(m.name for m in manifest.modalities)}
    known |= {link.input for link in manifest.state}
    if manifest.clicks.modulation is not None:
        known.add(MODULATED)
        spec = pipeline.inputs.get(MODULATED)
        if spec is None or spec.shape != answers[0].shape:
            raise BundleCorruptError(
                f"{manifest.name} modulates the previous mask and has "
                + (f"no input {MODULATED}" if spec is None else f"an input {MODULATED} of shape {spec.shape}"),
                expected=f"an input {MODULATED} of shape {answers[0].shape}",
                fix=fix,
            )
    foreign = sorted(s.name for s in pipeline.inputs.values() if s.name not in known and s.role is not Role.FEATURE)
    if foreign:
        raise SessionError(
            f"{manifest.name} wants {', '.join(foreign)}",
            expected="images, backbone features, modalities, clicks and state",
            fix="use a version of mmms-deploy that knows these inputs",
        )
    return clicks[0].name, answers[0].name


def _check_labels(manifest: Manifest, pipeline: StagePipeline) -> None:
    """Check that the state is a map of labels of the network's size, which the session can also write itself."""
    spec = pipeline.inputs.get(LABELS)
    linked = any(link.input == LABELS for link in manifest.state)
    shape = (1, 1, *manifest.size)
    if spec is None or not linked or (spec.dtype, spec.shape) != ("uint8", shape):
        found = "no such state" if spec is None or not linked else f"{spec.dtype} {spec.shape}"
        raise BundleCorruptError(
            f"{manifest.name} says that its clicks are kept as labels, and has {found} for {LABELS}",
            expected=f"a state {LABELS} of uint8 {shape}",
            fix="export the checkpoint again",
        )
