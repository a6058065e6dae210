"""The gate: an export that does not compute what its checkpoint computes is no export.

Two parts, after :mod:`mmms_deploy.export.forms` has compared the rewritten network with the paper's form. Tensors, with
the rewritten torch network's own state fed to every graph: the whole ONNX graph against torch, and the stages against
the whole. Masks, closed loop through a :class:`~mmms_deploy.session.Session` as a user would click: the deployed bundle
against the torch reference in the paper's form, its own answers fed back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
from mmms_deploy.models import InteractiveNetwork
from mmms_deploy.replay.golden import GoldenCase
from mmms_deploy.replay.verify import LIMITS, ClickCheck, replay
from mmms_deploy.session.result import ClickResult

Array = npt.NDArray[Any]

OPEN_LOOP_CLICKS = 2
FEATURE_LIMIT = 1e-4
"""Largest difference of a feature, over its largest value; ONNX Runtime sums in another order than torch."""
PROBABILITY_LIMIT = 1e-4
STAGE_LIMIT = 1e-6
"""The stages are the same operators as the whole; 0 wherever the runtime fuses the same of them."""
FIRST_PROBABILITY_LIMIT = 1e-4
"""Mean over the pixels; the session resizes the photograph with NumPy, the reference with torch."""


@dataclass
class Worst:
    """The worst value of a comparison so far, and where it was seen."""

    name: str
    measure: str
    limit: float
    fix: str = (
        "this export would not compute what the checkpoint computes, so nothing was written; please report the network"
        " and the versions of torch, onnxscript and onnxruntime"
    )
    value: float = 0.0
    where: str = "-"
    samples: int = 0
    _failure: str | None = field(default=None, repr=False)

    def see(self, value: float, where: str) -> None:
        """Take note of one comparison.

        Raises:
            GateError: The value is beyond the limit, or no number.
        """
        self.samples += 1
        if not value <= self.value:
            self.value, self.where = value, where
        if not value <= self.limit:
            raise GateError(
                f"{self.name}: {self.measure} is {value:.3g} at {where}",
                expected=f"at most {self.limit:g}",
                fix=self.fix,
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
    """Largest absolute difference of two arrays, over the largest value of ``b`` when ``relative``; NaN counts."""
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
    on_step: Callable[[str], None],
) -> list[GateCheck]:
    """Compare torch, the whole graph and the stages on one picture, all fed torch's own state.

    Args:
        network: The network that was exported.
        whole: The whole ONNX graph.
        stages: The stages and their files, in order.
        sample: The picture; its first clicks are used.
        on_step: Called before each step with its name.

    Returns:
        What was measured.

    Raises:
        GateError: Something differs.
    """
    on_step("gate: torch on one picture")
    feeds, expected = _torch_trace(network, sample)
    features = Worst("whole ONNX graph against torch", "largest relative difference of a feature", FEATURE_LIMIT)
    answers = Worst("whole ONNX graph against torch", "largest difference of maps_next or prob", PROBABILITY_LIMIT)
    on_step("gate: whole graph against torch")
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
    on_step("gate: stages against whole graph")
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
    """Inputs and outputs of the recurrent network in torch over the sample's first clicks."""
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
        values = (*reference.features, *plain, *network.cell(reference.features, maps, prev, click))
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
        first: By sample, (H, W) float32: the probability after the first click, at the network's size.
    """

    names: list[str]
    cases: list[GoldenCase]
    first: list[Array]


def record_golden(
    network: InteractiveNetwork, samples: Sequence[Sample], on_step: Callable[[str], None], *, black_box: bool = False
) -> Golden:
    """Click through every sample with the torch reference, closed loop.

    Args:
        network: The network in the paper's form.
        samples: Pictures and clicks.
        black_box: Whether to keep the backbone's features, which a session is to be given instead of the picture.
        on_step: Called before each picture with its name.

    Returns:
        The reference's answers.
    """
    reference = TorchReference(network)
    cases, first = [], []
    for sample in samples:
        on_step(f"gate: torch reference on {sample.name}")
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
    """Click through a bundle as a user would, its own answers fed back, and compare with the torch reference.

    Args:
        bundle: The bundle, golden replay included.
        golden: What the reference answered.
        engine: What executes the bundle in float32.

    Returns:
        What was measured.

    Raises:
        GateError: A mask or a probability differs.
    """
    name = "session against torch, closed loop"
    masks = Worst(name, "largest 1 - IoU of the mask on certain pixels", 1.0 - LIMITS[Precision.FP32])
    # After the first click only: later ones depend on masks that were thresholded and fed back, and what is a rounding
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
