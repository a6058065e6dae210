"""A file of ONNX Runtime's own format (.ort) as an ONNX graph, which every engine reads.

Such a file is a flatbuffer of the graph after ONNX Runtime's first optimisations. As long as these left ONNX's own
operators, nothing is lost: the graph computes the same numbers, bit by bit. ONNX Runtime's wheel holds the schema.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import AttributeProto, helper, numpy_helper

from mmms_deploy import telemetry
from mmms_deploy.errors import ExportError, FileReadError
from mmms_deploy.files import read_bytes
from mmms_deploy.installed import pip_install

_LIMIT = 2**31
"""Bytes; flatbuffers end there."""
_FORMAT = "onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession"
"""The module with the schema's root; importing it imports ONNX Runtime."""
_MOST = 1 << 20
"""The most nodes, constants or names of a graph."""


def begins_as_ort(path: Path) -> bool:
    """Return whether a file begins as ONNX Runtime's own format does; False where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(8)[4:8] == b"ORTM"
    except OSError:
        return False


def read_ort_graph(path: Path) -> ir.Model:
    """Read a graph from a file of ONNX Runtime's own format.

    Args:
        path: The file.

    Returns:
        The graph, its nodes in the order in which they run.

    Raises:
        ExportError: The file is damaged, ONNX Runtime's wheel lacks the schema, or the graph has nodes that only ONNX
            Runtime knows, or graphs inside of nodes.
    """
    try:
        content = read_bytes(path, _LIMIT)
        model = ir.serde.deserialize_model(_model(_root(content), path))
        model.graph.sort()
    except FileReadError as error:
        raise ExportError(
            f"{path!s:.200} cannot be read: {error.reason}", expected="a file of ONNX Runtime's own format (.ort)"
        ) from error
    # What the flatbuffer reader meets when an offset or a length in it is wrong, and onnx-ir when the graph is.
    except (
        struct.error, ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, MemoryError
    ) as error:  # fmt: skip
        raise ExportError(
            f"{path} is no readable file of ONNX Runtime: {type(error).__name__}: {error}",
            expected="a complete .ort file",
            fix="copy it again and compare its hash with the source's",
        ) from error
    return model


def _root(content: bytes) -> Any:
    try:
        with telemetry.off("onnxruntime"):
            schema = import_module(_FORMAT)
    except ImportError as error:
        raise ExportError(
            f"reading ONNX Runtime's own format needs a module that is not installed: {error.name or error}",
            expected="onnxruntime with onnxruntime.tools.ort_format_model, and flatbuffers",
            fix=pip_install("export,cpu"),
        ) from error
    return schema.InferenceSession.GetRootAsInferenceSession(content, 0).Model()


def _model(root: Any, path: Path) -> onnx.ModelProto:
    graph = root.Graph()
    nodes = [_node(graph.Nodes(i), path) for i in _range(graph.NodesLength())]
    types = {_text(arg.Name()): arg for arg in (graph.NodeArgs(i) for i in _range(graph.NodeArgsLength()))}
    constants = [_tensor(graph.Initializers(i)) for i in _range(graph.InitializersLength())]
    known = {tensor.name for tensor in constants}
    inputs = [_text(graph.Inputs(i)) for i in _range(graph.InputsLength())]
    outputs = [_text(graph.Outputs(i)) for i in _range(graph.OutputsLength())]
    if graph.SparseInitializersLength():
        raise _unlike(path, "it has sparse constants")
    domains = {node.domain for node in nodes} | {""}
    opsets = [(_text(o.Domain()), o.Version()) for o in (root.OpsetImport(i) for i in _range(root.OpsetImportLength()))]
    made = helper.make_graph(
        nodes,
        "graph",
        [_value(types[name]) for name in inputs if name not in known],
        [_value(types[name]) for name in outputs],
        constants,
    )
    imports = [helper.make_opsetid(domain, int(version)) for domain, version in opsets if domain in domains]
    return helper.make_model(made, opset_imports=imports, ir_version=int(root.IrVersion()))


def _node(node: Any, path: Path) -> onnx.NodeProto:
    name, domain = _text(node.OpType()), _text(node.Domain())
    if domain not in ("", "ai.onnx"):
        raise _unlike(path, f"its operator {domain}.{name} is ONNX Runtime's own")
    made = onnx.NodeProto(
        op_type=name,
        name=_text(node.Name()),
        input=[_text(node.Inputs(i)) for i in _range(node.InputsLength())],
        output=[_text(node.Outputs(i)) for i in _range(node.OutputsLength())],
    )
    made.attribute.extend(_attribute(node.Attributes(i), path) for i in _range(node.AttributesLength()))
    return made


_LISTS: dict[int, tuple[str, str, Callable[[Any], Any]]] = {
    AttributeProto.FLOATS: ("Floats", "floats", float),
    AttributeProto.INTS: ("Ints", "ints", int),
    AttributeProto.STRINGS: ("Strings", "strings", bytes),
}


def _attribute(attribute: Any, path: Path) -> onnx.AttributeProto:
    kind = int(attribute.Type())
    made = onnx.AttributeProto(name=_text(attribute.Name()), type=kind)  # type: ignore[arg-type]
    if kind == AttributeProto.FLOAT:
        made.f = float(attribute.F())
    elif kind == AttributeProto.INT:
        made.i = int(attribute.I())
    elif kind == AttributeProto.STRING:
        made.s = bytes(attribute.S() or b"")
    elif kind == AttributeProto.TENSOR:
        made.t.CopyFrom(_tensor(attribute.T()))
    elif kind in _LISTS:
        reader, field, convert = _LISTS[kind]
        count = getattr(attribute, f"{reader}Length")()
        getattr(made, field).extend(convert(getattr(attribute, reader)(i)) for i in _range(count))
    else:
        raise _unlike(path, f"a node has the attribute {made.name!r} of kind {kind}")
    return made


def _tensor(tensor: Any) -> onnx.TensorProto:
    kind = int(tensor.DataType())
    shape = tuple(int(tensor.Dims(i)) for i in _range(tensor.DimsLength()))
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    raw = tensor.RawDataAsNumpy()
    content = b"" if isinstance(raw, int) else raw.tobytes()
    if min(shape, default=0) < 0 or len(content) != dtype.itemsize * math.prod(shape):
        raise ValueError(f"the constant {_text(tensor.Name())!r:.80} has a shape that does not fit its bytes")
    return numpy_helper.from_array(np.frombuffer(content, dtype=dtype).reshape(shape), _text(tensor.Name()))


def _value(arg: Any) -> onnx.ValueInfoProto:
    """Return name, type and shape of an input or output."""
    schema = import_module(f"{_FORMAT.rpartition('.')[0]}.TensorTypeAndShape")
    table = arg.Type().Value()
    tensor = schema.TensorTypeAndShape()
    tensor.Init(table.Bytes, table.Pos)
    dims = tensor.Shape()
    shape = None if dims is None else list(_dimensions(dims))
    return helper.make_tensor_value_info(_text(arg.Name()), int(tensor.ElemType()), shape)


def _dimensions(shape: Any) -> Iterator[int | str | None]:
    for i in _range(shape.DimLength()):
        value = shape.Dim(i).Value()
        name = value.DimParam()
        yield _text(name) if name else int(value.DimValue()) if int(value.DimType()) == 1 else None


def _range(length: int) -> range:
    if not 0 <= length <= _MOST:
        raise ValueError(f"a list of {length} entries")
    return range(length)


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode()


def _unlike(path: Path, given: str) -> ExportError:
    return ExportError(
        f"{path}: {given}",
        expected="a graph of ONNX's own operators",
        fix="take the .onnx file that it was made from, or one that was saved with ONNX Runtime's basic optimisations",
    )
