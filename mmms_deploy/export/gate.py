"""The gate: the exported graphs must compute what the checkpoint computes, or there is no bundle.

:mod:`mmms_deploy.export.rewrites.gate` compares the rewritten network with the paper's form first. This file compares

- tensors: the whole ONNX graph with torch, then the stages with the whole graph. Every graph receives the state of the
  rewritten torch network.
- masks: the bundle with the torch reference in the paper's form. A :class:`~mmms_deploy.session.Session` clicks as a
  user would, closed loop: its own masks are fed back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mmms_deploy.bundle import Bundle, GateCheck, Precision
from mmms_deploy.bundle.names import CLICK, MAPS, MAPS_NEXT, MASK, PRESENT, PREV, PROB, RGB
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import GateError
from mmms_deploy.export.cut import StageModel
from mmms_deploy.export.network import BACKBONE, RecurrentNetwork
from mmms_deploy.export.reference import TorchReference
from mmms_deploy.export.samples import Sample
from mmms_deploy.export.steps import announce
from mmms_deploy.models import InteractiveNetwork
from mmms_deploy.progress import OnProgress
from mmms_deploy.replay.golden import GoldenCase
from mmms_deploy.replay.verification import LIMITS, ClickCheck, replay
from mmms_deploy.session.result import ClickResult

Array = npt.NDArray[Any]

OPEN_LOOP_CLICKS = 2
FEATURE_LIMIT = 1e-4
"""Largest difference of a feature, divided by its largest value; ONNX Runtime sums in another order than torch."""
PROBABILITY_LIMIT = 1e-4
STAGE_LIMIT = 1e-6
"""The stages have the whole graph's operators; the difference is 0 where the runtime fuses the same ones."""
FIRST_PROBABILITY_LIMIT = 1e-4
"""Mean over the pixels; the session resizes the photograph with NumPy, the reference with torch."""


@dataclass
class Worst:
    """The worst value of a comparison so far, and where it was seen.

    Attributes:
        name: What is compared.
        measure: What the value is.
        limit: The largest value that passes.
        fix: What to do when a value is beyond the limit, for a caller in Python.
        command_fix: The same for a user of ``mmms-export``; None where ``fix`` is right for both.
        value: The worst value.
        where: Where it was seen.
        samples: How many values were seen.
    """

    name: str
    measure: str
    limit: float
    fix: str = (
        "this export would not compute what the checkpoint computes, so nothing was written; please report the network"
        " and the versions of torch, onnxscript and onnxruntime"
    )
    command_fix: str | None = None
    value: float = 0.0
    where: str = "-"
    samples: int = 0

    def see(self, value: float, where: str) -> None:
        """Take note of one comparison.

        Raises:
            GateError: The value is beyond the limit, or NaN.
        """
        self.samples += 1
        if not value <= self.value:
            self.value, self.where = value, where
        if not value <= self.limit:
            raise GateError(
                f"{self.name}: {self.measure} is {value:.3g} at {where}",
                expected=f"at most {self.limit:g}",
                fix=self.fix,
                command_fix=self.command_fix,
            )

    def check(self) -> GateCheck:
        """Return the record for the manifest."""
        return GateCheck(
            name=self.name,
            measure=self.measure,
            worst=float(self.value),
            limit=self.limit,
            where=self.where,
            samples=self.samples,
        )


def difference(a: Array, b: Array, *, relative: bool = False) -> float:
    """Return the largest absolute difference of two arrays; NaN where one holds NaN.

    Args:
        a: An array.
        b: An array; the difference is infinite when its shape is another.
        relative: Whether to divide by the largest absolute value of ``b``.
    """
    if a.shape != b.shape:
        return float("inf")
    worst = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0.0))
    scale = float(np.abs(b.astype(np.float64)).max(initial=0.0)) if relative else 1.0
    return worst / scale if scale > 0 else worst


