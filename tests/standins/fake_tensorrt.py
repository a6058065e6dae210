"""TensorRT as far as its API goes, for what needs a GPU. Every name here is one that the real ones have.

Its "plans" are JSON. What a real library does with a graph is tested with TensorRT-RTX, in ``test_tensorrt_rtx.py``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from enum import Enum, IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx


class Severity(Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ErrorCode(Enum):
    UNSUPPORTED_NODE = 8


class DataType(Enum):
    FLOAT = 0
    HALF = 1


class LayerType(Enum):
    CONVOLUTION = 0
    DECONVOLUTION = 1
    MATRIX_MULTIPLY = 2
    ELEMENTWISE = 3
    CAST = 4
    SHUFFLE = 5
    SELECT = 6
    IDENTITY = 7
    SCALE = 8
    SOFTMAX = 9


class ILogger:
    Severity = Severity

    def __init__(self) -> None:
        pass


class IProgressMonitor:
    def __init__(self) -> None:
        pass


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(Enum):
    TF32 = 3


class MemoryPoolType(Enum):
    WORKSPACE = 0


class ProfilingVerbosity(Enum):
    DETAILED = 2


class LayerInformationFormat(Enum):
    JSON = 1


_KINDS = {
    "MatMul": LayerType.MATRIX_MULTIPLY,
    "Conv": LayerType.CONVOLUTION,
    "Softmax": LayerType.SOFTMAX,
    "Cast": LayerType.CAST,
}


class ITensor:
    def __init__(self, name: str, dtype: DataType) -> None:
        self.name = name
        self.dtype = dtype


class ILayer:
    def __init__(self, node: onnx.NodeProto, dtype: DataType) -> None:
        self.name = node.name
        self.type = _KINDS.get(node.op_type, LayerType.ELEMENTWISE)
        self.metadata = f"[ONNX Layer: {node.name}]"
        self._inputs = [ITensor(name, dtype) for name in node.input]
        self._outputs = [ITensor(name, dtype) for name in node.output]
        self.num_inputs, self.num_outputs = len(self._inputs), len(self._outputs)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]

    def get_output(self, index: int) -> ITensor:
        return self._outputs[index]


class INetworkDefinition:
    def __init__(self) -> None:
        self.layers: list[ILayer] = []

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def get_layer(self, index: int) -> ILayer:
        return self.layers[index]


class FakeTensorRT(ModuleType):
    """One imported library.

    Attributes:
        calls: What was asked of it, in order.
        compiles_in: The type in which its kernels compute, as the inspector words it; None for an inspector that says
            nothing.
        fail: Called before a plan is returned; may say something to the logger and return True to return None.
        accepts_timing: Whether it takes a filled timing cache.
    """

    def __init__(self, version: str = "11.4.0.106") -> None:
        super().__init__("tensorrt")
        self.__version__ = version
        self.calls: list[str] = []
        self.compiles_in: str | None = "Half"
        self.fail: Callable[[Any], bool] = lambda logger: False
        self.accepts_timing = True
        self.steps = 3
        self.threads: set[str] = set()
        for item in (ILogger, IProgressMonitor, NetworkDefinitionCreationFlag, BuilderFlag, MemoryPoolType):
            setattr(self, item.__name__, item)
        for item in (ProfilingVerbosity, LayerInformationFormat, LayerType, DataType):
            setattr(self, item.__name__, item)
        for item in (ITensor, ILayer, INetworkDefinition):
            setattr(self, item.__name__, item)
        self._make_classes()

    def _make_classes(self) -> None:
        trt = self

        class ITimingCache:
            def __init__(self, content: bytes) -> None:
                self.content = content

            def serialize(self) -> bytes:
                return self.content + b"+"

        class IBuilderConfig:
            progress_monitor: Any = None
            profiling_verbosity: Any = None
            builder_optimization_level = 3
            max_aux_streams = -1

            def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
                trt.calls.append(f"{pool.name} {size}")

            def clear_flag(self, flag: BuilderFlag) -> None:
                trt.calls.append(f"clear {flag.name}")

            def create_timing_cache(self, content: bytes) -> ITimingCache:
                return ITimingCache(content)

            def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
                assert ignore_mismatch is False
                trt.calls.append(f"timing cache of {len(cache.content)} bytes")
                return trt.accepts_timing or not cache.content

        class Builder:
            def __init__(self, logger: Any) -> None:
                self.logger = logger

            def create_network(self, flags: int) -> INetworkDefinition:
                assert flags == 1 << 1
                return INetworkDefinition()

            def create_builder_config(self) -> IBuilderConfig:
                return IBuilderConfig()

            def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
                trt.threads.add(threading.current_thread().name)
                trt.calls.append(f"aux streams {config.max_aux_streams}, level {config.builder_optimization_level}")
                monitor = config.progress_monitor
                monitor.phase_start("Building engine", None, trt.steps)
                for step in range(trt.steps):
                    if not monitor.step_complete("Building engine", step):
                        self.logger.log(Severity.ERROR, "Error Code 7: BuildCanceled (In next at a.cpp:92)")
                        return None
                monitor.phase_finish("Building engine")
                if trt.fail(self.logger):
                    return None
                matrices = (LayerType.MATRIX_MULTIPLY, LayerType.CONVOLUTION)
                names = [layer.name for layer in network.layers if layer.type in matrices]
                return json.dumps({"matrices": names, "compiles_in": trt.compiles_in}).encode()

        class ParserError:
            def __init__(self, node: onnx.NodeProto) -> None:
                self._node = node

            def code(self) -> ErrorCode:
                return ErrorCode.UNSUPPORTED_NODE

            def desc(self) -> str:
                return "Assertion failed:\n no importer"

            def node_name(self) -> str:
                return self._node.name

            def node_operator(self) -> str:
                return self._node.op_type

        class OnnxParser:
            def __init__(self, network: INetworkDefinition, logger: Any) -> None:
                self._network = network
                self._errors: list[ParserError] = []

            def parse_from_file(self, file: str) -> bool:
                graph = onnx.load(Path(file)).graph
                self._errors = [ParserError(node) for node in graph.node if node.op_type == "Det"]
                half = graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
                dtype = DataType.HALF if half else DataType.FLOAT
                self._network.layers = [ILayer(node, dtype) for node in graph.node]
                return not self._errors

            @property
            def num_errors(self) -> int:
                return len(self._errors)

            def get_error(self, index: int) -> ParserError:
                return self._errors[index]

        class EngineInspector:
            def __init__(self, content: dict[str, Any]) -> None:
                self._content = content

            def get_engine_information(self, form: LayerInformationFormat) -> str:
                word = self._content["compiles_in"]
                if word is None:
                    return json.dumps({"Layers": ["a name alone"]})
                tensor = {"Name": "x", "Dimensions": [2, 3], "Datatype": word}
                return json.dumps(
                    {
                        "Layers": [
                            {
                                "Name": f"{name}_myl0",
                                "LayerType": "gemm",
                                "Inputs": [tensor, tensor],
                                "Outputs": [tensor],
                                "Metadata": f"[ONNX Layer: {name}]",
                            }
                            for name in self._content["matrices"]
                        ]
                    }
                )

        class ICudaEngine:
            device_memory_size_v2 = 1234

            def __init__(self, content: dict[str, Any]) -> None:
                self._content = content

            def create_engine_inspector(self) -> EngineInspector:
                return EngineInspector(self._content)

        class Runtime:
            def __init__(self, logger: Any) -> None:
                trt.calls.append("runtime")

            def deserialize_cuda_engine(self, plan: bytes) -> ICudaEngine:
                return ICudaEngine(json.loads(plan))

        for item in (ITimingCache, IBuilderConfig, Builder, ParserError, OnnxParser, EngineInspector, ICudaEngine):
            setattr(trt, item.__name__, item)
        trt.Runtime = Runtime
