"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle import Bundle, Precision, StageGraph, TensorSpec
from mmms_deploy.engines.base import EngineBase
from mmms_deploy.engines.cores import available_cores
from mmms_deploy.engines.imports import import_library
from mmms_deploy.engines.loaded import LoadedStages
from mmms_deploy.engines.process import OwnProcess, call
from mmms_deploy.engines.protocol import Array, EngineInfo, Value, checked_array, names
from mmms_deploy.engines.wheels import require_onnxruntime
from mmms_deploy.errors import BundleCorruptError, EngineError
from mmms_deploy.imaging.float16 import as_float32
from mmms_deploy.installed import pip_install

NAME = "onnxruntime"
SOURCES: Mapping[Precision, Precision] = {
    Precision.FP32: Precision.FP32,
    Precision.FP16: Precision.FP16,
    Precision.INT8: Precision.INT8,
}
"""What this engine computes in, and which of a bundle's graphs it loads for that."""
PROVIDER = "CPUExecutionProvider"
_DTYPES = {
    "float32": "tensor(float)",
    "float16": "tensor(float16)",
    "uint8": "tensor(uint8)",
}


def import_onnxruntime() -> Any:
    """Import ONNX Runtime, lazily, after checking that exactly one distribution of it is installed.

    Raises:
        EngineUnavailableError: It is not installed, or its libraries cannot be loaded.
        EngineConflictError: Two distributions overwrote each other.
    """
    name, version = require_onnxruntime()
    return import_library(
        "onnxruntime",
        *("__version__", "InferenceSession", "SessionOptions", "OrtValue", "get_available_providers"),
        called=f"{name} {version}",
        expected="a working ONNX Runtime",
        fix=f"pip install --force-reinstall {name}",
    )


