"""The click stage is recurrent: this module finds the tensors of it that a session feeds and reads.

It takes the features, its own previous state and the newest click, and returns the next state and the answer; of
several answers also the others and their scores. See ``ClickContract`` and ``StateLink``.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmms_deploy.bundle import AnswerForm, Manifest, Role, TensorSpec
from mmms_deploy.bundle.contract import ClickMemory
from mmms_deploy.bundle.names import LABELS, MODULATED, PRESENT, RGB
from mmms_deploy.errors import BundleCorruptError, SessionError
from mmms_deploy.session.pipeline import StagePipeline

_FIX = "export the checkpoint again"


@dataclass(frozen=True)
class ClickTensors:
    """The tensors of a click stage that a session feeds and reads, by name.

    Attributes:
        click: The newest click, (1, 4).
        answer: The network's answer, (1, 1, h, w).
        several: Names of all of its answers (1, K, h, w), of its scores for them (1, K), and of which one it took
            (1, 1); None where it gives one.
    """

    click: str
    answer: str
    several: tuple[str, str, str] | None = None


def find_click_stage(manifest: Manifest, pipeline: StagePipeline) -> ClickTensors:
    """Return the tensors of the click stage, after checking that a session can drive them.

    Args:
        manifest: The bundle's manifest.
        pipeline: Its stages.

    Raises:
        BundleCorruptError: There is not exactly one click input (1, 4) and one answer (1, 1, h, w) of the size that the
            click contract says, an output of several answers is missing, the state is linked to tensors that no stage
            has, or a map of labels is announced and is not what it has to be.
        SessionError: The bundle has an input that this version does not know.
    """
    rule = manifest.clicks
    role = Role.PROBABILITY if rule.answer_form is AnswerForm.PROBABILITY else Role.LOGITS
    clicks = [spec for spec in pipeline.inputs.values() if spec.role is Role.CLICK]
    answers = [spec for spec in pipeline.outputs.values() if spec.role is role]
    if len(clicks) != 1 or clicks[0].shape != (1, 4) or len(answers) != 1:
        raise _corrupt(
            f"{manifest.name} has {len(clicks)} click inputs and {len(answers)} {role} outputs",
            f"one click input of shape (1, 4) and one {role}",
        )
    size = rule.answer_size(manifest.size)
    _check_shape(manifest, answers[0], (1, 1, *size))
    for link in manifest.state:
        if link.input not in pipeline.inputs or link.output not in pipeline.outputs:
            raise _corrupt(f"{manifest.name} links {link.output} to {link.input}", "tensors of its stages")
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
                fix=_FIX,
            )
    foreign = sorted(s.name for s in pipeline.inputs.values() if s.name not in known and s.role is not Role.FEATURE)
    if foreign:
        raise SessionError(
            f"{manifest.name} wants {', '.join(foreign)}",
            expected="images, backbone features, modalities, clicks and state",
            fix="use a version of mmms-deploy that knows these inputs",
        )
    if rule.candidates == 1:
        return ClickTensors(clicks[0].name, answers[0].name)
    shapes = {Role.CANDIDATES: (1, rule.candidates, *size), Role.SCORES: (1, rule.candidates), Role.TAKEN: (1, 1)}
    names = []
    for role, shape in shapes.items():
        found = [spec for spec in pipeline.outputs.values() if spec.role is role]
        if len(found) != 1:
            raise _corrupt(
                f"{manifest.name} has {len(found)} {role} outputs", f"one for the choice of {rule.candidates} answers"
            )
        _check_shape(manifest, found[0], shape)
        names.append(found[0].name)
    return ClickTensors(clicks[0].name, answers[0].name, (names[0], names[1], names[2]))


def _check_shape(manifest: Manifest, spec: TensorSpec, shape: tuple[int, ...]) -> None:
    if spec.shape != shape:
        raise _corrupt(f"{manifest.name} gives a {spec.role} of shape {spec.shape}", str(shape))


def _corrupt(given: str, expected: str) -> BundleCorruptError:
    return BundleCorruptError(given, expected=expected, fix=_FIX)


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
            fix=_FIX,
        )
