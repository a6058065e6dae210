"""The gate: the exported graphs must compute what the checkpoint computes, or there is no bundle.

:mod:`mmms_deploy.export.rewrites.gate` compares the rewritten network with the paper's form first. This file compares

- tensors: the whole ONNX graph with torch, the stages with the whole graph, and the stages as an engine runs them with
  torch. Every graph receives the state of the rewritten torch network.
- masks: the bundle with the torch reference in the paper's form. A :class:`~mmms_deploy.session.Session` clicks as a
  user would, closed loop: its own masks are fed back.

Limits against torch are relative: a difference of a feature is divided by the feature's largest value, a difference of
probabilities by a quarter of the largest logit (:func:`~mmms_deploy.export.comparison.logit_scale`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle import Bundle, GateCheck, Precision
from mmms_deploy.bundle.names import LABELS_NEXT, LOGITS, MAPS_NEXT, MASK, PROB, ROW_LOGITS
from mmms_deploy.engines.onnxruntime.cpu import import_onnxruntime
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import GateError
from mmms_deploy.export.comparison import ROW_LIMIT, Worst, difference, logit_scale
from mmms_deploy.export.cut import StageModel
from mmms_deploy.export.joint import joint_cases
from mmms_deploy.export.network import BACKBONE, RecurrentNetwork
from mmms_deploy.export.proposal_reference import ProposalReference, reference_for
from mmms_deploy.export.reference import HAIR, TorchReference
from mmms_deploy.export.samples import Sample
from mmms_deploy.export.steps import announce
from mmms_deploy.export.trace import Trace, torch_trace
from mmms_deploy.models import InteractiveNetwork
from mmms_deploy.models.dynamite import DynaMITe
from mmms_deploy.progress import OnProgress
from mmms_deploy.replay.golden import GoldenCase
from mmms_deploy.replay.verification import LIMITS, ClickCheck, replay
from mmms_deploy.session.result import ClickResult

Array = npt.NDArray[Any]

FEATURE_LIMIT = 1e-4
"""Largest difference of a feature, divided by its largest value; ONNX Runtime sums in another order than torch."""
PROBABILITY_LIMIT = 1e-4
"""Largest difference of a probability, divided by a quarter of the largest logit."""
STAGE_LIMIT = 0.0
"""The stages have the whole graph's nodes. Without optimisations, ONNX Runtime evaluates exactly these nodes, each with
the same kernel on the same numbers, so every bit is the same, for any number of threads. With optimisations it may fuse
nodes of the whole graph that the cut separates, and sums change their order."""
FIRST_PROBABILITY_LIMIT = 1e-4
"""Mean over the pixels, divided by a quarter of the largest logit; the session resizes the photograph with NumPy, the
reference with torch."""


class OnnxGraph:
    """An ONNX file on ONNX Runtime's CPU provider.

    Args:
        file: The file.
        optimised: Whether ONNX Runtime fuses and reorders nodes, as it does in a session of the CPU engine.
    """

    def __init__(self, file: Path, *, optimised: bool) -> None:
        onnxruntime = import_onnxruntime()

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if not optimised:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._inputs = [value.name for value in self._session.get_inputs()]
        self._outputs = [value.name for value in self._session.get_outputs()]

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs by name; of ``feed``, the graph's inputs are taken."""
        values = self._session.run(self._outputs, {name: feed[name] for name in self._inputs})
        return dict(zip(self._outputs, values, strict=True))


def compare_graphs(
    network: RecurrentNetwork,
    whole: Path,
    stages: Sequence[tuple[StageModel, Path]],
    sample: Sample,
    on_progress: OnProgress | None = None,
) -> list[GateCheck]:
    """Compare torch, the whole graph and the stages on one picture; all of them receive torch's state.

    Args:
        network: The network that was exported.
        whole: The whole ONNX graph.
        stages: The stages and their files, in order.
        sample: The picture; its first clicks are used.
        on_progress: Receives every step as it starts.

    Returns:
        What was measured.

    Raises:
        GateError: Something differs.
    """
    announce(on_progress, "gate: torch on one picture")
    trace = torch_trace(network, sample)
    announce(on_progress, "gate: whole graph against torch")
    against_torch = _AgainstTorch("whole ONNX graph against torch", trace, sample)
    graph, outputs = OnnxGraph(whole, optimised=False), []
    for number, feed in enumerate(trace.feeds[: trace.whole]):
        outputs.append(graph.run(feed))
        against_torch.see(outputs[-1], number, "whole graph")
    del graph
    announce(on_progress, "gate: stages against whole graph")
    exact = Worst("stages against whole graph", "largest relative difference of any output", STAGE_LIMIT)
    for stage, graph, number, feed in _staged(stages, trace, optimised=False):
        found = graph.run(feed)
        feed.update(found)
        for name in (name for name in stage.outputs if number < len(outputs) and name in outputs[number]):
            where = f"stage {stage.name}, tensor {name}, {trace.where(number, sample)}"
            exact.see(difference(found[name], outputs[number][name], relative=True), where)
    announce(on_progress, "gate: stages as an engine runs them against torch")
    fused = _AgainstTorch("stages, optimised, against torch", trace, sample)
    for stage, graph, number, feed in _staged(stages, trace, optimised=True):
        found = graph.run(feed)
        feed.update(found)
        fused.see(found, number, f"stage {stage.name}")
    return [*against_torch.checks(), exact.check(), *fused.checks()]


