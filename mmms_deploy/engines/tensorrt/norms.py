"""Norms between half tensors, computed in float32.

ONNX says how precisely a LayerNormalization sums (``stash_type``), and our FP16 graphs ask for float32. TensorRT 11 has
no such setting: a norm is computed in the type of its inputs, and hundreds of squares summed in float16 overflow. So
casts are put around every such norm. They cost nothing: the compiler puts them into the norm's kernel.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def widen_norms(trt: Any, network: Any) -> int:
    """Put casts to float32 and back around every norm between half tensors.

    Layers are added at the end of the network, so that it is no longer in the order in which it runs.

    Args:
        trt: The library.
        network: Its ``INetworkDefinition``, parsed; changed in place.

    Returns:
        How many norms were changed.
    """
    half = (trt.DataType.HALF, trt.DataType.BF16)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    norms = [
        layer for layer in layers if layer.type == trt.LayerType.NORMALIZATION and layer.get_input(0).dtype in half
    ]
    readers: dict[str, list[tuple[Any, int]]] = {}
    for layer in layers:
        for i in range(layer.num_inputs):
            tensor = layer.get_input(i)
            if tensor is not None:
                readers.setdefault(tensor.name, []).append((layer, i))
    for norm in norms:
        tensor = norm.get_output(0)
        name, narrow = tensor.name, tensor.dtype
        for i in range(norm.num_inputs):
            norm.set_input(i, _cast(network, norm.get_input(i), trt.DataType.FLOAT, f"{norm.name}: input {i}", norm))
        _replace(network, tensor, _cast(network, tensor, narrow, f"{norm.name}: result", norm), readers.get(name, ()))
    return len(norms)


def _cast(network: Any, tensor: Any, kind: Any, name: str, norm: Any) -> Any:
    """Return a tensor in another type; the new layer belongs to the norm's ONNX node."""
    layer = network.add_cast(tensor, kind)
    layer.name, layer.metadata = name, norm.metadata
    return layer.get_output(0)


def _replace(network: Any, tensor: Any, other: Any, readers: Iterable[tuple[Any, int]]) -> None:
    """Make the layers that read a tensor read another one, which also takes its place and name as an output."""
    for layer, i in readers:
        layer.set_input(i, other)
    if tensor.is_network_output:
        name = tensor.name
        network.unmark_output(tensor)
        tensor.name, other.name = f"{name} in float32", name
        network.mark_output(other)
