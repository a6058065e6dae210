"""A stand-in of TensorRT: its Python API over ONNX Runtime's CPU. The names are those of the release's list.

A plan holds its ONNX graph. Only the release that made it loads it, and it runs on the CUDA stand-in in stream order.
As in the real library, enumerations are no integers, arguments have exact types, a constructor that fails raises
``TypeError``, and everything else returns None or False and says why to the logger. What a real library does with a
graph is tested with TensorRT-RTX, in ``tests/engines/tensorrt/test_rtx.py``.
"""

from __future__ import annotations

import ctypes
import json
import threading
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
from onnx import TensorProto, shape_inference

from mmms_deploy.engines.onnxruntime.cpu import import_onnxruntime
from tests.standins.cuda import FAILS, GARBAGE, GPU, CudaStandIn
from tests.support.paths import ROOT

SURFACES = ROOT / "mmms_deploy" / "engines" / "tensorrt" / "surface"
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
_UNKNOWN = frozenset({"Det"})
"""Operations that the parser does not know."""


class Member(Enum):
    """A member of an enumeration of pybind11: it converts to a number, but is not an int."""

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


Severity = Member("Severity", {"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2, "INFO": 3, "VERBOSE": 4})


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


class ILogger(Interface):
    Severity = Severity


class IProgressMonitor(Interface):
    pass


class ITensor:
    def __init__(self, name: str, dtype: Any, is_network_output: bool = False) -> None:
        self.name = name
        self.dtype = dtype
        self.is_network_output = is_network_output


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

    def set_input(self, index: int, tensor: ITensor) -> None:
        _exact(tensor, ITensor, "set_input")
        self._inputs[index] = tensor
        if index == 0 and self.type.name == "NORMALIZATION":
            self._outputs[0].dtype = tensor.dtype  # a norm is computed in the type of its input


class INetworkDefinition:
    def __init__(self, trt: Any) -> None:
        self._trt = trt
        self._layers: list[ILayer] = []
        self._model: Any = None

    def add_cast(self, input: ITensor, to_type: Any) -> ILayer:
        _exact(input, ITensor, "add_cast")
        _exact(to_type, self._trt.DataType, "add_cast")
        name = f"(Unnamed Layer* {len(self._layers)}) [Cast]"
        layer = ILayer(name, self._trt.LayerType.CAST, [input], [ITensor(f"{name}_output", to_type)])
        self._layers.append(layer)
        return layer

    def mark_output(self, tensor: ITensor) -> None:
        _exact(tensor, ITensor, "mark_output")
        tensor.is_network_output = True

    def unmark_output(self, tensor: ITensor) -> None:
        _exact(tensor, ITensor, "unmark_output")
        tensor.is_network_output = False

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


class TensorRtStandIn(ModuleType):
    """Stands in for the module of one release.

    Args:
        version: Its version; the list of its API is that of the same first two numbers, or the nearest.
        cuda: The GPU.
        scratch: Bytes of scratch memory that a run needs.

    Attributes:
        calls: What builds and runtimes were called with, in order.
        threads: Names of the threads that compiled.
        steps: How many steps a build has.
        inner_phases: Whether every step has a phase of its own.
        fuses: Whether an attention in less than float32 becomes one kernel.
        compiles_in: The type in which kernels compute, as the inspector words it; None for that of the graph.
        lists_kernels: Whether the inspector shows more than names.
        accepts_timing: Whether it takes a filled timing cache.
        fail: Called before a plan is returned; may log, and returns whether there is no plan.
        refuse: What engines and contexts refuse: ``runtime``, ``plan``, ``dtype``, ``shape``, ``location``,
            ``context``, ``address``, ``run``.
        contexts: How many execution contexts there are.
        norms: The types in which the norms of all networks were computed.
    """

    def __init__(self, version: str = "11.4.0.106", cuda: CudaStandIn = GPU, scratch: int = 1 << 20) -> None:
        super().__init__("tensorrt")
        self.__version__ = version
        self.cuda = cuda
        self.scratch = scratch
        self.stamp = f"rehearsal TensorRT {version}\n".encode()
        self.calls: list[str] = []
        self.threads: set[str] = set()
        self.steps = 3
        self.inner_phases = True
        self.fuses = True
        self.compiles_in: str | None = None
        self.lists_kernels = True
        self.accepts_timing = True
        self.fail: Callable[[Any], bool] = lambda logger: False
        self.refuse: set[str] = set()
        self.contexts = 0
        self.norms: set[str] = set()
        major = int(version.partition(".")[0])
        surface = SURFACES / {10: "tensorrt-10.16.json", 11: "tensorrt-11.4.json"}[major]
        for name, members in enumerations(json.loads(surface.read_text())["names"], major).items():
            setattr(self, name, members)
        self.old_words = major == 10
        for name, kind in classes(self).items():
            setattr(self, name, kind)
        if "tensorrt-build" in FAILS:
            self.fails_with("IBuilder::buildSerializedNetwork: Error Code 10: Could not find any implementation")

    @property
    def builds(self) -> int:
        """How often something was compiled."""
        return sum(call.startswith("aux streams") for call in self.calls)

    def fails_with(self, words: str) -> None:
        """Let every build fail."""

        def fail(logger: Any) -> bool:
            logger.log(Severity.ERROR, words)
            return True

        self.fail = fail

    def plan(self, file: Path) -> bytes:
        """Return the plan of an ONNX graph."""
        return bytes(self.stamp + onnx.load(file).SerializeToString())


def classes(trt: Any) -> dict[str, type]:
    """Return the classes of a stand-in that the package uses."""

    def _logger(given: Any, what: str) -> Any:
        if not isinstance(given, ILogger) or not getattr(given, "_made", False):
            raise TypeError(f"{what}: __init__(): incompatible constructor arguments. Invoked with: {given!r}")
        return given

    class ITimingCache:
        def __init__(self, content: bytes) -> None:
            self._content = content

        @property
        def _measured(self) -> bytes:
            return self._content.removeprefix(trt.stamp)

        def serialize(self) -> IHostMemory:
            return IHostMemory(trt.stamp + self._measured + b"+")

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
            trt.calls.append(f"{pool.name} {pool_size}")

        def clear_flag(self, flag: Any) -> None:
            _exact(flag, trt.BuilderFlag, "clear_flag")
            trt.calls.append(f"clear {flag.name}")
            self._flags.discard(flag)

        def set_flag(self, flag: Any) -> None:
            _exact(flag, trt.BuilderFlag, "set_flag")
            self._flags.add(flag)

        def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
            _exact(serialized_timing_cache, bytes, "create_timing_cache")
            return ITimingCache(serialized_timing_cache)

        def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
            _exact(cache, ITimingCache, "set_timing_cache")
            assert ignore_mismatch is False
            trt.calls.append(f"timing cache of {len(cache._measured)} bytes")
            return not cache._content or (cache._content.startswith(trt.stamp) and trt.accepts_timing)

    class Builder:
        def __init__(self, logger: Any) -> None:
            self._logger = _logger(logger, "Builder")

        def create_network(self, flags: int = 0) -> INetworkDefinition:
            _exact(flags, int, "create_network")
            if flags != 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED):
                raise ValueError(f"flags {flags} set something else than strong types")
            return INetworkDefinition(trt)

        def create_builder_config(self) -> IBuilderConfig:
            return IBuilderConfig()

        def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
            _exact(network, INetworkDefinition, "build_serialized_network")
            _exact(config, IBuilderConfig, "build_serialized_network")
            trt.threads.add(threading.current_thread().name)
            trt.calls.append(f"aux streams {config.max_aux_streams}, level {config.builder_optimization_level}")
            if not _progress(config.progress_monitor):
                self._logger.log(Severity.ERROR, "[builder.cpp::buildSerializedNetwork::1] Error Code 7: Canceled")
                return None
            if trt.fail(self._logger):
                return None
            norms = [layer for layer in network._layers if layer.type == trt.LayerType.NORMALIZATION]
            trt.norms.update(layer.get_input(0).dtype.name for layer in norms)  # type: ignore[union-attr]
            if config.profiling_verbosity != trt.ProfilingVerbosity.DETAILED:
                raise ValueError("the inspector of this plan would name its layers and nothing else")
            return IHostMemory(trt.stamp + network._model.SerializeToString())

    def _progress(monitor: Any) -> bool:
        """Call a progress monitor as a build does; False when it cancels the build."""
        if monitor is None:
            return True
        _exact(monitor, IProgressMonitor, "progress_monitor")
        monitor.phase_start("Building engine", None, trt.steps)
        for step in range(trt.steps):
            if trt.inner_phases:
                inner = f"Timing {step}"
                monitor.phase_start(inner, "Building engine", 1)
                more = monitor.step_complete(inner, 0)
                monitor.phase_finish(inner)
                if not more:
                    return False
            if not monitor.step_complete("Building engine", step):
                return False
        monitor.phase_finish("Building engine")
        return True

    class ParserError:
        def __init__(self, node: onnx.NodeProto) -> None:
            self._node = node

        def code(self) -> Any:
            return trt.ErrorCode.UNSUPPORTED_NODE

        def desc(self) -> str:
            return "Assertion failed:\n no importer"

        def node_name(self) -> str:
            return self._node.name

        def node_operator(self) -> str:
            return self._node.op_type

    class OnnxParser:
        def __init__(self, network: INetworkDefinition, logger: Any) -> None:
            _exact(network, INetworkDefinition, "OnnxParser")
            self._network, self._logger = network, _logger(logger, "OnnxParser")
            self._errors: list[ParserError] = []

        def parse_from_file(self, model: str) -> bool:
            _exact(model, str, "parse_from_file")
            read = onnx.load(model)
            self._errors = [ParserError(node) for node in read.graph.node if node.op_type in _UNKNOWN]
            if self._errors:
                return False
            typed = Typed(read)
            for node in typed.nodes:
                self._network._layers += _layers(trt, typed, node)
            self._network._model = read
            return True

        @property
        def num_errors(self) -> int:
            return len(self._errors)

        def get_error(self, index: int) -> ParserError:
            return self._errors[index]

    class EngineInspector:
        def __init__(self, typed: Typed) -> None:
            self._typed = typed

        def get_engine_information(self, format: Any) -> str:
            _exact(format, trt.LayerInformationFormat, "get_engine_information")
            if not trt.lists_kernels:
                return json.dumps({"Layers": ["a name alone"]})
            layers = list(kernels(self._typed, old=trt.old_words, fuse=trt.fuses, floats=trt.compiles_in))
            return json.dumps({"Layers": layers, "Bindings": [value.name for value in self._typed.model.graph.input]})

    class ICudaEngine:
        device_memory_size_v2 = trt.scratch

        def __init__(self, logger: Any, content: bytes) -> None:
            self._logger = logger
            self._model = onnx.load_from_string(content)
            self._typed = Typed(self._model)
            self._inputs = [value.name for value in self._model.graph.input]
            self._names = [*self._inputs, *(value.name for value in self._model.graph.output)]
            self._session: Any = None
            self._held = len(content)
            trt.cuda.reserve(self._held)

        def __del__(self) -> None:
            trt.cuda.reserve(-getattr(self, "_held", 0))

        @property
        def num_io_tensors(self) -> int:
            return len(self._names)

        def get_tensor_name(self, index: int) -> str:
            return self._names[index]

        def get_tensor_dtype(self, name: str) -> Any:
            return trt.DataType["INT64" if "dtype" in trt.refuse else self._typed.types[name]]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            shape = tuple(self._typed.shapes[name])
            return (-1, *shape[1:]) if "shape" in trt.refuse else shape

        def get_tensor_location(self, name: str) -> Any:
            return trt.TensorLocation.HOST if "location" in trt.refuse else trt.TensorLocation.DEVICE

        def get_tensor_mode(self, name: str) -> Any:
            return trt.TensorIOMode.INPUT if name in self._inputs else trt.TensorIOMode.OUTPUT

        def create_engine_inspector(self) -> EngineInspector:
            return EngineInspector(self._typed)

        def create_execution_context(self, strategy: Any) -> IExecutionContext | None:
            _exact(strategy, trt.ExecutionContextAllocationStrategy, "create_execution_context")
            assert strategy is trt.ExecutionContextAllocationStrategy.USER_MANAGED
            if "context" in trt.refuse:
                self._logger.log(Severity.ERROR, "out of memory")
                return None
            if self._session is None:
                self._session = _session(self._model)
            return IExecutionContext(self)

    class IExecutionContext:
        def __init__(self, engine: ICudaEngine) -> None:
            self._engine = engine
            self._bound: dict[str, int] = {}
            self._scratch = 0
            self._ran = False
            trt.contexts += 1

        def __del__(self) -> None:
            trt.contexts -= 1

        def set_device_memory(self, memory: int, size: int) -> None:
            _exact(memory, int, "set_device_memory")
            if size != trt.scratch or not trt.cuda.on_device(memory, size):
                raise ValueError(f"{size} bytes at {memory} are not the {trt.scratch} that are needed")
            self._scratch = memory

        def set_tensor_address(self, name: str, memory: int) -> bool:
            _exact(memory, int, "set_tensor_address")
            if "address" in trt.refuse:
                self._engine._logger.log(Severity.ERROR, f"no such tensor: {name}")
                return False
            if name not in self._engine._names or memory % 256:
                self._engine._logger.log(Severity.ERROR, f"IExecutionContext::setTensorAddress: {name}")
                return False
            self._bound[name] = memory
            return True

        def execute_async_v3(self, stream_handle: int) -> bool:
            _exact(stream_handle, int, "execute_async_v3")
            if "run" in trt.refuse:
                return False
            missing = [name for name in self._engine._names if name not in self._bound]
            if missing or not self._scratch or (trt.cuda.capturing and not self._ran):
                self._engine._logger.log(Severity.ERROR, f"IExecutionContext::enqueueV3: {missing or 'not now'}")
                return False
            bound = dict(self._bound)  # a recorded run keeps its addresses

            def run() -> None:
                binding = self._engine._session.io_binding()
                for name, address in bound.items():
                    if not trt.cuda.on_device(address, 1):
                        raise MemoryError(f"{name} is gone")
                    bind = binding.bind_input if name in self._engine._inputs else binding.bind_output
                    dtype = _NUMPY[self._engine._typed.types[name]]
                    bind(name, "cpu", 0, dtype, self._engine._typed.shapes[name], address)
                ctypes.memset(self._scratch, GARBAGE, trt.scratch)
                self._engine._session.run_with_iobinding(binding)
                self._ran = True

            return trt.cuda.submit(stream_handle, run) == 0

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self._logger = _logger(logger, "Runtime")
            if "runtime" in trt.refuse:
                raise TypeError("pybind11::init(): factory function returned nullptr")
            trt.calls.append("runtime")

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            _exact(serialized_engine, bytes, "deserialize_cuda_engine")
            if "plan" in trt.refuse:
                self._logger.log(Severity.ERROR, "The plan was made for SM 8.0 (In load at engine.cpp:7)")
                return None
            if not serialized_engine.startswith(trt.stamp):
                said = "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion failed.)"
                self._logger.log(Severity.ERROR, said)
                return None
            try:
                return ICudaEngine(self._logger, serialized_engine[len(trt.stamp) :])
            except Exception as error:  # a plan that was cut off
                self._logger.log(Severity.ERROR, f"IRuntime::deserializeCudaEngine: Error Code 1: {error}")
                return None

    made = (ITimingCache, IBuilderConfig, Builder, ParserError, OnnxParser)
    fixed = (ILogger, IProgressMonitor, IHostMemory, ITensor, ILayer, INetworkDefinition)
    return {kind.__name__: kind for kind in (*made, *fixed, EngineInspector, ICudaEngine, IExecutionContext, Runtime)}


def _session(model: onnx.ModelProto) -> Any:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
    )


