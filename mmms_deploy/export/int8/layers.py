"""The layers of a graph that are computed in 8 bits: which ones there are, and some of them in float32 again.

In a quantised graph every input of such a layer goes through QuantizeLinear and DequantizeLinear, weights through the
latter alone. Engines see the pairs and multiply the 8-bit numbers. Between a pair and the layer there may be nodes that
move numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

MATRIX = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that multiply matrices."""
MOSTLY = 0.75
"""A matrix of weights with a larger share of zeros interpolates."""
_ROUNDED = 0.1
"""Weights in 8 bits differ by less of their size from what they were."""
_MOVING = frozenset(
    {*("Concat", "Expand", "Gather", "Identity", "Pad", "Reshape", "Resize"), *("Slice", "Split", "Squeeze"),
     *("Transpose", "Unsqueeze")}
)  # fmt: skip
"""Operators through which a quantised value reaches a layer."""
_BIAS = ".bias"
_QUANTISING = frozenset({"DequantizeLinear", "QuantizeLinear"})


@dataclass(frozen=True)
class Layer:
    """A matrix product or convolution that is computed in 8 bits.

    Attributes:
        node: Name of its node.
        weight: Name of its weights, as the checkpoint's module calls them; its node's name where it has none.
        macs: Multiply-adds of one run.
    """

    node: str
    weight: str
    macs: int


def first_layers(graph: ir.Graph) -> list[str]:
    """Return the names of the layers that no other comes before: of an image's stage those that see its pixels.

    A patch embedding does little of a backbone's work, and everything after it depends on every bit of it.
    """
    exact = set(exact_nodes(graph))
    known = {value for node in graph if node.name in exact for value in node.outputs} | set(graph.inputs)
    return [node.name for node in graph if node.op_type in MATRIX and node.name and node.inputs[0] in known]


def exact_nodes(graph: ir.Graph) -> list[str]:
    """Return the names of the nodes that no matrix product comes before.

    In a click stage these draw the disks of clicks and threshold the previous mask: coordinates and distances in 8 bits
    would move a click by pixels.
    """
    after: set[ir.Value] = set()
    names = []
    for node in graph:
        if node.op_type in MATRIX or any(value in after for value in node.inputs if value is not None):
            after.update(node.outputs)
        elif node.name:
            names.append(node.name)
    return names


def not_layers(graph: ir.Graph) -> list[str]:
    """Return the names of the matrix products that are no layers: in 8 bits they save little, and masks suffer.

    These are the two products of an attention, and products with a constant matrix that is mostly zeros. The latter
    enlarge or shrink a map, at the end that of the answer itself.
    """
    names = []
    for node in graph:
        if node.op_type != "MatMul" or not node.name:
            continue
        constants = [v.const_value.numpy() for v in node.inputs if v is not None and v.const_value is not None]
        if not constants or any((values == 0).mean() > MOSTLY for values in constants):
            names.append(node.name)
    return names


def named_weights(graph: ir.Graph) -> dict[str, str]:
    """Return the name of the weights of every node that multiplies matrices, by the name of the node.

    Weights that an export turned have a number in the place of their name; their bias tells it.
    """
    return {node.name: _weight_of(node) for node in graph if node.op_type in MATRIX and node.name}


def _weight_of(node: ir.Node) -> str:
    name = _initializer_of(node)
    if name is None:
        return node.name or ""
    if "." in name:
        return name
    added = [use.node for use in node.outputs[0].uses() if use.node.op_type == "Add"]
    biases = [v.name for one in (node, *added) for v in one.inputs if v is not None and v.name and v.is_initializer()]
    known = [name.removesuffix(_BIAS) for name in biases if name.endswith(_BIAS)]
    return f"{known[0]}.weight" if known else name


def _initializer_of(node: ir.Node) -> str | None:
    """Return the name of a node's weights in its graph; None where it has none."""
    return next((v.name for v in node.inputs[:2] if v is not None and v.name and v.is_initializer()), None)


def quantised_layers(graph: ir.Graph, weights: dict[str, str]) -> list[Layer]:
    """Return the layers of a quantised graph that are computed in 8 bits, in the graph's order.

    Args:
        graph: The quantised graph.
        weights: The name of each node's weights in the graph that it was made of (:func:`named_weights`).
    """
    return [
        Layer(node.name or "", weights.get(node.name or "", node.name or ""), _macs(node))
        for node in graph
        if node.op_type in MATRIX and all(_pair(value) is not None for value in node.inputs[:2])
    ]


def _pair(value: ir.Value | None) -> ir.Node | None:
    """Return the DequantizeLinear that a value comes from, directly or through nodes that move numbers."""
    for one in _upstream(value, lambda node: node.op_type in _MOVING):
        node = one.producer()
        if node is not None and node.op_type == "DequantizeLinear":
            return node
    return None


