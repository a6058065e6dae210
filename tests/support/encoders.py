"""Small encoders in ONNX files, as other software writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS = {4: 6, 8: 8, 16: 12}
"""Channels of the maps of each stride."""


def _branch(operator: str) -> onnx.GraphProto:
    """A graph inside of a node, which reads a value from outside."""
    node = helper.make_node(operator, ["doubled"], [f"{operator}_of"], name=operator)
    output = helper.make_tensor_value_info(f"{operator}_of", TensorProto.FLOAT, None)
    return helper.make_graph([node], operator, [], [output])


def write_encoder(
    path: Path,
    *,
    size: tuple[int, int] = (64, 96),
    opset: int = 17,
    external: bool = False,
    dynamic: bool = False,
    output_type: int = TensorProto.FLOAT,
) -> Path:
    """Write an encoder of three convolutions with the maps ``fine``, ``middle``, ``coarse`` and an output ``other``.

    Args:
        path: The file.
        size: Height and width of its image.
        opset: Its opset.
        external: Whether its weights lie in a file beside it.
        dynamic: Whether its batch size is symbolic, and looked up when it runs.
        output_type: Element type of the coarse map.
    """
    rng = np.random.default_rng(0)
    nodes, weights, before, inputs = [], [], "image", 3
    for name, channels, step in zip(("fine", "middle", "coarse"), CHANNELS.values(), (4, 2, 2), strict=True):
        weight = rng.normal(size=(channels, inputs, step, step)).astype(np.float32) / step
        weights.append(numpy_helper.from_array(weight, f"{name}.weight"))
        raw = f"{name}_raw"
        nodes.append(helper.make_node("Conv", [before, f"{name}.weight"], [raw], name=name, strides=[step, step]))
        nodes.append(helper.make_node("Tanh", [raw], [name if name != "coarse" else "last"], name=f"{name}_act"))
        before, inputs = name, channels
    nodes += [
        # What exporters write around a batch of unknown size.
        helper.make_node("Shape", ["last"], ["shape"], name="shape"),
        helper.make_node("Reshape", ["last", "shape"], ["reshaped"], name="reshape"),
        helper.make_node("Constant", [], ["two"], name="two", value=numpy_helper.from_array(np.float32(2.0))),
        helper.make_node("Mul", ["reshaped", "two"], ["doubled"], name="double"),
        helper.make_node("Constant", [], ["yes"], name="yes", value=numpy_helper.from_array(np.array(True))),
        helper.make_node(
            "If", ["yes"], ["chosen"], name="if", then_branch=_branch("Neg"), else_branch=_branch("Identity")
        ),
        helper.make_node("Cast", ["chosen"], ["coarse"], name="cast", to=output_type),
        helper.make_node("ReduceMean", ["fine"], ["other"], name="mean", axes=[1]),
    ]
    batch = "batch" if dynamic else 1
    height, width = size
    outputs = [
        helper.make_tensor_value_info(
            name,
            output_type if name == "coarse" else TensorProto.FLOAT,
            [batch, CHANNELS[s], height // s, width // s],
        )
        for name, s in (("coarse", 16), ("fine", 4), ("middle", 8))
    ]
    outputs.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [batch, 1, height // 4, width // 4]))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, height, width])
    graph = helper.make_graph(nodes, "encoder", [image], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save_model(model, path, save_as_external_data=external, location=f"{path.name}.data", size_threshold=0)
    return path
