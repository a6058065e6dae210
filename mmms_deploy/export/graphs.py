"""Writing a stage's graph into a bundle, and describing it for the manifest.

Where a stage comes in several sizes, or for one object and for several, all of them have the same weights. These lie
once in the bundle, in a file of their own that every one of them names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import onnx
import onnx_ir as ir

from mmms_deploy.bundle import BundleWriter, Precision, Role, StageGraph, TensorSpec
from mmms_deploy.bundle.names import without_object
from mmms_deploy.errors import ExportError
from mmms_deploy.export.cut import StageModel
from mmms_deploy.files import writing

EXTERNAL_DATA_ABOVE = 1_900_000_000
"""Bytes of weights above which a graph keeps them in a file of their own; one protobuf message ends at 2 GB."""


SHARED_ABOVE = 1024
"""Bytes of a weight above which sizes of a stage share it; libraries read shapes from smaller ones."""
_ALIGNMENT = 4096
"""Weights in a shared file begin at multiples of it, as onnx's own files of external data do: libraries map them."""


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
    sized = {stage.rate for stage in stages if stage.larger or stage.batch is not None}
    shared = {rate: _SharedWeights(writer, f"{rate.name.lower()}.{precision}.onnx.data") for rate in sized}
    graphs = []
    for stage in stages:
        file = writer.path(f"{stage.name}.{precision}.onnx")
        if stage.rate in shared:
            data: str | None = shared[stage.rate].save(stage.model, file)
        else:
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


def weight_bytes(model: ir.Model) -> int:
    """Return how many bytes the weights of a graph have."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


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
    data = f"{file.name}.data" if weight_bytes(model) > EXTERNAL_DATA_ABOVE else None
    with writing(out):
        ir.save(model, file, external_data=data)
    _check(file, full=data is None)
    return data


class _SharedWeights:
    """The file with the weights that several graphs share, each once.

    Args:
        writer: The bundle.
        name: Name of the file.
    """

    def __init__(self, writer: BundleWriter, name: str) -> None:
        self._writer, self._name = writer, name
        writer.path(name).unlink(missing_ok=True)  # of stages that were written before and are written again
        self._places: dict[bytes, tuple[int, int]] = {}
        """Offset and length of a weight, by the hash of its type and bytes."""

    def save(self, model: ir.Model, file: Path) -> str:
        """Write a graph whose weights lie in the shared file, and return that file's name.

        Raises:
            ExportError: The graph is no valid ONNX.
            OutputWriteError: It cannot be written.
        """
        weights = [v for v in model.graph.initializers.values() if v.const_value is not None]
        large = [
            value for value in weights if value.const_value is not None and value.const_value.nbytes > SHARED_ABOVE
        ]
        with writing(self._writer.out):
            self._writer.path(self._name).touch()
            with _external(large, [self._external(value) for value in large]):
                ir.save(model, file)
        _check(file, full=False)
        return self._name

    def _external(self, value: ir.Value) -> ir.ExternalTensor:
        """Return a weight as a part of the shared file, which gets it where it has it not."""
        tensor = value.const_value
        assert tensor is not None
        content = tensor.tobytes()
        key = hashlib.sha256(content).digest()
        if key not in self._places:
            with self._writer.path(self._name).open("ab") as stream:
                stream.write(b"\0" * (-stream.tell() % _ALIGNMENT))
                self._places[key] = (stream.tell(), len(content))
                stream.write(content)
        offset, length = self._places[key]
        return ir.ExternalTensor(
            self._name,
            offset,
            length,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=str(value.name),
            base_dir=self._writer.folder,
        )


@contextmanager
def _external(values: Collection[ir.Value], tensors: Collection[ir.ExternalTensor]) -> Iterator[None]:
    """Let weights lie in a file while a graph is written; afterwards they are in memory as before."""
    held = [value.const_value for value in values]
    try:
        for value, tensor in zip(values, tensors, strict=True):
            value.const_value = tensor
        yield
    finally:
        for value, before in zip(values, held, strict=True):
            value.const_value = before


def _check(file: Path, *, full: bool) -> None:
    try:
        onnx.checker.check_model(str(file), full_check=full)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            f"the exported graph {file.name} is no valid ONNX: {error}",
            expected="a graph that onnx.checker accepts",
            fix="please report the network and the versions of torch and onnxscript",
        ) from error


def _spec(value: ir.Value, network: Roles) -> TensorSpec:
    name = str(value.name)
    if value.dtype is None or value.shape is None or not all(isinstance(n, int) for n in value.shape):
        raise ExportError(
            f"tensor {name}, an input or output of a stage, has no static type",
            expected="dtype and static shape",
        )
    shape = tuple(int(str(n)) for n in value.shape)
    return TensorSpec(name=name, role=network.role(without_object(name)), dtype=value.dtype.numpy().name, shape=shape)