class OnnxRuntimeCpu(EngineBase):
    """Executes the stages of a bundle with ONNX Runtime's CPU provider.

    Args:
        bundle: The bundle.
        precision: Which of its graphs to load. FP16 graphs run, but ONNX Runtime converts around most of their nodes,
            so they are slower than FP32.
        threads: Threads a stage computes with; None takes the physical cores this process may use.
        reason: Why this engine was chosen, for its ``info``.

    Raises:
        EngineUnavailableError: ONNX Runtime is not installed or cannot be loaded.
        EngineConflictError: Two distributions of ONNX Runtime are installed together.
        BundleCorruptError: A graph cannot be loaded, or its inputs and outputs differ from the manifest.
    """

    def __init__(self, bundle: Bundle, precision: Precision, threads: int | None = None, reason: str = "") -> None:
        self._own = OwnProcess("this engine", self)
        ort = import_onnxruntime()
        self._value = ort.OrtValue
        self._bundle = bundle
        self._graphs = {stage.name: stage.graphs[SOURCES[precision]] for stage in bundle.manifest.stages}
        threads = available_cores() if threads is None else threads
        self._stages: LoadedStages[Any] = LoadedStages(
            bundle.manifest,
            lambda name: _load(ort, bundle, self._graphs[name], threads=threads, stage=name),
        )
        self._info = EngineInfo(
            name=NAME,
            device="cpu",
            precision=precision,
            library="ONNX Runtime",
            version=str(ort.__version__),
            threads=threads,
            providers=(PROVIDER,),
            evidence=f"graphs in {precision}, which this library computes as they are",
            reason=reason,
        )

    @call
    def open(self) -> OnnxRuntimeCpuRunner:
        """Return a new runner, for one session."""
        self._stages.check_open()
        return OnnxRuntimeCpuRunner(self)

    def close(self) -> None:
        """Free the weights; in a forked child, do nothing."""
        if not self._own.elsewhere:
            self._stages.close()

    @call
    def prepare(self, stage: str) -> float:
        """Load a stage where it is not, and return the seconds that it took."""
        return self._stages.prepare(stage)

    @call
    def execute(self, stage: str, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run a stage. Any number of runners may call it at the same time."""
        session = self._stages[stage]
        outputs = names(self._graphs[stage].outputs)
        try:
            values = session.run_with_ort_values(outputs, dict(inputs))
        # ONNX Runtime raises its own exception types, which derive from RuntimeError or straight from Exception.
        except Exception as error:
            raise EngineError(
                f"ONNX Runtime failed in stage {stage!r}: {error}",
                expected="a stage that runs",
                fix="check the free memory; mmms-verify tells whether the bundle is intact",
            ) from error
        return dict(zip(outputs, values, strict=True))

    @call
    def to_device(self, array: Array) -> Value:
        """Wrap an array that is never written to again; no byte is copied on the CPU."""
        return self._value.ortvalue_from_numpy(array)


class OnnxRuntimeCpuRunner:
    """One session's use of an :class:`OnnxRuntimeCpu`; ONNX Runtime allocates every output anew."""

    def __init__(self, engine: OnnxRuntimeCpu) -> None:
        self._own = OwnProcess("this session", self)
        self._engine: OnnxRuntimeCpu | None = engine

    def _open_engine(self) -> OnnxRuntimeCpu:
        if self._engine is None:
            raise EngineError("this runner is closed", expected="an open runner", fix="open a new session")
        return self._engine

    @call
    def upload(self, spec: TensorSpec, array: Array) -> Value:
        """Copy an array of the spec's shape."""
        return self._open_engine().to_device(checked_array(spec, array))

    @call
    def zeros(self, spec: TensorSpec) -> Value:
        """Return zeros of the spec's shape and dtype."""
        return self._open_engine().to_device(np.zeros(spec.shape, dtype=np.dtype(spec.dtype)))

    @call
    def prepare(self, stage: str) -> float:
        """Load a stage where it is not."""
        return self._open_engine().prepare(stage)

    @call
    def run(self, stage: str, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run a stage on values of this engine."""
        return self._open_engine().execute(stage, inputs)

    @call
    def download(self, value: Value) -> Array:
        """Return a copy of a value."""
        self._open_engine()
        # numpy() may be a view of memory that ends with the value, https://github.com/microsoft/onnxruntime/pull/28088,
        # and writing to a view would change the value.
        return np.array(value.numpy(), copy=True)  # type: ignore[attr-defined]

    @call
    def download_float32(self, value: Value) -> npt.NDArray[np.float32]:
        """Return a value's numbers as float32."""
        return as_float32(self.download(value))

    def detach(self, value: Value) -> Value:
        """Return the value itself: nothing writes to it again."""
        return value

    @call
    def synchronize(self) -> None:
        """Do nothing: a stage is done when ``run`` returns."""

    def close(self) -> None:
        """Release the engine; in a forked child, do nothing."""
        if not self._own.elsewhere:
            self._engine = None


def session_options(ort: Any, threads: int) -> Any:
    """Return the options of a stage's session.

    Args:
        ort: The module.
        threads: Threads that the stage computes with.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Each stage of a bundle is a session of this process. The threads of an idle session would spin on the cores of the
    # busy one, which costs a click 35 to 50 %.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _load(ort: Any, bundle: Bundle, graph: StageGraph, *, threads: int, stage: str) -> Any:
    options = session_options(ort, threads)
    file = bundle.file(graph.file)
    try:
        session = ort.InferenceSession(file, sess_options=options, providers=[PROVIDER])
    except Exception as error:  # as above: no common base class
        raise BundleCorruptError(
            f"stage {stage!r} of {bundle.path} cannot be loaded: {error}",
            expected=f"an ONNX graph that ONNX Runtime {ort.__version__} can run",
            fix="upgrade onnxruntime, or export the checkpoint again",
        ) from error
    providers = list(session.get_providers())
    if providers != [PROVIDER]:
        raise EngineError(
            f"ONNX Runtime runs stage {stage!r} on {', '.join(providers)}",
            expected=PROVIDER,
            fix=f"in a fresh environment, {pip_install('cpu')}",
        )
    _check_border(bundle, stage, graph.inputs, session.get_inputs(), "inputs")
    _check_border(bundle, stage, graph.outputs, session.get_outputs(), "outputs")
    return session


def _check_border(bundle: Bundle, stage: str, specs: tuple[TensorSpec, ...], nodes: Any, side: str) -> None:
    promised = [(spec.name, _DTYPES.get(spec.dtype, spec.dtype), tuple(spec.shape)) for spec in specs]
    found = [(node.name, node.type, tuple(node.shape)) for node in nodes]
    if promised != found:
        raise BundleCorruptError(
            f"stage {stage!r} of {bundle.path} has the {side} {found}",
            expected=f"what its manifest says: {promised}",
            fix="export the checkpoint again",
        )
