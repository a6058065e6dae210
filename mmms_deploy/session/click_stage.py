"""This module finds the tensors that a session feeds to the stages at a click, and reads of them.

A click stage is recurrent: it takes the features, its own previous state and the newest click, and returns the next
state and the answer; of several answers also the others and their scores. Or it has no state and takes all clicks as a
list. See ``ClickContract`` and ``StateLink``.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from mmms_deploy.bundle import AnswerForm, Manifest, Role, TensorSpec
from mmms_deploy.bundle.contract import ClickList, ClickMemory
from mmms_deploy.bundle.names import CHOICE, CLICK_LIST, FIRST_CLICK, LABELS, MODULATED, PRESENT, RGB
from mmms_deploy.errors import BundleCorruptError, SessionError
from mmms_deploy.session.pipeline import StagePipeline

_FIX = "export the checkpoint again"


@dataclass(frozen=True)
class ProposalTensors:
    """The tensors by which a network answers a first click with proposals, by name.

    Attributes:
        candidates: The proposals, (1, N, h, w).
        scores: The network's scores of them, (1, N).
        click: The first click, (1, 4).
        choice: Which proposal is refined at later clicks, (1, 1).
    """

    candidates: str
    scores: str
    click: str = FIRST_CLICK
    choice: str = CHOICE


@dataclass(frozen=True)
class ClickTensors:
    """The tensors of a click stage that a session feeds and reads, by name.

    Attributes:
        click: The newest click, (1, 4); or the list of all clicks, (1, Q, 4) or (1, Q, 5).
        answer: The network's answer, (1, 1, h, w); of a network that answers for several objects at once the logits of
            all rows, (1, Q + L, h, w).
        several: Names of all of its answers (1, K, h, w), of its scores for them (1, K), and of which one it took
            (1, 1); None where it gives one.
        proposals: What belongs to a first click with proposals; None without.
    """

    click: str
    answer: str
    several: tuple[str, str, str] | None = None
    proposals: ProposalTensors | None = None


def find_click_stage(manifest: Manifest, pipeline: StagePipeline) -> ClickTensors:
    """Return the tensors of the click stage, after checking that a session can drive them.

    Args:
        manifest: The bundle's manifest.
        pipeline: Its stages.

    Raises:
        BundleCorruptError: There is not exactly one click input (1, 4), or list of all clicks where the contract has
            one, and one answer (1, 1, h, w) of the size that the click contract says, an output of several answers is
            missing, the state is linked to tensors that no stage has, or a map of labels is announced and is not what
            it has to be.
        SessionError: The bundle has an input that this version does not know.
    """
    rule = manifest.clicks
    if rule.listed is not None:
        return _find_listed(manifest, pipeline, rule.listed)
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
    _check_known(manifest, pipeline, known)
    if rule.candidates == 1:
        return ClickTensors(clicks[0].name, answers[0].name)
    candidates, scores = _several(manifest, pipeline)
    taken = _only_output(manifest, pipeline, Role.TAKEN, (1, 1))
    return ClickTensors(clicks[0].name, answers[0].name, (candidates, scores, taken))


def _find_listed(manifest: Manifest, pipeline: StagePipeline, listed: ClickList) -> ClickTensors:
    """Return the tensors of a click stage that takes all clicks as a list."""
    rule, size = manifest.clicks, manifest.clicks.answer_size(manifest.size)
    shapes: dict[str, tuple[int, ...]] = {CLICK_LIST: (1, listed.sizes[0], listed.fields)}
    if rule.answers is not None and rule.answers.proposals:
        shapes |= {FIRST_CLICK: (1, 4), CHOICE: (1, 1)}
    for name, shape in shapes.items():
        spec = pipeline.inputs.get(name)
        if spec is None or spec.shape != shape:
            found = f"no input {name}" if spec is None else f"an input {name} of shape {spec.shape}"
            raise _corrupt(f"{manifest.name} has {found}", str(shape))
    if manifest.state:
        raise _corrupt(f"{manifest.name} takes a list of clicks and has a state", "no state")
    _check_known(manifest, pipeline, {RGB, PRESENT, *shapes, *(m.name for m in manifest.modalities)})
    if listed.objects > 1:
        if rule.answer_form is not AnswerForm.LOGITS:
            raise _corrupt(f"{manifest.name} answers for several objects with a {rule.answer_form}", "logits")
        rows = listed.sizes[0] + listed.learned
        return ClickTensors(CLICK_LIST, _only_output(manifest, pipeline, Role.ROWS, (1, rows, *size)))
    role = Role.PROBABILITY if rule.answer_form is AnswerForm.PROBABILITY else Role.LOGITS
    answer = _only_output(manifest, pipeline, role, (1, 1, *size))
    if FIRST_CLICK not in shapes:
        return ClickTensors(CLICK_LIST, answer)
    return ClickTensors(CLICK_LIST, answer, proposals=ProposalTensors(*_several(manifest, pipeline)))


def _several(manifest: Manifest, pipeline: StagePipeline) -> tuple[str, str]:
    """Return the names of the candidates and of their scores."""
    count, size = manifest.clicks.candidates, manifest.clicks.answer_size(manifest.size)
    candidates = _only_output(manifest, pipeline, Role.CANDIDATES, (1, count, *size))
    return candidates, _only_output(manifest, pipeline, Role.SCORES, (1, count))


def _only_output(manifest: Manifest, pipeline: StagePipeline, role: Role, shape: tuple[int, ...]) -> str:
    """Return the name of the only output of a role, whose shape is checked."""
    found = [spec for spec in pipeline.outputs.values() if spec.role is role]
    if len(found) != 1:
        raise _corrupt(f"{manifest.name} has {len(found)} {role} outputs", f"one of shape {shape}")
    _check_shape(manifest, found[0], shape)
    return found[0].name


def _check_known(manifest: Manifest, pipeline: StagePipeline, known: Set[str]) -> None:
    foreign = sorted(s.name for s in pipeline.inputs.values() if s.name not in known and s.role is not Role.FEATURE)
    if foreign:
        raise SessionError(
            f"{manifest.name} wants {', '.join(foreign)}",
            expected="images, backbone features, modalities, clicks and state",
            fix="use a version of mmms-deploy that knows these inputs",
        )


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
