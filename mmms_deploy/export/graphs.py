"""Writing a stage's graph into a bundle, and describing it for the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import onnx
import onnx_ir as ir

from mmms_deploy.bundle import BundleWriter, Precision, Role, StageGraph, TensorSpec
from mmms_deploy.errors import ExportError
from mmms_deploy.export.cut import StageModel
from mmms_deploy.files import writing

EXTERNAL_DATA_ABOVE = 1_900_000_000
"""Bytes of weights above which a graph keeps them in a file of their own; one protobuf message ends at 2 GB."""


class Roles(Protocol):
    """What knows the roles of the stages' tensors."""

    def role(self, name: str) -> Role:
        """Return the role of an input or output of a stage."""
        ...


def write_stages(
    writer: BundleWriter, network: Roles, stages: Sequence[StageModel], precision: Precision
) -> tuple[StageGraph, ...]:
    """Write every stage's graph in one precision.

    Args:
        writer: The bundle.
        network: The network that the stages were cut from, or what else knows their tensors' roles.
        stages: The stages.
        precision: Their precision, for the files' names.

    Returns:
        Their descriptions for the manifest, in the same order.

    Raises:
        ExportError: A graph is no valid ONNX, or one of its inputs or outputs has no static type.
        OutputWriteError: It cannot be written.
    """
    graphs = []
    for stage in stages:
        file = writer.path(f"{stage.rate.name.lower()}.{precision}.onnx")
        data = save_graph(stage.model, file, writer.out)
        graph = stage.model.graph
        graphs.append(
            StageGraph(
                file=file.name,
                data=data,
                inputs=tuple(_spec(value, network) for value in graph.inputs),
                outputs=tuple(_spec(value, network) for value in graph.outputs),
            )
        )
    return tuple(graphs)


def save_graph(model: ir.Model, file: Path, out: Path) -> str | None:
    """Write a graph, with its weights beside it when they do not fit in one message, and check what was written.

    Args:
        model: The graph.
        file: The file to write.
        out: The bundle that it belongs to, for messages.

    Returns:
        Name of the file with the weights, if there is one.

    Raises:
        ExportError: The graph is no valid ONNX.
        OutputWriteError: It cannot be written.
    """
    weights = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    data = f"{file.name}.data" if weights > EXTERNAL_DATA_ABOVE else None
    with writing(out):
        ir.save(model, file, external_data=data)
    try:
        onnx.checker.check_model(str(file), full_check=data is None)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            f"the exported graph {file.name} is no valid ONNX: {error}",
            expected="a graph that onnx.checker accepts",
            fix="please report the network and the versions of torch and onnxscript",
        ) from error
    return data


def _spec(value: ir.Value, network: Roles) -> TensorSpec:
    name = str(value.name)
    if value.dtype is None or value.shape is None or not all(isinstance(n, int) for n in value.shape):
        raise ExportError(
            f"tensor {name}, an input or output of a stage, has no static type",
            expected="dtype and static shape",
        )
    shape = tuple(int(str(n)) for n in value.shape)
    return TensorSpec(name=name, role=network.role(name), dtype=value.dtype.numpy().name, shape=shape)
