"""A graph of norms, for what compiles it."""

from __future__ import annotations

import numpy as np

from mmms_deploy.bundle import Role
from tests.support.toy import Graph, spec

SHAPE = (1, 6, 8)


def norms_graph(dtype: str) -> Graph:
    """A norm that a product and another norm read; the second one is an output, and a third one has no bias."""
    numbers = np.random.default_rng(0)
    outputs = [spec(name, Role.FEATURE, SHAPE, dtype) for name in ("y", "z")]
    graph = Graph([spec("x", Role.FEATURE, SHAPE, dtype)], outputs)

    def weights() -> str:
        return graph.constant(numbers.normal(size=SHAPE[-1]), dtype)

    first = graph.node("LayerNormalization", "x", weights(), weights(), axis=-1)
    graph.node("LayerNormalization", first, weights(), weights(), axis=-1, out="y")
    product = graph.node("MatMul", first, graph.constant(numbers.normal(size=(8, 8)), dtype))
    third = graph.node("LayerNormalization", product, weights(), axis=-1)
    graph.node("Add", third, product, out="z")
    return graph