def _upstream(value: ir.Value | None, through: Callable[[ir.Node], bool]) -> Iterator[ir.Value]:
    """Yield a value, and those that it was made of: the first inputs of nodes, as long as these are passed through."""
    while value is not None:
        yield value
        node = value.producer()
        value = node.inputs[0] if node is not None and through(node) else None


def _macs(node: ir.Node) -> int:
    """Return the multiply-adds of a layer; 1 where shapes are not known."""
    inputs, weights, outputs = (_sizes(value) for value in (*node.inputs[:2], node.outputs[0]))
    if inputs is None or weights is None or outputs is None:
        return 1
    if node.op_type == "Conv":
        return math.prod(outputs) * math.prod(weights[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(inputs) * math.prod(weights[1:])
    transposed = node.op_type == "Gemm" and "transA" in node.attributes and node.attributes["transA"].as_int()
    return math.prod(outputs) * inputs[0 if transposed else -1]


def _sizes(value: ir.Value | None) -> tuple[int, ...] | None:
    """Return a value's shape, looked up before its pair where NNCF does not say it; None where it is not known."""
    for one in _upstream(value, lambda node: node.op_type in _QUANTISING or _smooths(node)):
        if one.shape is not None:
            return tuple(one.shape.numpy()) if one.shape.is_static() else None
    return None


def _smooths(node: ir.Node) -> bool:
    """Whether a node is a multiplication that SmoothQuant put before a layer."""
    return node.op_type == "Mul" and "smooth_quant" in (node.name or "")


def with_float_layers(model: ir.Model, kept: Collection[str], original: ir.Graph) -> ir.Model:
    """Return a quantised model in which only some layers are computed in 8 bits, to measure what they cost.

    The others read activations and weights as they were, weights scaled as SmoothQuant scales the activations.

    Args:
        model: The quantised model; it is left as it is.
        kept: Names of the nodes that stay in 8 bits.
        original: The graph in float32 that it was made of.
    """
    model = model.clone()
    graph = model.graph
    exact = {value.name: value.const_value.numpy() for value in original.initializers.values() if value.const_value}
    weights = {node.name: _initializer_of(node) for node in original if node.op_type in MATRIX}
    for node in list(graph):
        if node.op_type != "DequantizeLinear":
            continue
        if any(layer.name in kept for layer in _readers(node.outputs[0])):
            continue
        source = node.inputs[0]
        assert source is not None
        producer = source.producer()
        if producer is not None and producer.op_type == "QuantizeLinear":
            replacement = producer.inputs[0]
            assert replacement is not None
        else:
            replacement = _as_float(
                graph,
                node,
                [(layer, exact.get(weights.get(layer.name))) for layer in _readers(node.outputs[0])],
            )
        ir.convenience.replace_all_uses_with(node.outputs[0], replacement)
    return model


def _smoothing(layer: ir.Node) -> npt.NDArray[np.float32] | None:
    """Return what SmoothQuant multiplies the activations of a layer with, one number for each input channel."""
    for one in _upstream(layer.inputs[0], lambda node: node.op_type in _QUANTISING | _MOVING):
        node = one.producer()
        if node is not None and _smooths(node):
            factor = next((v.const_value for v in node.inputs if v is not None and v.const_value is not None), None)
            return None if factor is None else factor.numpy().ravel()
    return None


def _readers(value: ir.Value) -> Iterator[ir.Node]:
    for node, _ in value.uses():
        if node.op_type in _MOVING:
            for output in node.outputs:
                yield from _readers(output)
        else:
            yield node


def _as_float(
    graph: ir.Graph, node: ir.Node, readers: Sequence[tuple[ir.Node, npt.NDArray[np.float32] | None]]
) -> ir.Value:
    """Return an initializer in the place of a DequantizeLinear of weights.

    Args:
        graph: The graph that receives it.
        node: The DequantizeLinear.
        readers: The layers that read it, with their weights before SmoothQuant scaled them where these are known.
    """
    values, scales, *zero = (value.const_value.numpy() for value in node.inputs if value is not None)  # type: ignore[union-attr]
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    shape = [1] * values.ndim
    if scales.ndim and values.ndim:
        shape[axis] = -1
        scales, zero = scales.reshape(shape), [one.reshape(shape) for one in zero]
    offset = zero[0].astype(np.float32) if zero else np.float32(0)
    wide = ((values.astype(np.float32) - offset) * scales).astype(np.float32)
    for layer, before in readers:
        if before is not None and before.shape == wide.shape:
            scaled = before if (factor := _smoothing(layer)) is None else before / factor.reshape(-1, 1)
            if np.linalg.norm(scaled - wide) < _ROUNDED * np.linalg.norm(wide):
                wide = scaled.astype(np.float32)
                break
    result = ir.Value(name=f"{node.outputs[0].name}_wide", const_value=ir.tensor(wide))
    result.const_value.name = result.name  # type: ignore[union-attr]
    result.shape, result.type = ir.Shape(wide.shape), ir.TensorType(ir.DataType.FLOAT)
    graph.register_initializer(result)
    return result
