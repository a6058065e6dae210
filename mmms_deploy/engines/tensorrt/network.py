"""What TensorRT reads from an ONNX graph before it compiles it: matrix operations with their types, and attentions."""

from __future__ import annotations

import re
from typing import Any

from mmms_deploy.engines.tensorrt.inspect import Network, type_name

_ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_FAR = 8
"""How many operations (scale, mask, cast, reshape) may lie between a softmax and its matrix products."""


def read_network(trt: Any, network: Any) -> Network:
    """Return the convolutions and matrix products of a network with their types, and its attentions.

    An attention is a softmax between two matrix products, with nothing but shape changes, casts and element-wise
    operations in between.

    Args:
        trt: The library.
        network: Its ``INetworkDefinition``, parsed.
    """
    kinds = trt.LayerType
    matrix = (kinds.CONVOLUTION, kinds.DECONVOLUTION, kinds.MATRIX_MULTIPLY)
    passing = (kinds.ELEMENTWISE, kinds.CAST, kinds.SHUFFLE, kinds.SELECT, kinds.IDENTITY, kinds.SCALE)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    types = [layer.type for layer in layers]
    made: dict[str, int] = {}
    read: dict[int, list[int]] = {}
    users: dict[int, list[int]] = {i: [] for i in range(len(layers))}
    for i, layer in enumerate(layers):
        tensors = [layer.get_input(j) for j in range(layer.num_inputs)]
        # The parser adds layers in the order in which they run.
        read[i] = [made[tensor.name] for tensor in tensors if tensor is not None and tensor.name in made]
        for source in read[i]:
            users[source].append(i)
        made.update({layer.get_output(j).name: i for j in range(layer.num_outputs)})

    def reaches(start: int, ways: dict[int, list[int]]) -> bool:
        seen, border = {start}, [start]
        for _ in range(_FAR):
            border = [way for i in border for way in ways[i] if way not in seen]
            if any(types[i] == kinds.MATRIX_MULTIPLY for i in border):
                return True
            border = [i for i in border if types[i] in passing]
            seen.update(border)
        return False

    return Network(
        matrices={
            _origin(layer): type_name(layer.get_input(0).dtype.name)
            for layer, kind in zip(layers, types, strict=True)
            if kind in matrix
        },
        attentions=tuple(
            _origin(layer)
            for i, layer in enumerate(layers)
            if types[i] == kinds.SOFTMAX and reaches(i, read) and reaches(i, users)
        ),
    )


def _origin(layer: Any) -> str:
    found = _ORIGIN.search(layer.metadata)
    return found[1] if found else str(layer.name)
