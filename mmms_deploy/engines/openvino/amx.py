"""Convolutions that OpenVINO's AMX kernel computes wrongly in bfloat16, and the same ones in a form that is right.

On CPUs with AMX, oneDNN (in OpenVINO up to 2026.4 at least, and in torch) reads wrong pixels: the result has nothing
to do with the input (https://github.com/pytorch/pytorch/issues/169688).

* With few channels it merges the kernel's width with them. This goes wrong where an even number of fewer than 32
  channels, times the kernel's width, is 64 or more and a multiple of 32. From 32 channels on it is right, so channels
  of zeros are added: the result is the same, and it is still computed in bfloat16.
* With an output one pixel wide and a stride it goes wrong for any number of channels.

Convolutions of one or three channels, such as patch embeddings, are not concerned unless their output is that narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmms_deploy.engines.openvino.inspect import Node

ENOUGH_CHANNELS = 32
"""From this number of input channels on, the kernel does not merge them."""
_BLOCK = 32
"""Elements of bfloat16 that a row of an AMX tile holds."""
_KINDS = ("Convolution", "GroupConvolution")


def faulty_convolutions(model: Any, nodes: Sequence[Node]) -> list[Any]:
    """Return the convolutions of a model that were compiled to the faulty kernel.

    Args:
        model: The ``openvino.Model``, with static shapes.
        nodes: The nodes that it was compiled to, for BF16.
    """
    on_amx = frozenset[str]().union(*(node.origins for node in nodes if "amx" in node.primitive))
    return [
        operation
        for operation in model.get_ordered_ops()
        if operation.get_type_name() in _KINDS
        and operation.get_friendly_name() in on_amx
        and (_merges_channels(operation) or _narrow(operation))
    ]


def can_widen(convolution: Any) -> bool:
    """Return whether :func:`widen` makes a faulty convolution right."""
    return convolution.get_type_name() == "Convolution" and not _narrow(convolution)


def _merges_channels(convolution: Any) -> bool:
    *_, channels, _, width = convolution.input(1).get_shape()
    row = channels * width
    return bool(channels < ENOUGH_CHANNELS and channels % 2 == 0 and row > _BLOCK and row % _BLOCK == 0)


def _narrow(convolution: Any) -> bool:
    return bool(convolution.output(0).get_shape()[-1] == 1 and convolution.get_attributes()["strides"][-1] > 1)


def widen(convolution: Any) -> None:
    """Add input channels of zeros to a convolution and its weights, in place; its output stays the same."""
    from openvino import opset13 as ops

    for port in (0, 1):
        source = convolution.input_value(port)
        shape = list(source.get_shape())
        end = np.zeros(len(shape), dtype=np.int64)
        end[1] = ENOUGH_CHANNELS - shape[1]
        begin = np.zeros_like(end)
        # Weights are folded into a constant when the model is compiled.
        wide = ops.pad(source, begin, end, "constant", np.zeros((), dtype=np.float32))
        convolution.input(port).replace_source_output(wide.output(0))
