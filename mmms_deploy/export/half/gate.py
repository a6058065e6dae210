"""The gate of a reduced precision: its graphs against the float32 ones and against the checkpoint.

Features and masks come from its graphs with every result rounded (:mod:`mmms_deploy.export.half.rounded`), closed loop.
Disks come from the unchanged part of the click graph that draws them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from mmms_deploy.bundle import Bundle, GateCheck, Manifest, Precision, Rate
from mmms_deploy.bundle.contract import ClickMemory
from mmms_deploy.bundle.names import CLICK, CLICK_LIST, FIRST_CLICK, LABELS, MAPS, MAPS_NEXT
from mmms_deploy.engines.onnxruntime.cpu import OnnxRuntimeCpu, import_onnxruntime
from mmms_deploy.engines.protocol import Value
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import AnswerError, GateError
from mmms_deploy.export.comparison import Worst
from mmms_deploy.export.cut import StageModel
from mmms_deploy.export.gate import Golden
from mmms_deploy.export.half.precision import REDUCED, Advice, other_precisions
from mmms_deploy.imaging.coordinates import to_network
from mmms_deploy.replay.verification import ClickCheck, replay
from mmms_deploy.session.result import ClickResult

Array = npt.NDArray[Any]
Features = Mapping[str, tuple[str, Array]]
"""For each feature's name, the stage that computed it and its float32 numbers."""

DISTANT_CLICKS = 64
"""Number of clicks at random places between pixels, for the disks."""


