"""A small encoder and decoder as ONNX files, of the shape of SAM 2's: three answers, a list of points, a mask input.

The encoder's feature is the image's brightness, 8 x 8. The decoder raises a bump at every positive point and digs one
at every negative one. Its three answers differ in how much belongs to the object; a second point changes which has the
highest score, and every point counts, padded ones included, as in SAM's decoders.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, GRID, COUNT = 32, 8, 3
DESCRIPTION = f"""\
family = "onnx"
size = [{SIDE}, {SIDE}]

[encoder.features]
embedding = "feature"

[decoder]
points = "coords"
labels = "labels"
masks = "masks"
scores = "scores"
mask_input = "mask_input"
has_mask_input = "has_mask"
most_points = 5
"""


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, array: object, dtype: str = "float32") -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype=dtype), name))
        return name

    def __call__(self, op: str, *inputs: str, out: str | None = None, **attributes: object) -> str:
        out = out or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [out], name=f"n{len(self.nodes)}", **attributes))
        return out

    def save(self, path: Path, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> None:
        graph = helper.make_graph(self.nodes, "graph", inputs, outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
        onnx.save(model, path)


def _value(name: str, *shape: int | str, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, list(shape))


def write_encoder(path: Path, *, channels_last: bool = False) -> Path:
    """Write the encoder."""
    graph = _Graph()
    image = graph("Transpose", "image", perm=[0, 3, 1, 2]) if channels_last else "image"
    gray = graph("ReduceMean", image, axes=[1], keepdims=1)
    step = SIDE // GRID
    graph("AveragePool", gray, out="feature", kernel_shape=[step, step], strides=[step, step])
    shape = (1, SIDE, SIDE, 3) if channels_last else (1, 3, SIDE, SIDE)
    graph.save(path, [_value("image", *shape)], [_value("feature", 1, 1, GRID, GRID)])
    return path


def write_decoder(path: Path, *, mask_input: bool = True, one: bool = False, labels: int = TensorProto.FLOAT) -> Path:
    """Write the decoder.

    Args:
        path: The file.
        mask_input: Whether it takes the previous answer and a flag for it.
        one: Whether it gives one answer and no scores.
        labels: Type of the labels.
    """
    graph = _Graph()
    centres = (np.stack(np.meshgrid(np.arange(GRID), np.arange(GRID)), axis=-1) + 0.5) * (SIDE / GRID)
    grid = graph.constant(centres.reshape(1, 1, GRID * GRID, 2))
    places = graph("Unsqueeze", graph("Add", "coords", graph.constant(0.5)), graph.constant([2], "int64"))
    apart = graph("Sub", places, grid)
    squared = graph("ReduceSum", graph("Mul", apart, apart), graph.constant([3], "int64"), keepdims=0)
    bump = graph("Exp", graph("Div", squared, graph.constant(-60.0)))
    kinds = graph("Cast", "labels", to=TensorProto.FLOAT)
    weight = graph("Sub", graph("Mul", kinds, graph.constant(2.0)), graph.constant(1.0))
    raised = graph("Mul", bump, graph("Unsqueeze", weight, graph.constant([2], "int64")))
    total = graph("ReduceSum", raised, graph.constant([1], "int64"), keepdims=0)
    field = graph("Reshape", total, graph.constant([1, 1, GRID, GRID], "int64"))
    field = graph("Add", graph("Mul", field, graph.constant(8.0)), "embedding")
    inputs = [
        _value("embedding", 1, 1, GRID, GRID),
        _value("coords", "objects", "points", 2),
        _value("labels", "objects", "points", dtype=labels),
    ]
    if mask_input:
        seen = graph("Mul", "mask_input", graph("Mul", "has_mask", graph.constant(0.25)))
        field = graph("Add", field, seen)
        inputs += [_value("mask_input", "objects", 1, GRID, GRID), _value("has_mask", 1)]
    if one:
        graph("Sub", field, graph.constant(2.0), out="masks")
        graph.save(path, inputs, [_value("masks", "a", "b", "c", "d")])
        return path
    offsets = graph.constant(np.array([2.0, 4.0, 1.0]).reshape(1, COUNT, 1, 1))
    graph("Sub", field, offsets, out="masks")
    count = graph("ReduceSum", graph("Add", graph("Mul", weight, graph.constant(0.0)), graph.constant(1.0)), keepdims=0)
    slope = graph("Mul", count, graph.constant([[-0.1, 0.15, 0.01]]))
    graph("Add", graph.constant([[0.9, 0.5, 0.3]]), slope, out="scores")
    graph.save(path, inputs, [_value("masks", "a", "b", "c", "d"), _value("scores", "a", COUNT)])
    return path


def write_pair(folder: Path, *, text: str = DESCRIPTION) -> tuple[Path, Path, Path]:
    """Write encoder, decoder and description, and return their paths."""
    description = folder / "pair.toml"
    description.write_text(text)
    return write_encoder(folder / "encoder.onnx"), write_decoder(folder / "decoder.onnx"), description
