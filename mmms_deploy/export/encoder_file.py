"""An encoder in an ONNX file: checked against its description, run for the gate, and put before the network's graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass, ShapeInferencePass
from torch import Tensor

from mmms_deploy.bundle.external_data import check_graph
from mmms_deploy.bundle.names import RGB
from mmms_deploy.engines.onnxruntime.cpu import import_onnxruntime
from mmms_deploy.errors import BundleCorruptError, ExportError, FileReadError
from mmms_deploy.export.subgraphs import subgraphs
from mmms_deploy.files import check_regular
from mmms_deploy.models.onnx_backbone import OnnxBackbone

PREFIX = "encoder."
"""Before the names of the encoder's nodes and tensors, in the graph that both are in."""


class EncoderFile:
    """An encoder that can be called like the backbone that it stands for.

    Args:
        path: The ONNX file; its weights may lie in files beside it.
        backbone: Its description.

    Raises:
        ExportError: The file cannot be read or run, or is not what the description says.
    """

    def __init__(self, path: Path, backbone: OnnxBackbone) -> None:
        self.path = path
        self.size = backbone.described.size
        self.shapes = backbone.map_shapes()
        self.outputs = [output.name for output in backbone.outputs]
        check_places(path)
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises classes of its own, without a common base
            raise self._unlike(f"ONNX Runtime cannot open it: {first_line(error)}", "an ONNX file") from error
        self.input = self._input(backbone.described.input)
        self._check_outputs()

    def __deepcopy__(self, memo: dict[int, Any]) -> EncoderFile:
        """Return itself: it never changes, and copies of a network share it."""
        return self

    def __call__(self, image: Tensor) -> tuple[Tensor, ...]:
        """(1, 3, h, w) float32 -> the described maps, finest first."""
        found = self._session.run(self.outputs, {self.input: image.detach().cpu().numpy()})
        return tuple(torch.from_numpy(array) for array in found)

    def _input(self, name: str | None) -> str:
        given = {value.name: value for value in self._session.get_inputs()}
        if len(given) != 1 or (name is not None and name not in given):
            raise self._unlike(
                f"it has the inputs {', '.join(given) or 'none'}",
                f"one input, {name!r}" if name else "one input, the image",
            )
        value = next(iter(given.values()))
        wanted = (1, 3, *self.size)
        fixed = [n for n in value.shape if isinstance(n, int)]
        fits = len(value.shape) == 4 and all(
            n == w for n, w in zip(value.shape, wanted, strict=True) if isinstance(n, int)
        )
        if value.type != "tensor(float)" or not fits:
            raise self._unlike(
                f"its input {value.name} is {value.type} {list(value.shape)}" + ("" if fixed else ", of any size"),
                f"tensor(float) {list(wanted)}: RGB, normalised as 'image' says, channels first",
            )
        return str(value.name)

    def _check_outputs(self) -> None:
        """Run it once, on grey, and look at what comes out."""
        there = [value.name for value in self._session.get_outputs()]
        if missing := [name for name in self.outputs if name not in there]:
            raise self._unlike(f"it has no output {', '.join(missing)}", f"outputs from {', '.join(there)}")
        try:
            found = self(torch.zeros(1, 3, *self.size))
        except Exception as error:
            raise self._unlike(f"ONNX Runtime cannot run it: {first_line(error)}", "an encoder that runs") from error
        for name, x, shape in zip(self.outputs, found, self.shapes, strict=True):
            if x.dtype != torch.float32 or tuple(x.shape) != (1, *shape):
                raise self._unlike(
                    f"its output {name} is {str(x.dtype).removeprefix('torch.')} {list(x.shape)}",
                    f"float32 {[1, *shape]}",
                )
            if not torch.isfinite(x).all():
                raise self._unlike(f"its output {name} is not finite on a grey image", "finite maps")

    def _unlike(self, given: str, expected: str) -> ExportError:
        return ExportError(
            f"the encoder {self.path}: {given}",
            expected=expected,
            fix="correct 'backbone.onnx' in the description, or take another file",
        )

    # --- its graph --------------------------------------------------------------------------------------------------

    def put_before(self, rest: ir.Model, inputs: tuple[str, ...], size: tuple[int, int]) -> ir.Model:
        """Put the encoder before the graph of the rest of the network.

        Args:
            rest: The graph of the rest; it is changed.
            inputs: Names of its inputs that are the encoder's maps, finest first.
            size: Height and width of the network's image.

        Returns:
            The same graph, which takes the image ``rgb`` (1, 3, H, W) in place of the maps.

        Raises:
            ExportError: The encoder's operators cannot be brought to the rest's opset.
        """
        encoder = self._converted(rest.graph.opset_imports[""])
        for domain, version in encoder.graph.opset_imports.items():
            rest.graph.opset_imports.setdefault(domain, version)
        rename(encoder.graph, PREFIX)
        image = ir.val(RGB, dtype=ir.DataType.FLOAT, shape=ir.Shape((1, 3, *size)))
        encoder_image = next(v for v in encoder.graph.inputs if v.name == PREFIX + self.input)
        head: list[ir.Node] = []
        if size != self.size:
            shape = ir.tensor(np.array([1, 3, *self.size], dtype=np.int64), name=f"{PREFIX}sizes")
            sizes = ir.val(f"{PREFIX}sizes", dtype=ir.DataType.INT64, shape=ir.Shape((4,)), const_value=shape)
            encoder.graph.initializers.add(sizes)
            head = [_resize(image, self.size, sizes)]
        ir.convenience.replace_all_uses_with(encoder_image, head[0].outputs[0] if head else image)
        maps = {str(value.name): value for value in encoder.graph.outputs}
        wanted = [maps[PREFIX + name] for name in self.outputs]
        weights = list(encoder.graph.initializers.values())
        encoder.graph.initializers.clear()
        encoder.graph.outputs.clear()
        nodes = list(encoder.graph)
        encoder.graph.remove(nodes)
        for weight in weights:
            rest.graph.initializers.add(weight)
        first = rest.graph[0]
        rest.graph.insert_before(first, [*head, *nodes])
        given = {str(value.name): value for value in rest.graph.inputs}
        for name, value, grid in zip(inputs, wanted, self.shapes, strict=True):
            value.dtype, value.shape = ir.DataType.FLOAT, ir.Shape((1, *grid))
            ir.convenience.replace_all_uses_with(given[name], value)
            rest.graph.inputs.remove(given[name])
        rest.graph.inputs.insert(0, image)
        rest.ir_version = max(rest.ir_version, encoder.ir_version)
        return rest

    def _converted(self, opset: int) -> ir.Model:
        from onnxscript import version_converter

        model = ir.load(self.path)
        ir.external_data.load_to_model(model)
        InlinePass()(model)
        own = model.graph.opset_imports.get("", opset)
        if own != opset:
            try:
                version_converter.convert_version(model, opset, fallback=True)
            except Exception as error:  # the converter raises whatever its adapters raise
                raise self._unlike(
                    f"its opset {own} cannot be converted to {opset}: {first_line(error)}",
                    f"operators that opset {opset} has; export the encoder again with this opset",
                ) from error
            if model.graph.opset_imports.get("") != opset:
                raise self._unlike(
                    f"its opset {own} cannot be converted to {opset}",
                    f"operators that opset {opset} has; export the encoder again with this opset",
                )
        # The checks of half precision look at types, and want constants where weights are.
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        ShapeInferencePass()(model)
        return model


