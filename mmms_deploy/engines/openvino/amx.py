"""Convolutions that OpenVINO's CPU kernels compute wrongly, and the same ones in a form that is right.

In OpenVINO up to 2026.4 at least, and in torch, oneDNN has two faults; the result has nothing to do with the input:

* With few channels, in bfloat16 on CPUs with AMX: an even number of fewer than 32 input channels (of one group), times
  the kernel's width, is 64 or more and a multiple of 32. From 32 channels on the kernel is right, so channels of zeros
  are added: the result is the same, and it is still computed in bfloat16.
* With an output one pixel wide, a kernel that is wider, and a stride along the width: in bfloat16 on AMX for any number
  of channels (https://github.com/pytorch/pytorch/issues/169688, https://github.com/pytorch/pytorch/pull/188426), with
  few channels on other CPUs too, and with one channel even in float32. The stride has no effect there, so it becomes 1,
  and the columns that the kernel never reaches are cut off. That costs nothing, so it is done on every CPU.

OpenVINO has no setting that keeps one convolution in float32. The rules come from thousands of random convolutions; a
probe would compile each convolution alone, and OpenVINO may choose another kernel there than in a network. Convolutions
of one or three channels, such as patch embeddings, are not concerned unless their output is one pixel wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmms_deploy.engines.openvino.inspect import Node
from mmms_deploy.engines.openvino.library import import_openvino

ENOUGH_CHANNELS = 32
"""From this number of input channels on, the kernel is right."""
_BLOCK = 32
"""Elements of bfloat16 that a row of an AMX tile holds."""
_GROUPED = "GroupConvolution"


def faulty_convolutions(model: Any, nodes: Sequence[Node]) -> list[Any]:
    """Return the convolutions with few channels that were compiled to the faulty kernel.

    Args:
        model: The ``openvino.Model``, with static shapes.
        nodes: The nodes that it was compiled to, for BF16.
    """
    on_amx = frozenset[str]().union(*(node.origins for node in nodes if "amx" in node.primitive))
    return [
        operation
        for operation in _convolutions(model)
        if operation.get_friendly_name() in on_amx and _has_few_channels(operation)
    ]


def one_column_convolutions(model: Any) -> list[Any]:
    """Return the convolutions of a model whose stride along the width has no effect.

    Args:
        model: The ``openvino.Model``. Convolutions whose shapes are not static are left out.
    """
    return [
        operation
        for operation in _convolutions(model)
        if all(port.get_partial_shape().is_static for port in (*operation.inputs(), operation.output(0)))
        and operation.get_output_shape(0)[-1] == 1
        and operation.get_attributes()["strides"][-1] > 1
        and operation.input(1).get_shape()[-1] > 1
    ]


def _convolutions(model: Any) -> list[Any]:
    return [
        operation for operation in model.get_ordered_ops() if operation.get_type_name() in ("Convolution", _GROUPED)
    ]


def _has_few_channels(convolution: Any) -> bool:
    weights = convolution.input(1).get_shape()
    channels = weights[_channel_axis(convolution)]
    row = channels * weights[-1]
    return bool(channels < ENOUGH_CHANNELS and channels % 2 == 0 and row > _BLOCK and row % _BLOCK == 0)


def _channel_axis(convolution: Any) -> int:
    """Return the axis of the input channels in weights: they are ([groups,] outputs, inputs, ..., width)."""
    return 2 if convolution.get_type_name() == _GROUPED else 1


def widen(convolution: Any) -> None:
    """Add input channels of zeros to a convolution and its weights, in place; its output stays the same."""
    ops = import_openvino().opset13

    axis = _channel_axis(convolution)
    values, weights = convolution.input_value(0), convolution.input_value(1)
    channels = weights.get_shape()[axis]
    surplus = ENOUGH_CHANNELS - channels
    # Weights are folded into a constant when the model is compiled.
    convolution.input(1).replace_source_output(_padded(weights, axis, surplus))
    if axis == 1:
        convolution.input(0).replace_source_output(_padded(values, 1, surplus))
        return
    # Channels of zeros belong behind those of each group: (1, G * C, H, W) -> (1, G, C, H, W), and back.
    batch, _, *sides = values.get_shape()
    apart = ops.reshape(values, [batch, weights.get_shape()[0], channels, *sides], special_zero=False)
    wide = _padded(apart.output(0), 2, surplus)
    together = ops.reshape(wide, [batch, -1, *sides], special_zero=False)
    convolution.input(0).replace_source_output(together.output(0))


def _padded(source: Any, axis: int, surplus: int) -> Any:
    """Return a tensor with zeros added at the end of an axis."""
    ops = import_openvino().opset13

    end = np.zeros(len(source.get_shape()), dtype=np.int64)
    end[axis] = surplus
    zero = ops.convert_like(np.zeros((), dtype=np.float32), source)
    return ops.pad(source, np.zeros_like(end), end, "constant", zero).output(0)


def without_stride(convolution: Any) -> None:
    """Replace a convolution with an output one pixel wide by the same one with a stride of 1 along the width.

    The kernel covers the columns from the left border on; whatever lies behind them, padding first, is cut off.
    """
    ov = import_openvino()
    ops = ov.opset13

    attributes = convolution.get_attributes()
    values, weights = convolution.input_value(0), convolution.input_value(1)
    width = values.get_shape()[-1]
    kernel = attributes["dilations"][-1] * (weights.get_shape()[-1] - 1) + 1
    before = attributes["pads_begin"][-1]
    if before >= kernel:  # the kernel covers nothing but padding
        nothing = np.zeros((*list(values.get_shape())[:-1], 1), dtype=np.float32)
        values, width, before = ops.convert_like(nothing, values).output(0), 1, kernel - 1
    covered = kernel - before
    if covered < width:
        values = ops.slice(values, [0], [covered], [1], [-1]).output(0)
    grouped = convolution.get_type_name() == _GROUPED
    replaced = (ops.group_convolution if grouped else ops.convolution)(
        values,
        weights,
        [*attributes["strides"][:-1], 1],
        [*attributes["pads_begin"][:-1], before],
        [*attributes["pads_end"][:-1], max(0, covered - width)],
        attributes["dilations"],
    )
    replaced.set_friendly_name(convolution.get_friendly_name())
    ov.utils.replace_node(convolution, replaced)
