"""Graphs that round, made of graphs whose values share one type object."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mmms_deploy.export.half.rounded import HALF, rounded


def test_values_that_share_the_object_of_their_type() -> None:
    """The exporter gives equal initializers one type object; each must become float32, numbers and all."""
    half = ir.TensorType(ir.DataType.FLOAT16)
    weights = [ir.tensor(np.full((2,), n, np.float16), name=f"w{n}") for n in (1, 2)]
    constants = [ir.Value(name=w.name, type=half, shape=ir.Shape((2,)), const_value=w) for w in weights]
    x = ir.Value(name="x", type=half, shape=ir.Shape((2,)))
    first = ir.node("Add", [x, constants[0]], outputs=[ir.Value(name="y", type=half, shape=ir.Shape((2,)))])
    second = ir.node("Add", [first.outputs[0], constants[1]], outputs=[ir.Value(name="z", type=half)])
    graph = ir.Graph(
        [x], [second.outputs[0]], nodes=[first, second], initializers=constants, opset_imports={"": 21}, name="half"
    )
    wide = rounded(ir.Model(graph, ir_version=10))
    assert [value.dtype for value in wide.graph.inputs] == [ir.DataType.FLOAT]
    for name, value in wide.graph.initializers.items():
        assert value.dtype is ir.DataType.FLOAT
        assert value.const_value is not None
        assert value.const_value.dtype is ir.DataType.FLOAT
        np.testing.assert_array_equal(value.const_value.numpy(), float(name[1:]))
    assert graph.inputs[0].dtype in HALF
