"""Casts around norms between half tensors, in an ONNX graph that TensorRT compiles without this package.

TensorRT 11 computes a norm in the type of its inputs, whatever precision the graph asks for (``stash_type``). The
engine of this package adds the casts to TensorRT's own network (:mod:`mmms_deploy.engines.tensorrt.norms`); ``trtexec``
takes the graph as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmms_deploy.errors import DoorError


def copy_with_wide_norms(source: Path, target: Path) -> None:
    """Write a copy of a graph whose norms between half tensors are float32 between casts.

    Args:
        source: The graph; the files with its weights are not read.
        target: Where the copy goes; its weights' files are those of the source, beside it.

    Raises:
        DoorError: The package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise DoorError(
            f"the form 'tensorrt' of half graphs needs onnx, which cannot be imported: {error}",
            expected="the package onnx, which writes the casts that TensorRT needs around norms",
            fix="pip install onnx, or choose the precision fp32",
            command_fix="pip install onnx, or pass --precision fp32",
        ) from error
    model = onnx.load(source, load_external_data=False)
    typed = onnx.shape_inference.infer_shapes(model).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*typed.input, *typed.value_info)}
    _widen(onnx, model.graph, kinds)
    onnx.save(model, target)


def _widen(onnx: Any, graph: Any, kinds: Mapping[str, int]) -> None:
    float32 = onnx.TensorProto.FLOAT
    half = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    nodes = []
    for node in graph.node:
        kind = kinds.get(node.input[0]) if node.op_type == "LayerNormalization" else None
        if kind not in half:
            nodes.append(node)
            continue
        result = node.output[0]
        for i, name in enumerate(node.input):
            node.input[i] = f"{result}.input{i}"
            nodes.append(onnx.helper.make_node("Cast", [name], [node.input[i]], f"{node.name}: input {i}", to=float32))
        node.output[0] = f"{result}.float32"
        nodes.append(node)
        nodes.append(onnx.helper.make_node("Cast", [node.output[0]], [result], f"{node.name}: result", to=kind))
    del graph.node[:]
    graph.node.extend(nodes)
