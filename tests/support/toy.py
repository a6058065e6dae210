"""Toy bundles with the full topology: a real ONNX graph a stage, resident features, a recurrent click cell.

The networks draw what can be checked by hand. ``echo``: the probability is the disk of the newest click alone.
Otherwise: positive disks so far, minus negative ones, plus a quarter of the previous mask and half of the mean
brightness, so that it depends on the image, on the modality, on the state and on the click.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from scipy.ndimage import binary_dilation

from mmms_deploy.bundle import (
    GOLDEN_NAME,
    SCHEMA,
    Bundle,
    BundleWriter,
    Manifest,
    Precision,
    Provenance,
    Rate,
    Role,
    Stage,
    StageGraph,
    StateLink,
    TensorSpec,
    reader,
)
from mmms_deploy.bundle.contract import ClickContract, ClickMemory, Coordinates, ImageSpec, ModalitySpec, ResizeRule
from mmms_deploy.bundle.protocol import EvaluationProtocol
from mmms_deploy.imaging.resize import resize
from mmms_deploy.replay.golden import GoldenCase, save_golden

TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "uint8": TensorProto.UINT8,
}


@dataclass
class Graph:
    """A small ONNX graph in the making."""

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, array: object, dtype: str = "float32") -> str:
        name = f"const{len(self.constants)}"
        kind = helper.tensor_dtype_to_np_dtype(TYPES[dtype]) if dtype in TYPES else dtype
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype=kind), name))
        return name

    def node(self, op: str, *inputs: str, out: str | None = None, **attributes: object) -> str:
        out = out or f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [out], name=f"node{len(self.nodes)}", **attributes))
        return out

    def save(self, path: Path, stage: str) -> StageGraph:
        def infos(specs: Sequence[TensorSpec]) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(s.name, TYPES[s.dtype], s.shape) for s in specs]

        graph = helper.make_graph(self.nodes, stage, infos(self.inputs), infos(self.outputs), self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)
        return StageGraph(file=path.name, inputs=tuple(self.inputs), outputs=tuple(self.outputs))


def spec(name: str, role: Role, shape: tuple[int, ...], dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, role=role, dtype=dtype, shape=shape)


def _disk(graph: Graph, size: tuple[int, int], radius: float, click: str = "click") -> str:
    """The newest click's disk, (1, 1, H, W), zero when there is no click."""
    rows = graph.constant(np.arange(size[0], dtype=np.float32).reshape(1, 1, -1, 1))
    columns = graph.constant(np.arange(size[1], dtype=np.float32).reshape(1, 1, 1, -1))
    part = [graph.node("Gather", click, graph.constant(i, "int64"), axis=1) for i in range(4)]
    dx = graph.node("Sub", columns, part[0])
    dy = graph.node("Sub", rows, part[1])
    square = graph.node("Add", graph.node("Mul", dx, dx), graph.node("Mul", dy, dy))
    inside = graph.node("LessOrEqual", square, graph.constant(radius**2))
    return graph.node("Mul", graph.node("Cast", inside, to=TensorProto.FLOAT), part[3])