class _AgainstTorch:
    """The comparison of graphs with torch: features, the next state, probabilities.

    Args:
        name: The two sides.
        trace: Torch's answers.
        sample: The picture.
    """

    def __init__(self, name: str, trace: Trace, sample: Sample) -> None:
        self._trace, self._sample = trace, sample
        self._features = Worst(name, "largest relative difference of a feature", FEATURE_LIMIT)
        labelled = any(LABELS_NEXT in outputs for outputs in trace.outputs)
        what = "the labels on certain pixels" if labelled else "the disks"
        self._state = Worst(name, f"largest difference of {what}", 0.0)
        self._rows = Worst(name, "largest mean difference of the rows' logits, over the largest logit", ROW_LIMIT)
        listed = any(LOGITS in outputs for outputs in trace.outputs)
        answer = "a logit, over" if listed else "prob, over a quarter of"
        self._answers = Worst(name, f"largest difference of {answer} the largest logit", PROBABILITY_LIMIT)

    def see(self, found: Mapping[str, Array], number: int, part: str) -> None:
        """Compare the outputs at one click with torch's; those that torch does not have are passed over."""
        expected = self._trace.outputs[number]
        for name in (name for name in expected if name in found and name != MASK):
            where = f"{part}, tensor {name}, {self._trace.where(number, self._sample)}"
            if name == MAPS_NEXT:
                self._state.see(difference(found[name], expected[name]), where)
            elif name == LABELS_NEXT:
                # The answer moves labels: at the threshold a rounding difference moves them the other way.
                certain = np.abs(expected[PROB].astype(np.float64) - self._trace.threshold) > HAIR
                self._state.see(difference(found[name] * certain, expected[name] * certain), where)
            elif name == PROB:
                self._answers.see(4 * difference(found[name], expected[name]) / self._trace.scale, where)
            elif name == ROW_LOGITS:
                told = self._trace.told[number]
                differences = np.abs(found[name][0, told].astype(np.float64) - expected[name][0, told])
                self._rows.see(float(differences.mean()) / self._trace.scale, where)
            elif name == LOGITS:
                self._answers.see(difference(found[name], expected[name]) / self._trace.scale, where)
            else:
                self._features.see(difference(found[name], expected[name], relative=True), where)

    def checks(self) -> list[GateCheck]:
        seen = [worst for worst in (self._features, self._state, self._rows, self._answers) if worst.samples]
        return [worst.check() for worst in seen]


def _staged(
    stages: Sequence[tuple[StageModel, Path]], trace: Trace, *, optimised: bool
) -> Iterator[tuple[StageModel, OnnxGraph, int, dict[str, Array]]]:
    """Yield every stage with every click's inputs; what a stage computes is put into them for the stages after it."""
    feeds = [dict(feed) for feed in trace.feeds]
    for stage, file in stages:
        if stage.batch is not None:
            continue  # it is compared with the stage for one object
        graph = OnnxGraph(file, optimised=optimised)
        for number in trace.numbers(stage):
            if stage.larger:
                feeds[number] = {**feeds[0], **feeds[number]}  # the features of the same picture
            yield stage, graph, number, feeds[number]


@dataclass(frozen=True)
class Golden:
    """The torch reference's answers to all samples.

    Attributes:
        names: Name of each sample.
        cases: Masks after every click, and which pixels are certain.
        first: The probability after the first click, (H, W) float32 at the network's size, for each sample; empty for
            a network that answers for several objects at once, which gives none.
        scales: For each sample, what differences of logits after the first click are divided by.
    """

    names: list[str]
    cases: list[GoldenCase]
    first: list[Array]
    scales: list[float]


@dataclass(frozen=True)
class Recorded:
    """What is kept of a reference's answer.

    Attributes:
        mask: (H0, W0) bool at the image's resolution.
        certain: (H0, W0) bool: where the mask does not hang on rounding.
        probability: (h, w) float32 at the answer's resolution.
        scale: The number that differences of its probabilities are divided by
            (:func:`~mmms_deploy.export.comparison.logit_scale`).
        choice: Which proposal it goes on from; None for a network without.
    """

    mask: npt.NDArray[np.bool_]
    certain: npt.NDArray[np.bool_]
    probability: npt.NDArray[np.float32]
    scale: float
    choice: int | None = None