class FeatureRecorder(OnnxRuntimeCpu):
    """ONNX Runtime on a bundle's float32 graphs; keeps the features of every image that it ran on.

    Args:
        bundle: The bundle.
        names: Names of the features to keep.

    Attributes:
        features: One entry per image, in order.
    """

    def __init__(self, bundle: Bundle, names: Collection[str]) -> None:
        super().__init__(bundle, Precision.FP32)
        self._names = frozenset(names)
        self._first = bundle.manifest.stages[0].name
        self._clicks = {stage.name for stage in bundle.manifest.stages if stage.rate is Rate.CLICK}
        self.features: list[dict[str, tuple[str, Array]]] = []

    def execute(self, stage: str, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run a stage, and keep its features unless it is the click stage."""
        outputs = super().execute(stage, inputs)
        if stage == self._first:
            self.features.append({})
        if stage not in self._clicks:
            kept = {name: (stage, _copied(value)) for name, value in outputs.items() if name in self._names}
            self.features[-1].update(kept)
        return outputs

    def __enter__(self) -> FeatureRecorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _copied(value: Any) -> Array:
    return np.array(value.numpy(), copy=True)


def compare_rounded(
    bundle: Bundle, golden: Golden, float32: Sequence[Features], precision: Precision, names: Collection[str]
) -> list[GateCheck]:
    """Click through a reduced precision's graphs, with every result rounded, and compare.

    Args:
        bundle: A bundle whose float32 graphs are the rounding ones.
        golden: The torch reference's answers.
        float32: The features that the float32 graphs computed, by image.
        precision: The reduced precision.
        names: Names of the features.

    Returns:
        What was measured.

    Raises:
        GateError: A feature or a mask differs too much, or is not finite.
    """
    limits, advice = REDUCED[precision], other_precisions(precision)
    features = Worst(f"{precision} against fp32", "largest 1 - cosine of a feature", limits.feature, *advice)
    name = f"{precision} against torch, every result rounded, closed loop"
    masks = Worst(name, "largest 1 - IoU of the mask on certain pixels", limits.mask, *advice)
    last = Worst(name, "mean 1 - IoU after the last click", limits.last, *advice)
    ends: dict[int, float] = {}

    def compare(check: ClickCheck, result: ClickResult) -> None:
        image = golden.names[check.case]
        if check.click == 0:
            _see_features(features, recorder.features[check.case], float32[check.case], image, advice)
        where = f"stage click, tensor prob, image {image}, click {check.click + 1}"
        masks.see(1.0 - check.iou, f"{where} ({check.certain:.1%} of its pixels certain)")
        ends[check.case] = 1.0 - check.iou

    with FeatureRecorder(bundle, names) as recorder:
        try:
            replay(bundle, EngineRequest(precision=Precision.FP32), engine=recorder, on_result=compare)
        except AnswerError as error:
            case = len(recorder.features) - 1
            image = golden.names[case]
            # A feature that is not finite says where it began.
            _see_features(features, recorder.features[case], float32[case], image, advice)
            raise _not_finite(name, f"stage click, tensor prob, image {image}", advice) from error
    last.see(float(np.mean(list(ends.values()))), f"stage click, tensor prob, mean of {len(ends)} images")
    last.samples = len(ends)
    return [features.check(), masks.check(), last.check()]


def _see_features(worst: Worst, found: Features, expected: Features, image: str, advice: Advice) -> None:
    if found.keys() != expected.keys():
        raise GateError(
            f"{worst.name}: the features of image {image} are {', '.join(found)}",
            expected=", ".join(expected),
            **advice._asdict(),
        )
    for name, (stage, values) in found.items():
        where = f"stage {stage}, tensor {name}, image {image}"
        if not np.isfinite(values).all():
            raise _not_finite(worst.name, where, advice)
        worst.see(1.0 - cosine(values, expected[name][1]), where)


def _not_finite(name: str, where: str, advice: Advice) -> GateError:
    given = f"{name}: numbers that are infinite or NaN at {where}"
    return GateError(given, expected="finite numbers", **advice._asdict())


def cosine(a: Array, b: Array) -> float:
    """Return the cosine of the angle between two arrays of one shape; 1 when both are zero."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    if scale == 0.0:
        return 1.0 if not x.any() and not y.any() else 0.0
    return float(x @ y) / scale


def compare_native(bundle: Bundle, golden: Golden, precision: Precision) -> list[GateCheck]:
    """Click through a session that executes a reduced precision's graphs, as ``mmms-verify`` does.

    Args:
        bundle: The bundle.
        golden: The torch reference's answers.
        precision: FP16; ONNX Runtime's CPU provider has no bfloat16.

    Returns:
        What was measured.

    Raises:
        GateError: A mask differs too much.
    """
    name = f"session in {precision} against torch, closed loop"
    measure = "largest 1 - IoU of the mask on certain pixels"
    masks = Worst(name, measure, REDUCED[precision].mask, *other_precisions(precision))

    def compare(check: ClickCheck, result: ClickResult) -> None:
        where = f"stage click, tensor prob, image {golden.names[check.case]}, click {check.click + 1}"
        masks.see(1.0 - check.iou, f"{where} ({check.certain:.1%} of its pixels certain)")

    request = EngineRequest(engine="onnxruntime", precision=precision, strict=True)
    replay(bundle, request, on_result=compare)
    return [masks.check()]


def compare_disks(
    half: StageModel, float32: StageModel, manifest: Manifest, golden: Golden, precision: Precision
) -> GateCheck:
    """Draw disks with a reduced precision's click graph and with the float32 one, and compare bit for bit.

    Clicks are the golden ones, the image's corners and edges and places just inside of them, and places between pixels:
    each as a first click, and all of them one after the other.

    Args:
        half: The click stage in the reduced precision.
        float32: The click stage in float32.
        manifest: The bundle's manifest.
        golden: Its golden clicks.
        precision: The reduced precision.

    Returns:
        What was measured.

    Raises:
        GateError: A pixel differs.
    """
    worst = Worst(f"disks in {precision} against fp32", "pixels that differ", 0.0, *other_precisions(precision))
    labelled = manifest.clicks.memory is ClickMemory.LABELS
    name = LABELS if labelled else MAPS
    start = next(link.start for link in manifest.state if link.input == name)
    ours, theirs = (_Disks(stage, name, None if labelled else MAPS_NEXT) for stage in (half, float32))
    blank = np.full((1, 1 if labelled else 2, *manifest.size), start, dtype=np.float32)
    sums = [blank, blank]
    for number, (x, y) in enumerate(_places(manifest, golden)):
        click = np.array([[x, y, 1.0 - number % 2, 1.0]], dtype=np.float32)
        sums = [draw(maps, click) for draw, maps in zip((ours, theirs), sums, strict=True)]
        where = f"stage click, tensor {LABELS if labelled else MAPS_NEXT}, click at ({x:g}, {y:g}) in network pixels"
        worst.see(float((ours(blank, click) != theirs(blank, click)).sum()), where)
        worst.see(float((sums[0] != sums[1]).sum()), f"{where}, after {number} others")
    return worst.check()


def compare_listed(
    half: StageModel, float32: StageModel, manifest: Manifest, golden: Golden, precision: Precision
) -> list[GateCheck]:
    """Compare what a stage computes of clicks alone with what the float32 one does, bit for bit.

    Of a first click that is its disk, and of a list of all clicks the two decay maps. Places are those of
    :func:`compare_disks`; a list holds as many of them as it has rows, by turns positive and negative.

    Args:
        half: The stage in the reduced precision.
        float32: The stage in float32.
        manifest: The bundle's manifest.
        golden: Its golden clicks.
        precision: The reduced precision.

    Returns:
        What was measured; nothing for a stage that computes nothing of clicks alone.

    Raises:
        GateError: A pixel differs.
    """
    rows, columns = manifest.clicks.answer_size(manifest.size)
    pixels = {FIRST_CLICK: math.prod(manifest.size), CLICK_LIST: 2 * rows * columns}
    what = {FIRST_CLICK: "the first click's disk", CLICK_LIST: "decay maps"}
    places = [(x, y, 1.0 - number % 2, 1.0) for number, (x, y) in enumerate(_places(manifest, golden))]
    checks = []
    for name in (name for name in what if name in half.inputs):
        ours, theirs = (_OfClicks.of(stage, name, pixels[name]) for stage in (half, float32))
        if ours is None or theirs is None:
            continue
        worst = Worst(
            f"{what[name]} in {precision} against fp32", "pixels that differ", 0.0, *other_precisions(precision)
        )
        length = half.rows or 1
        for start in range(0, len(places), length):
            listed = np.zeros((1, length, 4), dtype=np.float32)
            part = places[start : start + length]
            listed[0, : len(part)] = part
            given = listed if name == CLICK_LIST else listed[:, 0]
            where = f"stage {half.name}, clicks from ({part[0][0]:g}, {part[0][1]:g}) on, in network pixels"
            worst.see(float((ours(given) != theirs(given)).sum()), where)
        checks.append(worst.check())
    return checks


class _OfClicks:
    """The part of a stage that depends on clicks alone.

    Args:
        stage: The stage.
        name: Its input that takes clicks.
        value: What the part computes.
    """

    def __init__(self, stage: StageModel, name: str, value: ir.Value) -> None:
        self._name, self._value = name, str(value.name)
        given = [value for value in stage.model.graph.inputs if value.name == name]
        self._session = _session_of(stage, given, [value])

    @classmethod
    def of(cls, stage: StageModel, name: str, pixels: int) -> _OfClicks | None:
        """Return the part up to the first value with so many pixels that depends on one input and on no other.

        Of a first click it is one that says which pixels are inside.
        """
        reads = _reads(stage.model.graph)
        for node in stage.model.graph:
            value = node.outputs[0]
            fits = value.shape is not None and math.prod(value.shape.numpy()) == pixels
            if fits and reads[value] == {name} and (name == CLICK_LIST or value.dtype is ir.DataType.BOOL):
                return cls(stage, name, value)
        return None

    def __call__(self, clicks: Array) -> Array:
        (found,) = self._session.run([self._value], {self._name: clicks})
        return np.asarray(found, dtype=np.float32)


def _session_of(stage: StageModel, given: Sequence[ir.Value], wanted: Sequence[ir.Value]) -> Any:
    """Return ONNX Runtime's session of a part of a stage's graph."""
    ort, graph = import_onnxruntime(), stage.model.graph
    part = ir.convenience.extract(graph, given, wanted)
    part.opset_imports.update(graph.opset_imports)
    proto = ir.to_proto(ir.Model(part, ir_version=stage.model.ir_version))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _reads(graph: ir.Graph) -> dict[ir.Value, set[str]]:
    """Return the graph's inputs that each value depends on, by name."""
    reads: dict[ir.Value, set[str]] = {value: {str(value.name)} for value in graph.inputs}
    for node in graph:
        found = set[str]().union(*(reads.get(value, set()) for value in node.inputs if value is not None))
        reads.update(dict.fromkeys(node.outputs, found))
    return reads


class _Disks:
    """The part of a click graph that adds a click to the disk maps, or draws it into the labels.

    Args:
        stage: The click stage.
        state: The input that it draws into.
        drawn: The output with the click in it; None where the network's answer follows, so that it is a value inside
            of the graph: the first that depends on the state and on the click, and on nothing else.
    """

    def __init__(self, stage: StageModel, state: str, drawn: str | None) -> None:
        graph = stage.model.graph
        given = [value for value in graph.inputs if value.name in (state, CLICK)]
        wanted = [value for value in graph.outputs if value.name == drawn] if drawn else [_first_of(graph, given)]
        self._session = _session_of(stage, given, wanted)
        self._state, self._drawn = state, str(wanted[0].name)
        (maps,) = (value for value in given if value.name == state)
        if maps.dtype is None:
            raise ValueError(f"{state} has no type")
        self._dtype = maps.dtype.numpy()

    def __call__(self, maps: Array, click: Array) -> Array:
        (drawn,) = self._session.run([self._drawn], {self._state: maps.astype(self._dtype), CLICK: click})
        return np.asarray(drawn, dtype=np.float32)


def _first_of(graph: ir.Graph, given: Sequence[ir.Value]) -> ir.Value:
    """Return the first value that depends on all of the given inputs; it depends on no other input."""
    reads, wanted = _reads(graph), {str(value.name) for value in given}
    for node in graph:
        if reads[node.outputs[0]] == wanted:
            return node.outputs[0]
    raise ValueError(f"no value depends on {', '.join(sorted(wanted))} alone")


def _places(manifest: Manifest, golden: Golden) -> Iterator[tuple[float, float]]:
    height, width = manifest.size
    rule = manifest.clicks.coordinates
    for case in golden.cases:
        size = (case.image.shape[0], case.image.shape[1])
        for x, y, _ in case.clicks.tolist():
            yield to_network(x, y, image=size, network=manifest.size, rule=rule)
    yield from itertools.product(*([-0.5, 0.0, 0.5, n - 1.0, n - 0.5000001, n / 2] for n in (width, height)))
    places = np.random.default_rng(0).uniform(-0.5, (width - 0.5, height - 0.5), (DISTANT_CLICKS, 2))
    yield from ((x, y) for x, y in places.tolist())
