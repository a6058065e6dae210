"""Which layers are quantised, and measuring some of them alone."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest

from mmms_deploy.export.int8.layers import (
    exact_nodes,
    named_weights,
    not_layers,
    quantised_layers,
    with_float_layers,
)
from mmms_deploy.export.int8.quantisation import quantise
from tests.support.quantised import ATTENTION, CALLS, ENLARGING, EXACT, LAYERS, SIDE, calls, run, small_network


@pytest.fixture(scope="module")
def original() -> ir.Model:
    return small_network()


@pytest.fixture(scope="module")
def quantised(original: ir.Model) -> ir.Model:
    return quantise(original, calls())


def furthest(model: ir.Model, other: ir.Model) -> float:
    """The largest difference of two models' answers, over the largest answer."""
    apart = []
    for call in calls():
        found, wanted = run(model, call), run(other, call)
        np.testing.assert_array_equal(found["disk_out"], wanted["disk_out"])
        apart.append(np.abs(found["answer"] - wanted["answer"]).max() / np.abs(wanted["answer"]).max())
    assert len(apart) == CALLS
    return float(max(apart))


def test_what_comes_before_the_first_layer(original: ir.Model) -> None:
    assert set(exact_nodes(original.graph)) == EXACT


def test_products_that_are_no_layers(original: ir.Model) -> None:
    assert set(not_layers(original.graph)) == {*ATTENTION, ENLARGING}


def test_weights_have_the_checkpoint_s_names(original: ir.Model) -> None:
    named = named_weights(original.graph)
    assert {node: named[node] for node in LAYERS} == LAYERS
    assert {node: named[node] for node in ATTENTION} == {node: node for node in ATTENTION}, "they have no weights"


@pytest.mark.parametrize("place", ["added", "in the node", "elsewhere"])
def test_turned_weights_are_named_after_their_bias(place: str) -> None:
    """An export that turns a weight gives it a number."""
    x = ir.val("x", ir.DataType.FLOAT, [1, 4])
    numbers = np.ones((4, 4), np.float32)
    weight, bias = (ir.val(name, const_value=ir.tensor(numbers, name=name)) for name in ("val_7", "head.q.bias"))
    if place == "in the node":
        nodes = [ir.node("Gemm", [x, weight, bias], name="product")]
    else:
        product = ir.node("MatMul", [x, weight], name="product")
        nodes = [product, ir.node("Add" if place == "added" else "Mul", [product.outputs[0], bias])]
    graph = ir.Graph([x], nodes[-1].outputs, nodes=nodes, initializers=[weight, bias], opset_imports={"": 21})
    assert named_weights(graph) == {"product": "val_7" if place == "elsewhere" else "head.q.weight"}


def test_layers_and_their_work(original: ir.Model, quantised: ir.Model) -> None:
    pixels = SIDE * SIDE
    found = quantised_layers(quantised.graph, named_weights(original.graph))
    assert [(layer.node, layer.weight) for layer in found] == list(LAYERS.items())
    assert [layer.macs for layer in found] == [pixels * 8 * 4 * 9, pixels * 8 * 8, pixels * 8 * 2]


@pytest.mark.parametrize(
    ("node", "shapes", "macs"),
    [
        (ir.node("Conv", [ir.Value(), ir.Value()], {"group": 4}), [(1, 8, 5, 7), (8, 2, 3, 3), (1, 8, 5, 7)], 280 * 18),
        (ir.node("ConvTranspose", [ir.Value(), ir.Value()]), [(1, 8, 5, 7), (8, 4, 2, 2), (1, 4, 10, 14)], 280 * 16),
        (ir.node("Gemm", [ir.Value(), ir.Value()], {"transA": 1}), [(6, 3), (6, 5), (3, 5)], 15 * 6),
        (ir.node("MatMul", [ir.Value(), ir.Value()]), [(2, 3, 6), (2, 6, 5), (2, 3, 5)], 30 * 6),
    ],
    ids=lambda value: value.op_type if isinstance(value, ir.Node) else "",
)
def test_multiply_adds(node: ir.Node, shapes: list[tuple[int, ...]], macs: int) -> None:
    """Of groups, of convolutions that enlarge, of transposed matrices and of several matrices at once."""
    pairs = []
    for value, shape in zip(node.inputs, shapes, strict=False):
        given = ir.Value(name="given", shape=ir.Shape(shape))
        pair = ir.node("DequantizeLinear", [given, ir.Value()])
        node.replace_input_with(node.inputs.index(value), pair.outputs[0])
        pairs.append(pair)
    node.outputs[0].shape = ir.Shape(shapes[2])
    (layer,) = quantised_layers(ir.Graph([], [], nodes=[*pairs, node]), {})
    assert layer.macs == macs
    assert layer.macs != math.prod(shapes[2])


def test_all_layers_in_float32_are_the_float32_graph(original: ir.Model, quantised: ir.Model) -> None:
    """With SmoothQuant's factors undone: they lie in the activations and in the weights."""
    assert furthest(quantised, original) > 1e-3
    assert furthest(with_float_layers(quantised, (), original.graph), original) < 1e-5


def test_all_layers_kept_are_the_quantised_graph(original: ir.Model, quantised: ir.Model) -> None:
    assert furthest(with_float_layers(quantised, LAYERS, original.graph), quantised) == 0


def test_one_layer_alone(original: ir.Model, quantised: ir.Model) -> None:
    before = ir.serde.serialize_model(quantised).SerializeToString(deterministic=True)
    for node in LAYERS:
        alone = with_float_layers(quantised, {node}, original.graph)
        assert [layer.node for layer in quantised_layers(alone.graph, {})] == [node]
        assert furthest(alone, original) > 1e-4
        assert furthest(alone, quantised) > 1e-4
    assert ir.serde.serialize_model(quantised).SerializeToString(deterministic=True) == before, "it is left as it is"