def image_graph(size: tuple[int, int]) -> Graph:
    """rgb -> f1 (1, 1, 1, 1), the mean brightness; f2 (1, 3, H/8, W/8), pooled."""
    h, w = size
    graph = Graph(
        [spec("rgb", Role.IMAGE, (1, 3, h, w))],
        [spec("f1", Role.FEATURE, (1, 1, 1, 1)), spec("f2", Role.FEATURE, (1, 3, h // 8, w // 8))],
    )
    pooled = graph.node("AveragePool", "rgb", out="f2", kernel_shape=[8, 8], strides=[8, 8])
    graph.node("ReduceMean", pooled, graph.constant([1, 2, 3], "int64"), out="f1", keepdims=1)
    return graph


def modality_graph(size: tuple[int, int], modalities: Sequence[ModalitySpec]) -> Graph:
    """f1 and the modalities -> fused (1, 1, 1, 1), the sum of the means."""
    h, w = size
    graph = Graph(
        [
            spec("f1", Role.FEATURE, (1, 1, 1, 1)),
            *(spec(m.name, Role.MODALITY, (1, m.channels, h, w)) for m in modalities),
        ],
        [spec("fused", Role.FEATURE, (1, 1, 1, 1))],
    )
    axes = graph.constant([1, 2, 3], "int64")
    partial = len(modalities) > 1 and any(m.optional for m in modalities)
    if partial:
        graph.inputs.append(spec("present", Role.MODALITY, (1, len(modalities))))
    total = "f1"
    for index, modality in enumerate(modalities):
        term = graph.node("ReduceMean", modality.name, axes, keepdims=1)
        if partial:
            flag = graph.node("Gather", "present", graph.constant(index, "int64"), axis=1)
            term = graph.node("Mul", term, flag)
        total = graph.node("Add", total, term)
    graph.node("Identity", total, out="fused")
    return graph


def click_graph(
    size: tuple[int, int],
    feature: str,
    *,
    radius: float,
    threshold: float,
    echo: bool,
    gain: float | None = None,
    backbone: tuple[int, int, int] | None = None,
) -> Graph:
    """(feature, maps, prev, click) -> (maps_next, prob, mask); with a backbone, its four maps are the feature."""
    h, w = size
    features = {feature: (1, 1, 1)} if backbone is None else {f"backbone_{n}": backbone for n in range(1, 5)}
    graph = Graph(
        [
            *(spec(name, Role.FEATURE, (1, *shape)) for name, shape in features.items()),
            spec("maps", Role.STATE, (1, 2, h, w)),
            spec("prev", Role.STATE, (1, 1, h, w)),
            spec("click", Role.CLICK, (1, 4)),
        ],
        [
            spec("maps_next", Role.STATE, (1, 2, h, w)),
            spec("prob", Role.PROBABILITY, (1, 1, h, w)),
            spec("mask", Role.MASK, (1, 1, h, w), "uint8"),
        ],
    )
    if backbone is not None:
        axes = graph.constant([1, 2, 3], "int64")
        feature = graph.node("Mean", *(graph.node("ReduceMean", name, axes, keepdims=1) for name in features))
    disk = _disk(graph, size, radius)
    positive = graph.node("Gather", "click", graph.constant(2, "int64"), axis=1)
    negative = graph.node("Sub", graph.constant(1.0), positive)
    both = graph.node("Concat", graph.node("Mul", disk, positive), graph.node("Mul", disk, negative), axis=1)
    maps = graph.node("Max", "maps", both, out="maps_next")
    if echo:
        # The feature and the state take part, with no weight, so that the cell has its full border.
        zero = graph.constant(0.0)
        idle = graph.node("Mul", graph.node("Add", feature, "prev"), zero)
        graph.node("Add", disk, idle, out="prob")
    else:
        plus = graph.node("Gather", maps, graph.constant([0], "int64"), axis=1)
        minus = graph.node("Gather", maps, graph.constant([1], "int64"), axis=1)
        drawn = graph.node("Sub", plus, minus)
        bias = graph.node("Mul", feature, graph.constant(0.5))
        memory = graph.node("Mul", "prev", graph.constant(0.25))
        total = graph.node("Add", graph.node("Add", drawn, memory), bias)
        clipped = "prob" if gain is None else None
        answer = graph.node("Clip", total, graph.constant(0.0), graph.constant(1.0), out=clipped)
        if gain is not None:
            graph.node("Mul", answer, graph.constant(gain), out="prob")
    above = graph.node("Greater", "prob", graph.constant(threshold))
    graph.node("Cast", above, out="mask", to=TensorProto.UINT8)
    return graph


REACH = 7
"""Pixels around a click's disk, in rows and in columns, that the toy with labels also answers for."""


def label_graph(size: tuple[int, int], feature: str, *, radius: float, threshold: float) -> Graph:
    """(feature, labels, click) -> (labels_next, prob, mask): labels and what is near to clicks, plus the feature.

    The newest click's disk becomes 4 or 0. Then prob = 0.1 label + feature + 0.4 near a 4 - 0.35 near a 0; near is
    within seven pixels in rows and columns. Labels 1 to 3 move by one towards the mask, or away from it.
    """
    h, w = size
    graph = Graph(
        [
            spec(feature, Role.FEATURE, (1, 1, 1, 1)),
            spec("click_labels", Role.STATE, (1, 1, h, w), "uint8"),
            spec("click", Role.CLICK, (1, 4)),
        ],
        [
            spec("click_labels_next", Role.STATE, (1, 1, h, w), "uint8"),
            spec("prob", Role.PROBABILITY, (1, 1, h, w)),
            spec("mask", Role.MASK, (1, 1, h, w), "uint8"),
        ],
    )

    def number(value: float) -> str:
        return graph.constant(value)

    def near(label: float) -> str:
        there = graph.node("Cast", graph.node("Equal", drawn, number(label)), to=TensorProto.FLOAT)
        side = 2 * REACH + 1
        return graph.node("MaxPool", there, kernel_shape=[side, side], pads=[REACH] * 4, strides=[1, 1])

    old = graph.node("Cast", "click_labels", to=TensorProto.FLOAT)
    inside = graph.node("Greater", _disk(graph, size, radius), number(0.5))
    positive = graph.node("Gather", "click", graph.constant(2, "int64"), axis=1)
    drawn = graph.node("Where", inside, graph.node("Mul", positive, number(4.0)), old)
    known = graph.node("Add", graph.node("Mul", drawn, number(0.1)), feature)
    close = graph.node("Mul", near(4.0), number(0.4))
    away = graph.node("Mul", near(0.0), number(0.35))
    total = graph.node("Sub", graph.node("Add", known, close), away)
    graph.node("Clip", total, number(0.0), number(1.0), out="prob")
    above = graph.node("Greater", "prob", number(threshold))
    graph.node("Cast", above, out="mask", to=TensorProto.UINT8)
    up = graph.node("Min", graph.node("Add", drawn, number(1.0)), number(3.0))
    down = graph.node("Max", graph.node("Sub", drawn, number(1.0)), number(1.0))
    moved = graph.node("Where", above, up, down)
    definite = graph.node("Or", graph.node("Equal", drawn, number(0.0)), graph.node("Equal", drawn, number(4.0)))
    kept = graph.node("Where", definite, drawn, moved)
    graph.node("Cast", kept, out="click_labels_next", to=TensorProto.UINT8)
    return graph


MAPS = (StateLink(input="maps", output="maps_next"), StateLink(input="prev", output="prob"))
LABELS = (StateLink(input="click_labels", output="click_labels_next", start=2),)


def write_toy(
    out: Path,
    *,
    size: tuple[int, int] = (64, 96),
    modalities: tuple[ModalitySpec, ...] = (),
    three_stages: bool = False,
    echo: bool = False,
    radius: float = 5.0,
    coordinates: Coordinates = Coordinates.HALF_PIXEL,
    mask_resize: ResizeRule | None = None,
    previous_resize: ResizeRule | None = None,
    published: EvaluationProtocol | None = None,
    gain: float | None = None,
    precisions: tuple[Precision, ...] = (Precision.FP32,),
    golden: Sequence[GoldenCase] | None = None,
    black_box: bool = False,
    backbone: tuple[int, int, int] | None = None,
    labels: bool = False,
) -> Bundle:
    """Write a toy bundle: two stages without modalities, three with them or on request.

    Modalities that are all optional can be bypassed. A black box has no image stage: its features come from outside.
    With a backbone, it is a black box that takes four maps (d, h, w), as exports name them. A gain multiplies the
    answer, so that it is no probability. With labels, the click stage is the one of :func:`label_graph`.
    """
    threshold = 0.5
    parts = [] if black_box or backbone else [("image", Rate.IMAGE, image_graph(size))]
    feature = "f1"
    if modalities or three_stages:
        parts.append(("modality", Rate.MODALITY, modality_graph(size, modalities)))
        feature = "fused"
    if labels:
        click = label_graph(size, feature, radius=radius, threshold=threshold)
    else:
        click = click_graph(size, feature, radius=radius, threshold=threshold, echo=echo, gain=gain, backbone=backbone)
    parts.append(("click", Rate.CLICK, click))
    detour = {"fused": "f1"} if modalities and all(m.optional for m in modalities) else {}
    with BundleWriter(out) as writer:
        stages = tuple(
            Stage(
                name=name,
                rate=rate,
                graphs={p: graph.save(writer.path(f"{name}.{p}.onnx"), name) for p in precisions},
                bypass=detour if name == "modality" else {},
            )
            for name, rate, graph in parts
        )
        save_golden(writer.path(GOLDEN_NAME), golden or [blank_case(modalities)])
        manifest = Manifest(
            schema=SCHEMA,
            name=out.name,
            size=size,
            image=ImageSpec(mean=(0.0,) * 3, std=(1.0,) * 3),
            modalities=modalities,
            clicks=ClickContract(
                radius=radius,
                threshold=threshold,
                coordinates=coordinates,
                mask_resize=mask_resize or ResizeRule(),
                previous_resize=previous_resize,
                memory=ClickMemory.LABELS if labels else ClickMemory.MAPS,
            ),
            published=published,
            stages=stages,
            state=LABELS if labels else MAPS,
            provenance=random_provenance(),
            gate=(),
        )
        return writer.commit(manifest)


def write_one_stage(out: Path, graph: Graph, precision: Precision) -> Bundle:
    """Write a bundle whose one stage, ``click``, is a graph of any kind, in one precision."""
    toy = write_toy(out.with_name(f"{out.name}-toy")).manifest
    with BundleWriter(out) as writer:
        saved = graph.save(writer.path(f"click.{precision}.onnx"), "click")
        save_golden(writer.path(GOLDEN_NAME), [blank_case()])
        stage = Stage(name="click", rate=Rate.CLICK, graphs={precision: saved})
        return writer.commit(msgspec.structs.replace(toy, name=out.name, stages=(stage,), state=()))


def random_provenance() -> Provenance:
    """Where a toy comes from: nowhere."""
    return Provenance(
        checkpoint=None,
        checkpoint_sha256=None,
        random_seed=0,
        description={},
        parameters=0,
        opset=21,
        packages={},
        created="2026-01-01T00:00:00Z",
    )


def taken_as_it_is(bundle: Bundle) -> Bundle:
    """Let an open bundle's files count as they are now, as if they had been so when it was opened."""
    bundle._seen = {name: reader._seen(bundle.path.joinpath(name).stat()) for name in bundle._seen}
    return bundle


def blank_case(modalities: Sequence[ModalitySpec] = ()) -> GoldenCase:
    """A black image with one click, whose reference is the disk at network resolution."""
    height, width = 16, 24
    masks = np.zeros((1, height, width), dtype=np.bool_)
    return GoldenCase(
        image=np.zeros((height, width, 3), dtype=np.uint8),
        modalities={m.name: np.zeros((height, width, m.channels), dtype=np.float32) for m in modalities},
        clicks=np.array([[12.0, 8.0, 1.0]], dtype=np.float32),
        masks=masks,
        certain=np.zeros_like(masks),
    )


class Reference:
    """The ``paint`` network in NumPy, to compare a session with."""

    def __init__(self, manifest: Manifest, feature: float, image_size: tuple[int, int]) -> None:
        self.manifest = manifest
        self.image_size = image_size
        self.feature = np.float32(feature)
        self.maps = np.zeros((2, *manifest.size), dtype=np.float32)
        self.prob = self.prev = np.zeros(manifest.size, dtype=np.float32)

    def click(self, column: float, row: float, positive: bool) -> np.ndarray:
        """Take a click in network pixels and return the probability (H, W)."""
        height, width = self.manifest.size
        rows, columns = np.mgrid[:height, :width].astype(np.float32)
        square = (columns - np.float32(column)) ** 2 + (rows - np.float32(row)) ** 2
        index = 0 if positive else 1
        self.maps[index] = np.maximum(self.maps[index], square <= self.manifest.clicks.radius**2)
        total = self.maps[0] - self.maps[1] + 0.25 * self.prev + 0.5 * self.feature
        self.prob = self.prev = np.clip(total, 0, 1).astype(np.float32)
        rule = self.manifest.clicks
        if rule.previous_resize is not None:
            at_image = resize(self.prob, self.image_size, rule.mask_resize)
            self.prev = resize(at_image, self.manifest.size, rule.previous_resize)
        return self.prob


class LabelReference:
    """The toy with labels in NumPy.

    Args:
        size: (H, W) of the network.
        feature: The image's feature.
        radius: Radius of a click's disk.
    """

    def __init__(self, size: tuple[int, int], feature: float, radius: float = 5.0) -> None:
        self.radius, self.feature = radius, np.float32(feature)
        self.labels = np.full(size, 2, dtype=np.uint8)

    def click(self, column: float, row: float, positive: bool) -> np.ndarray:
        """Take a click in network pixels and return the probability (H, W)."""
        rows, columns = np.mgrid[: self.labels.shape[0], : self.labels.shape[1]].astype(np.float32)
        square = (columns - np.float32(column)) ** 2 + (rows - np.float32(row)) ** 2
        drawn = np.where(square <= self.radius**2, np.uint8(4 if positive else 0), self.labels)
        near = [binary_dilation(drawn == label, np.ones((2 * REACH + 1,) * 2)) for label in (4, 0)]
        total = np.float32(0.1) * drawn + self.feature + np.float32(0.4) * near[0] - np.float32(0.35) * near[1]
        answer = np.clip(total.astype(np.float32), 0, 1)
        self.labels = drawn.copy()
        for inside, before, after in ((True, 2, 3), (True, 1, 2), (False, 2, 1), (False, 3, 2)):
            self.labels[((answer > 0.5) == inside) & (drawn == before)] = after
        return answer


def misdescribed(bundle: Bundle, side: str, **changes: object) -> Bundle:
    """The bundle, with one tensor of its click stage described wrongly."""
    stages = list(bundle.manifest.stages)
    graph = stages[-1].graphs[Precision.FP32]
    tensors = list(getattr(graph, side))
    tensors[0] = msgspec.structs.replace(tensors[0], **changes)
    graph = msgspec.structs.replace(graph, **{side: tuple(tensors)})
    stages[-1] = msgspec.structs.replace(stages[-1], graphs={Precision.FP32: graph})
    copy = Bundle(bundle.path)
    copy.manifest = msgspec.structs.replace(bundle.manifest, stages=tuple(stages))
    return copy