class _Graph:
    """An ONNX file on ONNX Runtime's CPU provider."""

    def __init__(self, file: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._inputs = [value.name for value in self._session.get_inputs()]
        self._outputs = [value.name for value in self._session.get_outputs()]

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
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
    feeds, expected = _torch_trace(network, sample)
    features = Worst("whole ONNX graph against torch", "largest relative difference of a feature", FEATURE_LIMIT)
    answers = Worst("whole ONNX graph against torch", "largest difference of maps_next or prob", PROBABILITY_LIMIT)
    announce(on_progress, "gate: whole graph against torch")
    graph, outputs = _Graph(whole), []
    for number, (feed, torch_values) in enumerate(zip(feeds, expected, strict=True), start=1):
        values = graph.run(feed)
        outputs.append(values)
        for name, value in torch_values.items():
            if name == MASK:
                continue
            where = f"whole graph, tensor {name}, image {sample.name}, click {number}"
            if name in (MAPS_NEXT, PROB):
                answers.see(difference(values[name], value), where)
            else:
                features.see(difference(values[name], value, relative=True), where)
    del graph
    announce(on_progress, "gate: stages against whole graph")
    exact = Worst("stages against whole graph", "largest relative difference of any output", STAGE_LIMIT)
    feeds = [dict(feed) for feed in feeds]
    for stage, file in stages:
        graph = _Graph(file)
        for number, (feed, values) in enumerate(zip(feeds, outputs, strict=True), start=1):
            feed.update(graph.run(feed))
            for name in stage.outputs:
                where = f"stage {stage.rate.name.lower()}, tensor {name}, image {sample.name}, click {number}"
                if name in values:
                    exact.see(difference(feed[name], values[name], relative=True), where)
        del graph
    return [features.check(), answers.check(), exact.check()]


@torch.no_grad()
def _torch_trace(network: RecurrentNetwork, sample: Sample) -> tuple[list[dict[str, Array]], list[dict[str, Array]]]:
    """Return the inputs and the outputs of the recurrent network in torch at each of the sample's first clicks."""
    reference = TorchReference(network.network)
    reference.set_image(sample.image, sample.modalities)
    height, width = network.network.config.size
    maps, prev = torch.zeros(1, 2, height, width), torch.zeros(1, 1, height, width)
    encoded = reference.backbone_maps
    image = {RGB: reference.rgb} | dict(zip(BACKBONE, encoded, strict=True))
    if network.partial:
        image[PRESENT] = torch.ones(1, len(network.names))
    plain = network.network.mix(encoded, {}) if network.bypassable else ()
    feeds, outputs = [], []
    for x, y, positive in sample.clicks[:OPEN_LOOP_CLICKS].tolist():
        click = torch.tensor([[*reference.to_network(x, y), positive, 1.0]])
        feed = {**image, **reference.modalities, MAPS: maps, PREV: prev, CLICK: click}
        values = (*reference.features, *plain, *network.click_stage(reference.features, maps, prev, click))
        named = dict(zip(network.output_names(), values, strict=True))
        feeds.append({name: tensor.numpy() for name, tensor in feed.items()})
        outputs.append({name: tensor.numpy() for name, tensor in named.items()})
        maps, prev = named[MAPS_NEXT], named[PROB]
    return feeds, outputs


@dataclass(frozen=True)
class Golden:
    """The torch reference's answers to all samples.

    Attributes:
        names: Name of each sample.
        cases: Masks after every click, and which pixels are certain.
        first: The probability after the first click, (H, W) float32 at the network's size, for each sample.
    """

    names: list[str]
    cases: list[GoldenCase]
    first: list[Array]


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
    reference = TorchReference(network)
    cases, first = [], []
    for sample in samples:
        announce(on_progress, f"gate: torch reference on {sample.name}")
        reference.set_image(sample.image, sample.modalities)
        masks: list[npt.NDArray[np.bool_]] = []
        certain: list[npt.NDArray[np.bool_]] = []
        for x, y, positive in sample.clicks.tolist():
            answer = reference.click(x, y, positive > 0.5)
            if not np.isfinite(answer.probability).all():
                raise GateError(
                    f"the checkpoint itself answers NaN on image {sample.name}, click {len(masks) + 1}",
                    expected="finite probabilities",
                    fix="check the checkpoint; nothing was written",
                )
            masks.append(answer.mask)
            certain.append(answer.certain)
            if len(masks) == 1:
                first.append(answer.network_probability[0, 0].numpy())
        cases.append(
            GoldenCase(
                image=sample.image,
                modalities=sample.modalities,
                clicks=sample.clicks,
                masks=np.stack(masks),
                certain=np.stack(certain),
                features=_named_features(reference) if black_box else {},
            )
        )
    return Golden([sample.name for sample in samples], cases, first)


def _named_features(reference: TorchReference) -> dict[str, npt.NDArray[np.float32]]:
    return {name: value.numpy() for name, value in zip(BACKBONE, reference.backbone_maps, strict=True)}


def compare_session(bundle: Bundle, golden: Golden, engine: Engine) -> list[GateCheck]:
    """Click through a bundle as a user would, its own masks fed back, and compare with the torch reference.

    Args:
        bundle: The bundle, with its golden replay.
        golden: The reference's answers.
        engine: The engine that executes the bundle in float32.

    Returns:
        What was measured.

    Raises:
        GateError: A mask or a probability differs.
    """
    name = "session against torch, closed loop"
    masks = Worst(name, "largest 1 - IoU of the mask on certain pixels", 1.0 - LIMITS[Precision.FP32])
    # After the first click only: later answers depend on masks that were thresholded and fed back. A rounding
    # difference before the threshold may be a whole pixel after it.
    probabilities = Worst(name, "largest mean difference of prob after the first click", FIRST_PROBABILITY_LIMIT)

    def compare(check: ClickCheck, result: ClickResult) -> None:
        where = f"stage click, tensor prob, image {golden.names[check.case]}, click {check.click + 1}"
        if check.click == 0:
            differences = np.abs(result.network_probability - golden.first[check.case])
            probabilities.see(float(differences.mean(dtype=np.float64)), where)
        masks.see(1.0 - check.iou, f"{where} ({check.certain:.1%} of its pixels certain)")

    replay(bundle, EngineRequest(precision=Precision.FP32), engine=engine, on_result=compare)
    return [masks.check(), probabilities.check()]