def check_places(path: Path, what: str = "the encoder") -> None:
    """Refuse a file whose weights lie anywhere but in regular files beside it.

    Args:
        path: The ONNX file.
        what: What it is, for messages.

    Raises:
        ExportError: It cannot be read, or its weights lie elsewhere.
    """
    try:
        check_regular(path)
        beside = {file.name: file.stat().st_size for file in path.parent.iterdir() if file.is_file()}
        for name in check_graph(path, beside):
            check_regular(path.parent / name)
    except (FileReadError, BundleCorruptError, OSError) as error:
        raise ExportError(
            f"{what} {path!s:.200} cannot be read: {first_line(error)}",
            expected="an ONNX file whose weights lie in it or in files beside it",
            fix="check the path, and copy the files of its weights beside it",
        ) from error


def rename(graph: ir.Graph, prefix: str) -> None:
    """Put a prefix before every name, those in subgraphs included, so that none meets one of another graph."""
    values = [*graph.inputs, *graph.initializers.values()]
    for node in graph.all_nodes():
        node.name = f"{prefix}{node.name}"
        values += node.outputs
        for subgraph in subgraphs(node):
            values += [*subgraph.inputs, *subgraph.initializers.values()]
    for value in dict.fromkeys(values):
        if value.name:
            value.name = f"{prefix}{value.name}"


def _resize(image: ir.Value, size: tuple[int, int], sizes: ir.Value) -> ir.Node:
    """Resize the image as ``OnnxBackbone`` does in torch."""
    settings = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    output = ir.val(f"{PREFIX}image", dtype=ir.DataType.FLOAT, shape=ir.Shape((1, 3, *size)))
    return ir.node("Resize", [image, None, None, sizes], settings, outputs=[output], name=f"{PREFIX}resize")


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or its class where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
