"""Files in ONNX Runtime's own format, with weights as its graph optimiser leaves them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from mmms_deploy.models.hiera import position_map
from tests.support.hiera import TRUNK


def write_ort(
    path: Path,
    state: dict[str, torch.Tensor],
    *,
    positions: torch.Tensor | None = None,
    grid: tuple[int, int] = (64, 64),
) -> Path:
    """Write weights as an exported network that ONNX Runtime saved: linear layers transposed, positions added up.

    Args:
        path: The file.
        state: Weights of SAM 2's encoder under its names; none for another network.
        positions: What stands for the positions, in place of the tables' sum.
        grid: Height and width of the tables' sum.
    """
    constants = {"some/constant": np.ones(3, np.float32)}
    for name, tensor in state.items():
        if name.endswith(".weight") and tensor.ndim == 2:
            place = re.sub(r"\.(?!\d)", "/", name.removesuffix(".weight"))
            constants[f"/{place}/Transpose_output_0"] = tensor.T.numpy()
        elif not name.startswith(f"{TRUNK}pos_embed"):
            constants[f"model.{name}"] = tensor.numpy()
    if state:
        tables = state[f"{TRUNK}pos_embed"], state[f"{TRUNK}pos_embed_window"]
        summed = position_map(*tables, grid) if positions is None else positions
        constants["/image_encoder/trunk/Transpose_output_0"] = summed.numpy()
    initializers = [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()]
    # Every constant is read by a node, or it would be dropped.
    nodes = [helper.make_node("Add", ["x", name], [f"out_{k}"], name=f"add_{k}") for k, name in enumerate(constants)]
    outputs = [
        helper.make_tensor_value_info(f"out_{k}", TensorProto.FLOAT, list(value.shape))
        for k, value in enumerate(constants.values())
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph(nodes, "network", [x], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return path
