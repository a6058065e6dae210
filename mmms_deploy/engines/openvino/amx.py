"""Convolutions that OpenVINO's AMX kernel computes wrongly in bfloat16, and the same ones in a form that is right.

On CPUs with AMX, oneDNN (in OpenVINO up to 2026.4 at least, and in torch) merges the kernel's width with the input
channels when these are few, and then reads the wrong pixels: the result has nothing to do with the input. It happens
where an even number of fewer than 32 input channels, times the kernel's width, is 64 or more and a multiple of 32
(https://github.com/pytorch/pytorch/issues/169688). Convolutions of 32 channels and more are right, so channels of zeros
are added: the result is the same, and it is still computed in bfloat16. Pictures of one or three channels are never
concerned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmms_deploy.engines.openvino.inspect import Node

ENOUGH_CHANNELS = 32
"""From this number of input channels on, the kernel is right."""
_BLOCK = 32
"""Elements of bfloat16 that a row of an AMX tile holds."""


def faulty_convolutions(model: Any, nodes: Sequence[Node]) -> list[Any]:
    """Return the convolutions of a model that were compiled to the faulty kernel.

    Args:
        model: The ``openvino.Model``, with static shapes.
        nodes: What it was compiled to, for BF16.
    """
    operations = [operation for operation in model.get_ordered_ops() if _suspect(operation)]
    on_amx = frozenset[str]().union(*(node.origins for node in nodes if "amx" in node.primitive))
    return [operation for operation in operations if operation.get_friendly_name() in on_amx]


def _suspect(operation: Any) -> bool:
    if operation.get_type_name() != "Convolution":
        return False
    _, channels, *kernel = operation.input(1).get_shape()
    row = channels * kernel[-1]
    return bool(channels < ENOUGH_CHANNELS and channels % 2 == 0 and row > _BLOCK and row % _BLOCK == 0)


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
