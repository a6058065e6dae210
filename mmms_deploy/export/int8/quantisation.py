"""A graph quantised after training by NNCF, in the form that ONNX Runtime and OpenVINO both compute fast and right.

NNCF (Neural Network Compression Framework, https://github.com/openvinotoolkit/nncf) reads the ranges of activations
from calls, spreads large activations over weights (SmoothQuant, arXiv 2211.10438), and puts QuantizeLinear and
DequantizeLinear before each convolution and matrix product. Its correction of biases is off: masks were no better with
it. What engines need beyond that:

- Activations are unsigned: OpenVINO 2026.4 computes signed ones with a zero point wrongly, and ONNX Runtime 1.32
  refuses to move signed ones past a Reshape. The numbers are the same, shifted by 128.
- Activations have one scale for all channels: ONNX Runtime's convolution takes no other.
- Weights have no zero point, as they are symmetric: ONNX Runtime refuses one for each channel of a batched product.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from mmms_deploy import telemetry
from mmms_deploy.errors import ExportError
from mmms_deploy.export.graphs import EXTERNAL_DATA_ABOVE, weight_bytes
from mmms_deploy.export.int8.calibration import Call
from mmms_deploy.export.int8.layers import exact_nodes, first_layers, not_layers
from mmms_deploy.export.int8.precision import missing_nncf

LARGEST = EXTERNAL_DATA_ABOVE
"""Bytes of weights above which a graph is not quantised: NNCF takes it as one protobuf message, which ends at 2 GB."""

SMOOTHING = 0.95
"""SmoothQuant's alpha: how much of the activations' spread moves into the weights, from 0 to 1."""


def import_nncf() -> Any:
    """Import NNCF without its telemetry.

    Raises:
        ExportError: It is not installed.
    """
    try:
        with telemetry.off("nncf"):
            import nncf  # type: ignore[import-untyped]
            from nncf.quantization import advanced_parameters  # type: ignore[import-untyped]
    except ImportError as error:
        raise missing_nncf(error.name or error) from error
    nncf.advanced_parameters = advanced_parameters
    return nncf


def quantise(
    model: ir.Model, calls: Sequence[Call], float_nodes: Collection[str] = (), *, sees_pixels: bool = False
) -> ir.Model:
    """Return a stage's graph with its convolutions and matrix products in 8 bits.

    Args:
        model: The stage in float32; it is left as it is.
        calls: What it is called with.
        float_nodes: Names of nodes that stay in float32.
        sees_pixels: Whether its inputs are images, so that its first layers stay in float32 too.

    Raises:
        ExportError: NNCF is not installed, cannot quantise the graph, or the graph is too large for it.
    """
    nncf = import_nncf()
    size = weight_bytes(model)
    if size > LARGEST:
        raise ExportError(
            f"a stage with {size / 1e9:.1f} GB of weights in 8 bits",
            expected=f"at most {LARGEST / 1e9:.1f} GB",
            fix="leave Precision.INT8 out of precisions",
            command_fix="leave int8 out of --precision",
        )
    options = nncf.advanced_parameters
    advanced = options.AdvancedQuantizationParameters(
        activations_quantization_params=options.QuantizationParameters(per_channel=False),
        disable_bias_correction=True,
        smooth_quant_alphas=options.AdvancedSmoothQuantParameters(convolution=-1, matmul=SMOOTHING),
    )
    first = first_layers(model.graph) if sees_pixels else []
    float32 = {*exact_nodes(model.graph), *not_layers(model.graph), *first, *float_nodes}
    left = nncf.IgnoredScope(names=sorted(float32), validate=False)
    level = logging.getLogger("nncf").level
    nncf.set_log_level(logging.ERROR)
    try:
        # Its bars would run through ours.
        with contextlib.redirect_stdout(io.StringIO()):
            quantised = nncf.quantize(
                ir.serde.serialize_model(model),
                nncf.Dataset([dict(call) for call in calls]),
                preset=nncf.QuantizationPreset.MIXED,
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(calls),
                ignored_scope=left,
                advanced_parameters=advanced,
            )
    except Exception as error:  # NNCF raises its own types, ONNX Runtime's and Python's
        raise ExportError(
            f"NNCF cannot quantise a stage: {' '.join(str(error).split())[:400]}",
            expected="a graph of operators that it knows",
            fix="leave Precision.INT8 out of precisions, and please report the network",
            command_fix="leave int8 out of --precision, and please report the network",
        ) from error
    finally:
        nncf.set_log_level(level or logging.INFO)
    return ir.serde.deserialize_model(_for_engines(quantised))


def _for_engines(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give a quantised graph the form that engines need, in place, and return it."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    quantised = {node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    pairs = ("QuantizeLinear", "DequantizeLinear")
    zeros = set()
    for node in model.graph.node:
        if node.op_type in pairs and len(node.input) > 2:
            if node.op_type == "QuantizeLinear" or node.input[0] in quantised:
                zeros.add(node.input[2])
            elif not onnx.numpy_helper.to_array(constants[node.input[2]]).any():
                del node.input[2]
    for name in zeros:
        values = onnx.numpy_helper.to_array(constants[name])
        if values.dtype == np.int8:
            shifted = (values.astype(np.int16) + 128).astype(np.uint8)
            constants[name].CopyFrom(onnx.numpy_helper.from_array(shifted, name))
    for value in model.graph.value_info:
        if value.name in quantised or value.name in zeros:
            value.type.tensor_type.elem_type = onnx.TensorProto.UINT8
    used = {name for node in model.graph.node for name in node.input}
    for name in constants.keys() - used:
        model.graph.initializer.remove(constants[name])
    return model
