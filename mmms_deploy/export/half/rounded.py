"""A half-precision graph as a float32 graph that rounds: the same nodes and weights, every result rounded to half.

ONNX Runtime's CPU provider has kernels for few operators in float16 and for fewer in bfloat16. It computes the others
in float32, and leaves out the rounding between two of them: a number that overflows float16 goes unnoticed. Here every
node computes in float32, and its result is rounded to the graph's own type; a number that is too large becomes
infinite. Sums within a node are float32, as they are in a GPU's matrix units.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from mmms_deploy.errors import ExportError
from mmms_deploy.export.subgraphs import subgraphs

HALF = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
_EXACT = frozenset(
    {
        *("Concat", "DepthToSpace", "Expand", "Gather", "Identity", "Pad", "Relu", "Reshape", "Slice", "Split"),
        *("Squeeze", "Transpose", "Unsqueeze", "Where"),
    }
)
"""Operators that only move or choose numbers, which are rounded already."""


def rounded(model: ir.Model) -> ir.Model:
    """Return the graph of a stage as a float32 graph that rounds.

    Args:
        model: The stage; it is left as it is.

    Returns:
        The same graph, with the same names of inputs and outputs; half ones are float32 now.

    Raises:
        ExportError: A node holds a graph of its own with half numbers, or is a Constant.
    """
    model = model.clone()
    graph = model.graph
    for node in graph:
        if node.op_type == "Constant" or any(value.dtype in HALF for value in _nested(node)):
            raise ExportError(
                f"operator {node.op_type} of the graph cannot be checked in half precision",
                expected="plain operators, and constants as initializers",
                fix="pass precisions=[Precision.FP32], and please report the network",
                command_fix="pass --precision fp32, and please report the network",
            )
    kinds = {value: value.dtype for node in graph for value in node.outputs if value.dtype in HALF}
    for value in (*graph.inputs, *graph.initializers.values()):
        if value.dtype in HALF:
            value.type = _wide()
            if value.const_value is not None:
                wide = value.const_value.numpy().astype(np.float32)
                value.const_value = ir.tensor(wide, name=value.name)
    for value, kind in kinds.items():
        _round(graph, value, kind)
    return model


def _nested(node: ir.Node) -> Iterator[ir.Value]:
    """Yield the values of a node that holds graphs, and those that they read and compute; nothing for other nodes."""
    for graph in subgraphs(node):
        yield from (value for value in (*node.inputs, *node.outputs) if value is not None)
        yield from graph.inputs
        yield from graph.outputs
        for inner in graph:
            yield from (value for value in inner.inputs if value is not None)
            yield from inner.outputs
            yield from _nested(inner)


def _wide() -> ir.TensorType:
    """Return a new type object: values, also those of a graph and its clone, may share the one they have."""
    return ir.TensorType(ir.DataType.FLOAT)


def _round(graph: ir.Graph, value: ir.Value, kind: ir.DataType | None) -> None:
    """Make the nodes that read a value read it rounded, as float32."""
    node = value.producer()
    if node is None or kind is None:
        raise ValueError(f"no node computes {value.name}")
    if node.op_type in _EXACT:
        value.type = _wide()
        return
    name, uses = str(value.name), list(value.uses())
    wide = ir.val(f"{name}.wide", dtype=ir.DataType.FLOAT, shape=value.shape)
    if node.op_type == "Cast":
        last, narrow = node, value
    else:
        value.type = _wide()
        narrow = ir.val(f"{name}.narrow", dtype=kind, shape=value.shape)
        last = ir.node("Cast", [value], {"to": kind.value}, outputs=[narrow])
        graph.insert_after(node, last)
    graph.insert_after(last, ir.node("Cast", [narrow], {"to": ir.DataType.FLOAT.value}, outputs=[wide]))
    for user, index in uses:
        user.replace_input_with(index, wide)
    for index, output in enumerate(graph.outputs):
        if output is value:
            value.name, wide.name = f"{name}.unrounded", name
            graph.outputs[index] = wide
