"""TensorRT's Python API over ONNX Runtime's CPU: every name from the list of the release that it claims to be.

Plans hold their ONNX graph, are taken by the release that made them alone, and run on the fake CUDA runtime in stream
order. As in the real library, enumerations are no integers, arguments have exact types, a constructor that fails raises
``TypeError`` and everything else returns None or False and tells the logger.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from enum import Enum
from types import SimpleNamespace
from typing import Any

import onnx
import onnxruntime
from onnx import TensorProto, shape_inference

from tests.standins.fake_cuda import GARBAGE
from tests.standins.gpu import FAILS, GPU
from tests.support.paths import ROOT

SURFACES = ROOT / "mmms_deploy" / "engines" / "tensorrt" / "surface"
SCRATCH = 1 << 20
_TYPES = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.BOOL: "BOOL",
}
_WORDS = {"FLOAT": "Float", "HALF": "Half", "BF16": "BFloat16", "INT64": "Int64", "INT32": "Int32", "BOOL": "Bool"}
_NUMPY = {"FLOAT": "float32", "HALF": "float16", "UINT8": "uint8"}
_MATRICES = {"MatMul": "MATRIX_MULTIPLY", "Gemm": "MATRIX_MULTIPLY", "Conv": "CONVOLUTION"}
_KINDS = {
    **_MATRICES,
    "ConvTranspose": "DECONVOLUTION",
    "Softmax": "SOFTMAX",
    "Cast": "CAST",
    "Reshape": "SHUFFLE",
    "Transpose": "SHUFFLE",
    "Where": "SELECT",
    "Identity": "IDENTITY",
    "Slice": "SLICE",
    "Concat": "CONCATENATION",
    "Resize": "RESIZE",
    "Gather": "GATHER",
    "LayerNormalization": "NORMALIZATION",
    "GroupNormalization": "NORMALIZATION",
}
_NUMBERS = {"STRONGLY_TYPED": {10: 1, 11: 0}}
"""Values that differ between releases, by the first number of the release."""


class Member(Enum):
    """A member of an enumeration of pybind11: has a number and is none."""

    def __int__(self) -> int:
        return int(self.value)


def enumerations(names: dict[str, list[str]], major: int) -> dict[str, Any]:
    """Return every enumeration of a release."""
    found = {}
    for name, members in names.items():
        values = [member for member in members if member.isupper()]
        if values and {"name", "value"} <= set(members):
            numbers = {value: _NUMBERS.get(value, {}).get(major, number) for number, value in enumerate(values)}
            found[name] = Member(name, numbers)
    return found


def _exact(value: Any, kind: type, what: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{what}(): incompatible function arguments. Invoked with: {value!r}")


class IHostMemory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


class Interface:
    """A class to derive from; its own constructor has to be called."""

    def __init__(self) -> None:
        self._made = True


class ITensor:
    def __init__(self, name: str, dtype: Any) -> None:
        self.name = name
        self.dtype = dtype


class ILayer:
    def __init__(self, name: str, kind: Any, inputs: list[ITensor | None], outputs: list[ITensor]) -> None:
        self.name = name
        self.type = kind
        self.metadata = f"[ONNX Layer: {name}]"
        self._inputs, self._outputs = inputs, outputs

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_input(self, index: int) -> ITensor | None:
        return self._inputs[index] if index < len(self._inputs) else None

    def get_output(self, index: int) -> ITensor | None:
        return self._outputs[index] if index < len(self._outputs) else None


class INetworkDefinition:
    def __init__(self) -> None:
        self._layers: list[ILayer] = []
        self._model: Any = None

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    def get_layer(self, index: int) -> ILayer:
        return self._layers[index]


class Typed:
    """An ONNX graph with the type and shape of everything in it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        graph = shape_inference.infer_shapes(model, data_prop=True).graph
        self.types: dict[str, str] = {}
        self.shapes: dict[str, list[int]] = {}
        for value in (*graph.input, *graph.output, *graph.value_info):
            tensor = value.type.tensor_type
            self.types[value.name] = _TYPES[tensor.elem_type]
            self.shapes[value.name] = [side.dim_value for side in tensor.shape.dim]
        self.weights = {weight.name: weight for weight in graph.initializer}
        for name, weight in self.weights.items():
            self.types[name] = _TYPES[weight.data_type]
            self.shapes[name] = list(weight.dims)
        self.nodes = list(graph.node)
        for node in self.nodes:
            for name in node.output:
                self.types.setdefault(name, self.types.get(node.input[0], "FLOAT") if node.input else "FLOAT")
                self.shapes.setdefault(name, [])
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.users.setdefault(name, []).append(node)

    def attention(self, softmax: onnx.NodeProto) -> tuple[str, ...]:
        """Names of a softmax and the products around it, where they are in less than float32 and so become one."""
        if self.types[softmax.output[0]] == "FLOAT":
            return ()
        before = next((n for n in self._back(softmax) if n.op_type == "MatMul"), None)
        after = next((n for n in self._ahead(softmax) if n.op_type == "MatMul"), None)
        return () if before is None or after is None else (before.name, softmax.name, after.name)

    def _back(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        for _ in range(4):
            made = [self.makers[name] for name in node.input if name in self.makers]
            if not made:
                return
            node = made[0]
            yield node

    def _ahead(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        for _ in range(4):
            users = self.users.get(node.output[0], [])
            if not users:
                return
            node = users[0]
            yield node


class Library(SimpleNamespace):
    """The module of one release.

    Args:
        version: Its version; the list of its API is that of the same first two numbers, or the nearest.
    """

    def __init__(self, version: str) -> None:
        super().__init__(__version__=version)
        major = int(version.partition(".")[0])
        surface = SURFACES / {10: "tensorrt-10.16.json", 11: "tensorrt-11.4.json"}[major]
        for name, members in enumerations(json.loads(surface.read_text())["names"], major).items():
            setattr(self, name, members)
        self.old_words = major == 10
        for name, kind in classes(self).items():
            setattr(self, name, kind)


def classes(trt: Any) -> dict[str, type]:
    """Return the classes that the package uses."""
    stamp = f"rehearsal TensorRT {trt.__version__}\n".encode()

    class ILogger(Interface):
        Severity = Member("Severity", {"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2, "INFO": 3, "VERBOSE": 4})

    class IProgressMonitor(Interface):
        pass

    def _logger(given: Any, what: str) -> Any:
        if not isinstance(given, ILogger) or not getattr(given, "_made", False):
            raise TypeError(f"{what}: __init__(): incompatible constructor arguments. Invoked with: {given!r}")
        return given

    class ITimingCache:
        def __init__(self, content: bytes) -> None:
            self._content = content

        def serialize(self) -> IHostMemory:
            return IHostMemory(stamp + b"what was measured")

    class IBuilderConfig:
        def __init__(self) -> None:
            self._flags = {trt.BuilderFlag.TF32}
            self.profiling_verbosity = trt.ProfilingVerbosity.LAYER_NAMES_ONLY
            self.builder_optimization_level = 3
            self.max_aux_streams = -1
            self.progress_monitor: Any = None

        def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
            _exact(pool, trt.MemoryPoolType, "set_memory_pool_limit")
            _exact(pool_size, int, "set_memory_pool_limit")

        def clear_flag(self, flag: Any) -> None:
            _exact(flag, trt.BuilderFlag, "clear_flag")
            self._flags.discard(flag)

        def set_flag(self, flag: Any) -> None:
            _exact(flag, trt.BuilderFlag, "set_flag")
            self._flags.add(flag)

        def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
            _exact(serialized_timing_cache, bytes, "create_timing_cache")
            return ITimingCache(serialized_timing_cache)

        def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
            _exact(cache, ITimingCache, "set_timing_cache")
            return not cache._content or cache._content.startswith(stamp) or ignore_mismatch

    class Builder:
        def __init__(self, logger: Any) -> None:
            self._logger = _logger(logger, "Builder")

        def create_network(self, flags: int = 0) -> INetworkDefinition:
            _exact(flags, int, "create_network")
            if flags != 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED):
                raise ValueError(f"flags {flags} ask for something else than strong types")
            return INetworkDefinition()

        def create_builder_config(self) -> IBuilderConfig:
            return IBuilderConfig()

        def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
            _exact(network, INetworkDefinition, "build_serialized_network")
            _exact(config, IBuilderConfig, "build_serialized_network")
            if not _told(config.progress_monitor):
                self._logger.log(
                    ILogger.Severity.ERROR, "[builder.cpp::buildSerializedNetwork::1] Error Code 7: Canceled"
                )
                return None
            if "tensorrt-build" in FAILS:
                said = "IBuilder::buildSerializedNetwork: Error Code 10: Could not find any implementation"
                self._logger.log(ILogger.Severity.ERROR, said)
                return None
            if config.profiling_verbosity != trt.ProfilingVerbosity.DETAILED:
                raise ValueError("the inspector of this plan would name its layers and nothing else")
            return IHostMemory(stamp + network._model.SerializeToString())

    def _told(monitor: Any) -> bool:
        """Tell a progress monitor of a build in three nested phases; False when it wants no more."""
        if monitor is None:
            return True
        _exact(monitor, IProgressMonitor, "progress_monitor")
        monitor.phase_start("Building engine from subgraph", None, 2)
        for step in range(2):
            inner = f"Timing {step}"
            monitor.phase_start(inner, "Building engine from subgraph", 1)
            more = monitor.step_complete(inner, 0)
            monitor.phase_finish(inner)
            if not (more and monitor.step_complete("Building engine from subgraph", step)):
                return False
        monitor.phase_finish("Building engine from subgraph")
        return True

    class OnnxParser:
        def __init__(self, network: INetworkDefinition, logger: Any) -> None:
            _exact(network, INetworkDefinition, "OnnxParser")
            self._network, self._logger = network, _logger(logger, "OnnxParser")
            self.num_errors = 0

        def parse_from_file(self, model: str) -> bool:
            _exact(model, str, "parse_from_file")
            read = onnx.load(model)
            typed = Typed(read)
            for node in typed.nodes:
                self._network._layers += _layers(trt, typed, node)
            self._network._model = read
            return True

        def get_error(self, index: int) -> Any:
            raise IndexError(index)

    class EngineInspector:
        def __init__(self, typed: Typed) -> None:
            self._typed = typed

        def get_engine_information(self, format: Any) -> str:
            _exact(format, trt.LayerInformationFormat, "get_engine_information")
            layers = list(kernels(self._typed, old=trt.old_words))
            return json.dumps({"Layers": layers, "Bindings": [value.name for value in self._typed.model.graph.input]})

    class ICudaEngine:
        device_memory_size_v2 = SCRATCH

        def __init__(self, logger: Any, content: bytes) -> None:
            self._logger = logger
            self._model = onnx.load_from_string(content)
            self._typed = Typed(self._model)
            self._inputs = [value.name for value in self._model.graph.input]
            self._names = [*self._inputs, *(value.name for value in self._model.graph.output)]
            self._session: Any = None
            self._held = len(content)
            GPU.reserve(self._held)

        def __del__(self) -> None:
            GPU.reserve(-getattr(self, "_held", 0))

        @property
        def num_io_tensors(self) -> int:
            return len(self._names)

        def get_tensor_name(self, index: int) -> str:
            return self._names[index]

        def get_tensor_dtype(self, name: str) -> Any:
            return trt.DataType[self._typed.types[name]]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return tuple(self._typed.shapes[name])

        def get_tensor_location(self, name: str) -> Any:
            return trt.TensorLocation.DEVICE

        def get_tensor_mode(self, name: str) -> Any:
            return trt.TensorIOMode.INPUT if name in self._inputs else trt.TensorIOMode.OUTPUT

        def get_engine_stat(self, stat: Any) -> int:
            _exact(stat, trt.EngineStat, "get_engine_stat")
            return self._held

        def create_engine_inspector(self) -> EngineInspector:
            return EngineInspector(self._typed)

        def create_execution_context(self, strategy: Any) -> IExecutionContext | None:
            _exact(strategy, trt.ExecutionContextAllocationStrategy, "create_execution_context")
            if self._session is None:
                self._session = _session(self._model)
            return IExecutionContext(self)

    class IExecutionContext:
        def __init__(self, engine: ICudaEngine) -> None:
            self._engine = engine
            self._bound: dict[str, int] = {}
            self._scratch = 0
            self._ran = False

        def set_device_memory(self, memory: int, size: int) -> None:
            _exact(memory, int, "set_device_memory")
            if size < SCRATCH or not GPU.on_device(memory, SCRATCH):
                raise ValueError(f"{size} bytes at {memory} are not the {SCRATCH} that are needed")
            self._scratch = memory

        def set_tensor_address(self, name: str, memory: int) -> bool:
            _exact(memory, int, "set_tensor_address")
            if name not in self._engine._names or memory % 256:
                self._engine._logger.log(ILogger.Severity.ERROR, f"IExecutionContext::setTensorAddress: {name}")
                return False
            self._bound[name] = memory
            return True

        def execute_async_v3(self, stream_handle: int) -> bool:
            _exact(stream_handle, int, "execute_async_v3")
            missing = [name for name in self._engine._names if name not in self._bound]
            capturing = getattr(GPU._capturing, "stream", None) is not None
            if missing or not self._scratch or (capturing and not self._ran):
                self._engine._logger.log(
                    ILogger.Severity.ERROR, f"IExecutionContext::enqueueV3: {missing or 'not now'}"
                )
                return False
            self._ran = True
            bound = dict(self._bound)  # a recorded run keeps its addresses

            def run() -> None:
                binding = self._engine._session.io_binding()
                for name, address in bound.items():
                    if not GPU.on_device(address, 1):
                        raise MemoryError(f"{name} is gone")
                    bind = binding.bind_input if name in self._engine._inputs else binding.bind_output
                    dtype = _NUMPY[self._engine._typed.types[name]]
                    bind(name, "cpu", 0, dtype, self._engine._typed.shapes[name], address)
                ctypes.memset(self._scratch, GARBAGE, SCRATCH)
                self._engine._session.run_with_iobinding(binding)

            return GPU.submit(stream_handle, run) == 0

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self._logger = _logger(logger, "Runtime")

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            _exact(serialized_engine, bytes, "deserialize_cuda_engine")
            if not serialized_engine.startswith(stamp):
                said = "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion failed.)"
                self._logger.log(ILogger.Severity.ERROR, said)
                return None
            try:
                return ICudaEngine(self._logger, serialized_engine[len(stamp) :])
            except Exception as error:  # a plan that was cut off
                self._logger.log(ILogger.Severity.ERROR, f"IRuntime::deserializeCudaEngine: Error Code 1: {error}")
                return None

    made = (ILogger, IProgressMonitor, ITimingCache, IBuilderConfig, Builder, OnnxParser, EngineInspector)
    fixed = (IHostMemory, ITensor, ILayer, INetworkDefinition)
    return {kind.__name__: kind for kind in (*made, *fixed, ICudaEngine, IExecutionContext, Runtime)}


def _session(model: onnx.ModelProto) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
    )


def _layers(trt: Any, typed: Typed, node: onnx.NodeProto) -> Iterator[ILayer]:
    def tensor(name: str) -> ITensor | None:
        return ITensor(name, trt.DataType[typed.types[name]]) if name else None

    kind = _KINDS.get(node.op_type, "ELEMENTWISE")
    inputs = [name for name in node.input if name not in typed.weights or kind != "CONVOLUTION"]
    for name in inputs:
        if name in typed.weights:
            yield ILayer(name, trt.LayerType.CONSTANT, [], [tensor(name)])  # type: ignore[list-item]
    outputs = [tensor(name) for name in node.output if name]
    yield ILayer(node.name, trt.LayerType[kind], [tensor(name) for name in inputs], outputs)  # type: ignore[arg-type]


def kernels(typed: Typed, *, old: bool) -> Iterator[dict[str, Any]]:
    """Yield the layers of a compiled plan as the engine inspector lists them."""
    attentions = [found for node in typed.nodes if node.op_type == "Softmax" and (found := typed.attention(node))]
    inside = {name for names in attentions for name in names}
    by_name = {node.name: node for node in typed.nodes}

    def tensor(name: str) -> dict[str, Any]:
        word = _WORDS.get(typed.types[name], "Float")
        about = {"Name": name, "Dimensions": typed.shapes[name]}
        form = {"Format/Datatype": word} if old else {"Datatype": word, "Format": "(Linear) Row major linear format"}
        return {**about, **form}

    def layer(name: str, kind: str, origins: tuple[str, ...], inputs: list[str], outputs: list[str]) -> dict[str, Any]:
        return {
            "Name": name,
            "LayerType": kind,
            "Inputs": [tensor(item) for item in inputs if item],
            "Outputs": [tensor(item) for item in outputs],
            "TacticName": f"{name}_0x1f",
            "StreamId": 0,
            "Metadata": "\x1e".join(f"[ONNX Layer: {origin}]" for origin in origins),
        }

    yield layer("__myl_Move_myl0_0", "kgen", (), [typed.model.graph.input[0].name], [typed.model.graph.input[0].name])
    for number, node in enumerate(typed.nodes, 1):
        if node.name in inside:
            found = next(names for names in attentions if node.name in names)
            if node.name == found[-1]:
                first = by_name[found[0]]
                yield layer(f"_gemm_mha_v2_myl0_{number}", "kgen", found, list(first.input), list(node.output))
        elif node.op_type in _MATRICES:
            kind = "gemm" if _MATRICES[node.op_type] == "MATRIX_MULTIPLY" else "conv"
            yield layer(f"{node.name}_myl0_{number}", kind, (node.name,), list(node.input), list(node.output))
        else:
            name = f"__myl_{node.op_type[:4]}_myl0_{number}"
            yield layer(name, "kgen", (node.name,), list(node.input), list(node.output))
    # Streams wait for each other: listed, and nothing runs.
    yield {
        "Name": "signal^0_myl0_9",
        "LayerType": "signal",
        "Inputs": [],
        "Outputs": [],
        "TacticName": "",
        "StreamId": 1,
        "Metadata": "",
    }
