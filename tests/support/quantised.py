"""Small networks to quantise: one of every kind of node, and a bundle of one that a layer in 8 bits would spoil."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from mmms_deploy import Session
from mmms_deploy.bundle import (
    GOLDEN_NAME,
    SCHEMA,
    Bundle,
    BundleWriter,
    ClickContract,
    ImageSpec,
    Manifest,
    Precision,
    Rate,
    Role,
    Stage,
)
from mmms_deploy.bundle.names import of_object, without_object
from mmms_deploy.engines.onnxruntime.cpu import import_onnxruntime
from mmms_deploy.export.cut import StageModel
from mmms_deploy.export.gate import Golden
from mmms_deploy.export.graphs import write_stages
from mmms_deploy.export.int8.export import add_int8
from mmms_deploy.export.int8.precision import Int8Options
from mmms_deploy.progress import OnProgress
from mmms_deploy.replay.golden import GoldenCase, save_golden
from tests.support.toy import MAPS, Graph, _disk, blank_case, random_provenance, spec

SIDE = 8
CALLS = 6
LAYERS = {"conv": "conv.weight", "linear": "linear.weight", "second": "second.weight"}
"""The nodes that are layers, and their weights."""
ATTENTION = {"scores", "mixed"}
"""The two products of the attention."""
ENLARGING = "enlarge"
EXACT = {"away", "square", "inside", "disk", "wide", "pixels"}
"""What comes before the first layer."""


@cache
def _proto() -> bytes:
    rng = np.random.default_rng(0)
    constants: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def constant(name: str, array: npt.NDArray[np.generic]) -> str:
        constants.append(numpy_helper.from_array(array, name))
        return name

    def node(op: str, name: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, list(inputs), [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def weights(name: str, *shape: int) -> str:
        return constant(name, rng.normal(0, 0.4, shape).astype(np.float32))

    columns = constant("columns", np.arange(SIDE, dtype=np.float32).reshape(1, 1, 1, SIDE))
    away = node("Sub", "away", columns, "x")
    inside = node("LessOrEqual", "inside", node("Mul", "square", away, away), constant("four", np.float32([4])))
    disk = node("Cast", "disk", inside, to=TensorProto.FLOAT)
    wide = node("Expand", "wide", disk, constant("shape", np.int64([1, 1, SIDE, SIDE])))
    pixels = node("Concat", "pixels", "image", wide, axis=1)
    seen = node("Relu", "relu", node("Conv", "conv", pixels, weights("conv.weight", 8, 4, 3, 3), pads=[1] * 4))
    rows = node("Reshape", "rows", seen, constant("rows_shape", np.int64([1, 8, SIDE * SIDE])))
    tokens = node("Transpose", "tokens", rows, perm=[0, 2, 1])
    scale = np.ones(8, np.float32)
    scale[3] = 30  # one channel is much larger than the others, as in a transformer
    norm = constant("norm.weight", scale), constant("norm.bias", np.zeros(8, np.float32))
    normed = node("LayerNormalization", "norm", tokens, *norm)
    hidden = node("MatMul", "linear", normed, weights("linear.weight", 8, 8))
    keys = node("Transpose", "keys", hidden, perm=[0, 2, 1])
    scores = node("MatMul", "scores", hidden, keys)
    shares = node("Softmax", "shares", node("Mul", "scaled", scores, constant("little", np.float32([0.001]))), axis=-1)
    mixed = node("MatMul", "mixed", shares, hidden)
    more = node("MatMul", "second", mixed, weights("second.weight", 8, 2))
    enlarging = np.repeat(np.eye(SIDE * SIDE, dtype=np.float32), 2, axis=0)
    large = node("MatMul", "enlarge", constant("enlarging", enlarging), more)
    nodes.append(helper.make_node("Identity", [large], ["answer"], name="answer"))
    graph = helper.make_graph(
        nodes,
        "small",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE]),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1, 1]),
        ],
        [
            helper.make_tensor_value_info("answer", TensorProto.FLOAT, [1, 2 * SIDE * SIDE, 2]),
            helper.make_tensor_value_info("disk_out", TensorProto.FLOAT, [1, 1, 1, SIDE]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True).SerializeToString()


def small_network() -> ir.Model:
    """A convolution, a norm with one large channel, two linear layers, an attention, a matrix that enlarges."""
    return ir.serde.deserialize_model(onnx.load_from_string(_proto()))


def calls() -> list[dict[str, npt.NDArray[np.float32]]]:
    """What it is calibrated on."""
    rng = np.random.default_rng(1)
    return [
        {
            "image": rng.normal(0, 1, (1, 3, SIDE, SIDE)).astype(np.float32),
            "x": np.full((1, 1, 1, 1), rng.uniform(0, SIDE), np.float32),
        }
        for _ in range(CALLS)
    ]


def run(model: ir.Model, inputs: dict[str, npt.NDArray[np.float32]]) -> dict[str, npt.NDArray[np.float32]]:
    """Compute a model with ONNX Runtime."""
    ort = import_onnxruntime()
    proto = ir.serde.serialize_model(model)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found = [output.name for output in session.get_outputs()]
    return dict(zip(found, session.run(found, inputs), strict=True))


# --- a bundle ---------------------------------------------------------------------------------------------------------

SIZE = (64, 96)
RADIUS = 4.0
PATCH = 8
COSTLY = "mix.weight"
"""The weights of the layer whose input has one channel that is 3000 times as large as the others, and unused."""
CLICK_LAYERS = ("dots.weight", COSTLY, "second.weight", "answer.weight")
_CLICKS = np.array([[22, 12, 1], [42, 27, 1], [22, 12, 0], [12, 32, 1]], dtype=np.float32)


def picture(number: int) -> npt.NDArray[np.uint8]:
    """Return a dark picture, (40, 60, 3), with a bright corner."""
    image = np.full((40, 60, 3), 40 + number, np.uint8)
    image[: 12 + 4 * number, 40 - 4 * number :] = 200
    return image


def _weight(graph: Graph, name: str, array: npt.NDArray[np.float32]) -> str:
    if name not in {constant.name for constant in graph.constants}:
        graph.constants.append(numpy_helper.from_array(array.astype(np.float32), name))
    return name


def _image_graph() -> Graph:
    """rgb -> f1 (1, 4, H/8, W/8): the mean brightness of patches in channel 2, 3000 times that in channel 3."""
    h, w = SIZE
    graph = Graph(
        [spec("rgb", Role.IMAGE, (1, 3, h, w))], [spec("f1", Role.FEATURE, (1, 4, h // PATCH, w // PATCH))]
    )
    patch = np.zeros((4, 3, PATCH, PATCH))
    patch[2] = 1 / (3 * PATCH**2)
    seen = graph.node("Conv", "rgb", _weight(graph, "patch.weight", patch), strides=[PATCH, PATCH])
    blend = np.zeros((4, 4, 1, 1))
    blend[2, 2], blend[3, 2] = 1, 3000
    graph.node("Conv", seen, _weight(graph, "blend.weight", blend), out="f1")
    return graph


def _click_graph(objects: Sequence[int] = ()) -> Graph:
    """(f1, maps, prev, click) -> (maps_next, prob, mask): bright patches and those of positive clicks."""
    h, w = SIZE
    graph = Graph([spec("f1", Role.FEATURE, (1, 4, h // PATCH, w // PATCH))], [])
    for number in objects or (0,):
        _answer(graph, lambda name, number=number: of_object(name, number) if number else name)
    return graph


def _answer(graph: Graph, named: Callable[[str], str]) -> None:
    h, w = SIZE
    border = [
        spec("maps", Role.STATE, (1, 2, h, w)),
        spec("prev", Role.STATE, (1, 1, h, w)),
        spec("click", Role.CLICK, (1, 4)),
    ]
    answers = [
        spec("maps_next", Role.STATE, (1, 2, h, w)),
        spec("prob", Role.PROBABILITY, (1, 1, h, w)),
        spec("mask", Role.MASK, (1, 1, h, w), "uint8"),
    ]
    for given, made in ((border, graph.inputs), (answers, graph.outputs)):
        made.extend(msgspec.structs.replace(one, name=named(one.name)) for one in given)
    disk = _disk(graph, SIZE, RADIUS, named("click"))
    positive = graph.node("Gather", named("click"), graph.constant(2, "int64"), axis=1)
    negative = graph.node("Sub", graph.constant(1.0), positive)
    both = graph.node("Concat", graph.node("Mul", disk, positive), graph.node("Mul", disk, negative), axis=1)
    maps = graph.node("Max", named("maps"), both, out=named("maps_next"))
    drawn = graph.node("Concat", maps, named("prev"), axis=1)
    dots = np.zeros((4, 3, PATCH, PATCH))
    dots[0, 0] = dots[1, 1] = 1 / PATCH**2
    dots[0, 2] = 0.01 / PATCH**2
    seen = graph.node("Conv", drawn, _weight(graph, "dots.weight", dots), strides=[PATCH, PATCH])
    hidden = graph.node("Relu", graph.node("Add", seen, "f1"))
    mix = np.diag([1.0, 1.0, 1.0, 0.0]).reshape(4, 4, 1, 1)
    mixed = graph.node("Relu", graph.node("Conv", hidden, _weight(graph, COSTLY, mix)))
    second = np.diag([2.0, 1.0, 1.0, 1.0]).reshape(4, 4, 1, 1)
    more = graph.node("Relu", graph.node("Conv", mixed, _weight(graph, "second.weight", second)))
    answer = np.array([20.0, -40.0, 10.0, 0.0]).reshape(1, 4, 1, 1)
    bias = _weight(graph, "answer.bias", np.array([-5.0]))
    small = graph.node("Conv", more, _weight(graph, "answer.weight", answer), bias)
    sizes = graph.constant([1, 1, h, w], "int64")
    large = graph.node(
        "Resize", small, "", "", sizes, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )
    graph.node("Sigmoid", large, out=named("prob"))
    above = graph.node("Greater", named("prob"), graph.constant(0.5))
    graph.node("Cast", above, out=named("mask"), to=TensorProto.UINT8)


class _Roles:
    """What knows the roles of the tensors of a bundle."""

    def __init__(self, graphs: Sequence[Graph]) -> None:
        self._roles = {without_object(one.name): one.role for graph in graphs for one in (*graph.inputs, *graph.outputs)}

    def role(self, name: str) -> Role:
        return self._roles[name]


def _golden(bundle: Bundle) -> list[GoldenCase]:
    """What the float32 graphs answer."""
    cases = []
    with Session(bundle, engine="onnxruntime", threads=1) as session:
        for number in range(2):
            session.set_image(picture(number))
            answers = [session.click(x, y, positive > 0.5) for x, y, positive in _CLICKS.tolist()]
            cases.append(
                GoldenCase(
                    image=picture(number),
                    clicks=_CLICKS,
                    masks=np.stack([answer.mask for answer in answers]),
                    certain=np.stack([np.abs(answer.probability - 0.5) > 1e-3 for answer in answers]),
                )
            )
    return cases


def write_quantised(
    out: Path,
    options: Int8Options | None,
    *,
    batch: int | None = None,
    on_progress: OnProgress | None = None,
) -> Bundle:
    """Write a bundle of small graphs as an export does, in float32 and in 8 bits.

    Args:
        out: Its folder.
        options: How it is quantised; None leaves it in float32.
        batch: How many objects a further click stage answers for.
        on_progress: Receives the steps of the quantisation.
    """
    parts: list[tuple[Rate, int | None, Graph]] = [(Rate.IMAGE, None, _image_graph()), (Rate.CLICK, None, _click_graph())]
    if batch is not None:
        parts.append((Rate.CLICK, batch, _click_graph(range(1, batch + 1))))
    with BundleWriter(out) as writer:
        stages = []
        for rate, count, graph in parts:
            file = out.parent / f"{out.name}.onnx"
            graph.save(file, rate.name)
            model = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(onnx.load(file), strict_mode=True))
            file.unlink()
            inputs, outputs = (tuple(one.name for one in side) for side in (graph.inputs, graph.outputs))
            stages.append(StageModel(rate, model, inputs, outputs, ("f1",) if rate is Rate.IMAGE else (), batch=count))
        roles = _Roles([graph for _, _, graph in parts])
        graphs = write_stages(writer, roles, stages, Precision.FP32)
        manifest = Manifest(
            schema=SCHEMA,
            name=out.name,
            size=SIZE,
            image=ImageSpec(scale=1 / 255, mean=(0.0,) * 3, std=(1.0,) * 3),
            modalities=(),
            clicks=ClickContract(radius=RADIUS),
            stages=tuple(
                Stage(
                    name=stage.name,
                    rate=stage.rate,
                    graphs={Precision.FP32: graph},
                    batch=msgspec.UNSET if stage.batch is None else stage.batch,
                )
                for stage, graph in zip(stages, graphs, strict=True)
            ),
            state=MAPS,
            provenance=random_provenance(),
            gate=(),
        )
        save_golden(writer.path(GOLDEN_NAME), [blank_case()])
        golden = Golden(["first", "second"], _golden(writer.seal(manifest)), [], [])
        save_golden(writer.path(GOLDEN_NAME), golden.cases)
        if options is not None:
            added = add_int8(writer, manifest, roles, stages, golden, options, on_progress)
            manifest = msgspec.structs.replace(added.manifest, gate=tuple(added.gate))
        return writer.commit(manifest)