def _layers(trt: Any, typed: Typed, node: onnx.NodeProto) -> Iterator[ILayer]:
    last = {value.name for value in typed.model.graph.output}

    def tensor(name: str) -> ITensor | None:
        return ITensor(name, trt.DataType[typed.types[name]], name in last) if name else None

    kind = _KINDS.get(node.op_type, "ELEMENTWISE")
    inputs = [name for name in node.input if name not in typed.weights or kind != "CONVOLUTION"]
    for name in inputs:
        if name in typed.weights:
            yield ILayer(name, trt.LayerType.CONSTANT, [], [tensor(name)])  # type: ignore[list-item]
    outputs = [tensor(name) for name in node.output if name]
    yield ILayer(node.name, trt.LayerType[kind], [tensor(name) for name in inputs], outputs)  # type: ignore[arg-type]


def kernels(typed: Typed, *, old: bool, fuse: bool = True, floats: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the layers of a compiled plan as the engine inspector lists them.

    Args:
        typed: The graph.
        old: Whether types are worded as in TensorRT 10.
        fuse: Whether attentions become one kernel.
        floats: The type of all floating-point numbers; None for those of the graph, which alone are fused.
    """
    fused = [node for node in typed.nodes if node.op_type == "Softmax" and fuse and floats is None]
    attentions = [found for node in fused if (found := typed.attention(node))]
    inside = {name for names in attentions for name in names}
    by_name = {node.name: node for node in typed.nodes}

    def tensor(name: str) -> dict[str, Any]:
        kind = typed.types[name]
        word = floats if floats and kind in ("FLOAT", "HALF", "BF16") else _WORDS.get(kind, "Float")
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
