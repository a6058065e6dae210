"""A half-precision graph as a float32 graph that rounds: the same nodes and weights, every result rounded to half.

ONNX Runtime's CPU provider has kernels for few operators in float16 and for fewer in bfloat16. Around the others it
computes in float32, and it leaves out the rounding between two of them: a number that overflows float16 passes there
as if nothing were wrong. Here every node computes in float32, and what it gives is rounded to the type that the graph
says; what is too large becomes infinite. Sums within a node are float32, as they are in a GPU's matrix units.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mmms_deploy.errors import ExportError

HALF = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
_EXACT = frozenset(
    {
        *("Concat", "DepthToSpace", "Expand", "Gather", "Identity", "Pad", "Relu", "Reshape", "Slice", "Split"),
        *("Squeeze", "Transpose", "Unsqueeze", "Where"),
    }
)
"""What only moves and chooses numbers: they are rounded already."""


def rounded(model: ir.Model) -> ir.Model:
    """Return the graph of a stage as one of float32 that rounds.

    Args:
        model: The stage; it is left as it is.

    Returns:
        The same graph with the same names at its borders, where half is float32 now.

    Raises:
        ExportError: A node holds a graph of its own, or half constants.
    """
    model = model.clone()
    graph = model.graph
    for node in graph:
        if any(attribute.type in _NESTED for attribute in node.attributes.values()) or node.op_type == "Constant":
            raise ExportError(
                f"operator {node.op_type} of the graph cannot be checked in half precision",
                expected="plain operators, and constants as initializers",
                fix="export with --precision fp32, and please report the network",
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


_NESTED = frozenset({ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS})


def _wide() -> ir.TensorType:
    """Return a type of its own: values, also those of a graph and its clone, may share the one they have."""
    return ir.TensorType(ir.DataType.FLOAT)


def _widen(value: ir.Value) -> None:
    """Make a value float32, by a type of its own: values may share the object that says their type."""
    value.type = ir.TensorType(ir.DataType.FLOAT)


def _round(graph: ir.Graph, value: ir.Value, kind: ir.DataType | None) -> None:
    """Let those that read a value read it rounded, as float32."""
    node = value.producer()
    if node is None or kind is None:
        raise ValueError(f"{value.name} is computed by no node")
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
