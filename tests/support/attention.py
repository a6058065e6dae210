"""A bundle whose one stage is one attention, for compilers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto

from mmms_deploy.bundle import Bundle, Precision, Role
from tests.support.toy import Graph, spec, write_one_stage

HEADS, QUERIES, WIDTH = 2, 196, 128
MATRICES = 6
"""Query, key, value, scores, mix, output."""


def attention_graph(dtype: str, *, wide: bool = False, unknown: bool = False) -> Graph:
    """y = x + attention(x).

    Args:
        dtype: Element type of everything.
        wide: Whether the last matrix product is done in float32, on float32 numbers.
        unknown: Whether there is an operation that no compiler knows.
    """
    numbers = np.random.default_rng(0)
    shape = (1, QUERIES, WIDTH)
    graph = Graph([spec("x", Role.FEATURE, shape, dtype)], [spec("y", Role.PROBABILITY, shape, dtype)])

    def linear(x: str, kind: str = dtype) -> str:
        return graph.node("MatMul", x, graph.constant(numbers.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5, kind))

    def heads(x: str, order: tuple[int, ...]) -> str:
        split = graph.node("Reshape", x, graph.constant([1, QUERIES, HEADS, WIDTH // HEADS], "int64"))
        return graph.node("Transpose", split, perm=order)

    query, key, value = heads(linear("x"), (0, 2, 1, 3)), heads(linear("x"), (0, 2, 3, 1)), linear("x")
    scores = graph.node("MatMul", query, key)
    scaled = graph.node("Mul", scores, graph.constant((WIDTH // HEADS) ** -0.5, dtype))
    mixed = graph.node("MatMul", graph.node("Softmax", scaled, axis=-1), heads(value, (0, 2, 1, 3)))
    back = graph.node("Transpose", mixed, perm=(0, 2, 1, 3))
    joined = graph.node("Reshape", back, graph.constant(shape, "int64"))
    if wide:
        # Between two casts alone, the compiler does a float32 product in float16 after all.
        joined = graph.node("Exp", graph.node("Cast", joined, to=TensorProto.FLOAT))
        joined = graph.node("Cast", graph.node("Exp", linear(joined, "float32")), to=TensorProto.FLOAT16)
    else:
        joined = linear(joined)
    if unknown:
        square = graph.node("Slice", joined, *(graph.constant([n], "int64") for n in (0, WIDTH, 1)))
        determinant = graph.node("Det", square)
        joined = graph.node("Add", joined, graph.node("Unsqueeze", determinant, graph.constant([1, 2], "int64")))
    graph.node("Add", "x", joined, out="y")
    return graph


def write_attention(
    out: Path, precision: Precision = Precision.FP16, *, wide: bool = False, unknown: bool = False
) -> Bundle:
    """Write a bundle whose stage ``click`` is an attention."""
    dtype = {Precision.FP16: "float16", Precision.FP32: "float32"}[precision]
    return write_one_stage(out, attention_graph(dtype, wide=wide, unknown=unknown), precision)