def record_golden(
    network: InteractiveNetwork,
    samples: Sequence[Sample],
    on_progress: OnProgress | None = None,
    *,
    black_box: bool = False,
) -> Golden:
    """Click through every sample with the torch reference, closed loop.

    Args:
        network: The network in the paper's form.
        samples: Pictures and clicks.
        on_progress: Receives a step for every picture, as it starts.
        black_box: Whether to keep the backbone's features, which a session then takes instead of the picture.

    Returns:
        The reference's answers.

    Raises:
        GateError: The network answers NaN.
    """
    if isinstance(network, DynaMITe):
        cases: list[GoldenCase] = []
        for sample in samples:
            announce(on_progress, f"gate: torch reference on {sample.name}")
            cases += joint_cases(network, [sample])
        return Golden([sample.name for sample in samples], cases, [], [])
    reference = reference_for(network)

    def answers(sample: Sample) -> Iterator[Recorded]:
        announce(on_progress, f"gate: torch reference on {sample.name}")
        reference.set_image(sample.image, sample.modalities)
        for number, (x, y, positive) in enumerate(sample.clicks.tolist(), start=1):
            answer = reference.click(x, y, positive > 0.5)
            if not np.isfinite(answer.probability).all():
                raise GateError(
                    f"the checkpoint itself answers NaN on image {sample.name}, click {number}",
                    expected="finite probabilities",
                    fix="check the checkpoint; nothing was written",
                )
            probability = answer.network_probability[0, 0].numpy()
            choice = reference.choice if isinstance(reference, ProposalReference) else None
            yield Recorded(answer.mask, answer.certain, probability, logit_scale([answer.logits]), choice)

    return record(samples, answers, lambda: _named_features(reference) if black_box else {})


def record(
    samples: Sequence[Sample],
    answers: Callable[[Sample], Iterable[Recorded]],
    features: Callable[[], dict[str, npt.NDArray[np.float32]]] = dict,
) -> Golden:
    """Keep what a reference answers to the clicks of samples.

    Args:
        samples: Pictures and clicks.
        answers: Clicks through one sample, closed loop.
        features: Returns what a session takes instead of the sample's picture, by name.

    Returns:
        The reference's answers.
    """
    cases, first = [], []
    for sample in samples:
        found = list(answers(sample))
        first.append(found[0])
        cases.append(
            GoldenCase(
                image=sample.image,
                modalities=sample.modalities,
                clicks=sample.clicks,
                masks=np.stack([answer.mask for answer in found]),
                certain=np.stack([answer.certain for answer in found]),
                features=features(),
                choice=found[0].choice,
            )
        )
    names = [sample.name for sample in samples]
    return Golden(names, cases, [answer.probability for answer in first], [answer.scale for answer in first])


def _named_features(reference: TorchReference) -> dict[str, npt.NDArray[np.float32]]:
    return {name: value.numpy() for name, value in zip(BACKBONE, reference.backbone_maps, strict=False)}


def compare_session(
    bundle: Bundle, golden: Golden, engine: Engine, name: str = "session against torch, closed loop"
) -> list[GateCheck]:
    """Click through a bundle as a user would, its own masks fed back, and compare with the torch reference.

    Args:
        bundle: The bundle, with its golden replay.
        golden: The reference's answers.
        engine: The engine that executes the bundle in float32.
        name: The two sides, for the record.

    Returns:
        What was measured.

    Raises:
        GateError: A mask or a probability differs.
    """
    masks = Worst(name, "largest 1 - IoU of the mask on certain pixels", 1.0 - LIMITS[Precision.FP32])
    # After the first click only: later answers depend on masks that were thresholded and fed back. A rounding
    # difference before the threshold may be a whole pixel after it.
    probabilities = Worst(
        name,
        "largest mean difference of prob after the first click, over a quarter of the largest logit",
        FIRST_PROBABILITY_LIMIT,
    )

    def compare(check: ClickCheck, result: ClickResult) -> None:
        where = f"stage click, image {golden.names[check.case]}, click {check.click + 1}"
        if check.click == 0 and golden.first:
            differences = np.abs(result.network_probability - golden.first[check.case])
            mean = float(differences.mean(dtype=np.float64))
            probabilities.see(4 * mean / golden.scales[check.case], where)
        masks.see(1.0 - check.iou, f"{where} ({check.certain:.1%} of its pixels certain)")

    replay(bundle, EngineRequest(precision=Precision.FP32), engine=engine, on_result=compare)
    return [masks.check(), probabilities.check()] if golden.first else [masks.check()]
