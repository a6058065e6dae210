"""Counting floating-point operations from the shapes in an ONNX graph. Needs the onnx package.

A multiply-add counts 2. Convolutions and matrix products are counted. What is linear in the number of elements (norms,
activations, resizing, softmax) is not, as in the field's other counters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

Shape = tuple[int, ...]
Shapes = dict[str, Shape]


class UncountedError(Exception):
    """The operations of a graph cannot be counted; the text says why. Callers show it, or leave the number out."""


_UNCOUNTED = frozenset({"Attention", "MultiHeadAttention", "GroupQueryAttention", "LSTM", "GRU", "RNN", "DeformConv"})
"""Operators that multiply matrices inside and are not counted; for a graph with one of them there is no sum."""
_SMALL = 1024
"""Bytes up to which a constant is kept, because other shapes may be computed from it."""


def count_flops(path: Path) -> float:
    """Return the floating-point operations of one run of a graph.

    Args:
        path: An ONNX file with static shapes. Weights in a file beside it are not read.

    Raises:
        UncountedError: The onnx package is not installed, a shape is unknown, or an operator cannot be counted.
    """
    try:
        import onnx
    except ImportError as error:
        raise UncountedError("the onnx package is not installed (pip install onnx)") from error
    model = onnx.load(str(path), load_external_data=False)
    return count_model(_without_weights(model))


def count_model(model: Any) -> float:
    """Return the floating-point operations of one run of an ``onnx.ModelProto`` with static shapes.

    Raises:
        UncountedError: A shape is unknown, or an operator cannot be counted.
    """
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        raise UncountedError(f"the shapes of the graph cannot be inferred: {error}") from error
    shapes = _shapes(inferred.graph)
    total = 0.0
    for node in inferred.graph.node:
        name = node.op_type
        if name in _UNCOUNTED or any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute):
            raise UncountedError(f"the graph has the operator {name}, whose operations are not counted")
        rule = _RULES.get(name)
        if rule is not None:
            total += rule(node, partial(_known, shapes, node))
    return total


def _without_weights(model: Any) -> Any:
    """Replace large constants by inputs of the same shape, so that inferring shapes does not copy the weights."""
    from onnx import helper

    kept = []
    for tensor in model.graph.initializer:
        if tensor.ByteSize() <= _SMALL:
            kept.append(tensor)
        else:
            model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def _shapes(graph: Any) -> Shapes:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        sizes = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(size.HasField("dim_value") for size in sizes):
            shapes[value.name] = tuple(size.dim_value for size in sizes)
    return shapes


def _known(shapes: Shapes, node: Any, tensor: str) -> Shape:
    if tensor not in shapes:
        raise UncountedError(f"the shape of {tensor!r} at the operator {node.op_type} is unknown")
    return shapes[tensor]


Look = Callable[[str], Shape]


def _matmul(node: Any, look: Look) -> float:
    return 2.0 * math.prod(look(node.output[0])) * look(node.input[0])[-1]


def _gemm(node: Any, look: Look) -> float:
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return 2.0 * math.prod(look(node.output[0])) * look(node.input[0])[0 if transposed else 1]


def _conv(node: Any, look: Look) -> float:
    weight = look(node.input[1])  # (out, in / groups, *kernel)
    return 2.0 * math.prod(look(node.output[0])) * math.prod(weight[1:])


def _conv_transpose(node: Any, look: Look) -> float:
    weight = look(node.input[1])  # (in, out / groups, *kernel)
    return 2.0 * math.prod(look(node.input[0])) * math.prod(weight[1:])


def _einsum(node: Any, look: Look) -> float:
    equation = next(a.s.decode() for a in node.attribute if a.name == "equation").replace(" ", "")
    terms = equation.partition("->")[0].split(",")
    if "." in equation or len(terms) != 2:
        raise UncountedError(f"the operations of Einsum {equation!r} are not counted")
    sizes = {
        letter: size
        for term, tensor in zip(terms, node.input, strict=True)
        for letter, size in zip(term, look(tensor), strict=True)
    }
    return 2.0 * math.prod(sizes.values())


_RULES: dict[str, Callable[[Any, Look], float]] = {
    "MatMul": _matmul,
    "FusedMatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "FusedConv": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
}
