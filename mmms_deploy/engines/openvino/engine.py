"""OpenVINO on the CPU: in float32 or BF16 from a bundle's float32 graphs, in INT8 from its quantised graphs."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle import Bundle, Precision, TensorSpec
from mmms_deploy.engines.base import EngineBase
from mmms_deploy.engines.cores import available_cores
from mmms_deploy.engines.loaded import LoadedStages
from mmms_deploy.engines.openvino.compile import Compiled, compile_stage, unquantised
from mmms_deploy.engines.openvino.library import bf16_capable, core, import_openvino, start_threads
from mmms_deploy.engines.process import OwnProcess, call
from mmms_deploy.engines.protocol import Array, EngineInfo, Value
from mmms_deploy.errors import EngineError, EngineUnavailableError
from mmms_deploy.imaging.float16 import as_float32

NAME = "openvino"
SOURCES: Mapping[Precision, Precision] = {
    Precision.FP32: Precision.FP32,
    Precision.BF16: Precision.FP32,
    Precision.INT8: Precision.INT8,
}
"""What this engine computes in, and which of a bundle's graphs it loads for that."""
_FREE_BUFFERS = 4
"""Free buffers that are kept for reuse, per tensor; a click needs two of each."""


class OpenVinoCpu(EngineBase):
    """Executes the stages of a bundle with OpenVINO's CPU plugin.

    Args:
        bundle: The bundle.
        precision: ``fp32``; or ``bf16`` on a CPU with instructions for it (AVX512_BF16 or AMX); or ``int8``, where what
            is not quantised is computed in ``bf16`` if the bundle's masks allow it and the CPU has instructions for it,
            else in ``fp32``. Inputs and outputs are float32 in all, and so are the coordinates and distances that draw
            the clicks.
        threads: Threads a stage computes with; None takes the physical cores this process may use. OpenVINO takes
            no more than there are cores.
        reason: Why this engine was chosen, for its ``info``.

    Raises:
        EngineUnavailableError: OpenVINO is not installed or cannot be loaded, or does not compute in that precision
            here.
        BundleCorruptError: A graph cannot be loaded, or its inputs and outputs are not the manifest's.
    """

    def __init__(self, bundle: Bundle, precision: Precision, threads: int | None = None, reason: str = "") -> None:
        self._own = OwnProcess("this engine", self)
        ov = import_openvino()
        if precision not in SOURCES:
            raise EngineUnavailableError(
                f"{precision} was requested of OpenVINO",
                expected=f"one of {', '.join(SOURCES)}",
                fix="pass precision=None",
                command_fix="leave --precision out",
            )
        if precision is Precision.BF16 and not bf16_capable():
            raise EngineUnavailableError(
                "bf16 was requested, and this CPU has no instructions for it",
                expected="AVX512_BF16 or AMX",
                fix='pass precision="fp32", or precision=None to take the best',
                command_fix="pass --precision fp32, or leave it out to take the best",
            )
        start_threads()
        self._ov = ov
        self._bundle = bundle
        self._graphs = {stage.name: stage.graphs[SOURCES[precision]] for stage in bundle.manifest.stages}
        threads = available_cores() if threads is None else threads
        self._precision, self._threads = precision, threads
        self._stages = LoadedStages(bundle.manifest, self._compile)
        compiled = list(self._stages)
        done, total = _in_precision(compiled, precision)
        self._info = EngineInfo(
            name=NAME,
            device="cpu",
            precision=precision,
            library="OpenVINO",
            version=str(ov.__version__).partition("-")[0],
            threads=min(stage.threads for stage in compiled),
            providers=tuple(dict.fromkeys(device for stage in compiled for device in stage.devices)),
            evidence=f"{done} of {total} matrix operations in {precision}{_others(bundle, precision)}",
            reason=reason,
        )

    def _compile(self, stage: str) -> Compiled:
        compiled = compile_stage(core(), self._bundle, stage, self._graphs[stage], self._precision, self._threads)
        if stage in self._bundle.manifest.larger:
            _in_precision([compiled], self._precision)
        return compiled

    @call
    def open(self) -> OpenVinoCpuRunner:
        """Return a new runner, for one session."""
        self._stages.check_open()
        return OpenVinoCpuRunner(self)

    def close(self) -> None:
        """Free the weights, once the runners are closed too; in a forked child, do nothing."""
        if not self._own.elsewhere:
            self._stages.close()

    def compiled(self, stage: str) -> Compiled:
        """Return a compiled stage; for the runners, which share it."""
        return self._stages[stage]

    def prepare(self, stage: str) -> float:
        """Compile a stage where it is not, and return the seconds that it took; for the runners."""
        return self._stages.prepare(stage)

    def tensor(self, spec: TensorSpec) -> Any:
        """Return a new tensor with OpenVINO's alignment; its contents are undefined."""
        return self._ov.Tensor(getattr(self._ov.Type, _TYPES[spec.dtype]), list(spec.shape))


def _others(bundle: Bundle, precision: Precision) -> str:
    """Return what a quantised graph computes its other operations in, as a part of a sentence."""
    return f", the others in {unquantised(bundle, precision)}" if precision is Precision.INT8 else ""


def _in_precision(stages: Sequence[Compiled], precision: Precision) -> tuple[int, int]:
    """Return how many matrix operations run in a precision, of how many.

    Raises:
        EngineUnavailableError: Fewer than half of them do; in 8 bits fewer than a quarter, because up to three fifths
            of the layers stay in float32 on purpose, and an attention's products always do.
    """
    done, total = (sum(column) for column in zip(*(stage.matrix for stage in stages), strict=True))
    if done < (0.25 if precision is Precision.INT8 else 0.5) * total:
        raise EngineUnavailableError(
            f"OpenVINO runs {done} of {total} matrix operations in {precision}, which was requested",
            expected=f"matrix operations in {precision}",
            fix='pass precision="fp32", or precision=None to take the best',
            command_fix="pass --precision fp32, or leave it out to take the best",
        )
    return done, total


_TYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "uint8": "u8"}


class _OpenVinoValue:
    """A tensor that is never written to as long as this handle lives, and used again for another output afterwards."""

    __slots__ = ("free", "tensor")

    def __init__(self, tensor: Any, free: deque[Any] | None = None) -> None:
        self.tensor = tensor
        self.free = free

    def __del__(self) -> None:
        if getattr(self, "free", None) is not None:  # an interrupt may come before it is set
            # Appending to a deque is atomic, so that the garbage collector may do it in any thread.
            self.free.append(self.tensor)  # type: ignore[union-attr]


class OpenVinoCpuRunner:
    """One session's use of an :class:`OpenVinoCpu`: one inference request a stage, and its output buffers."""

    def __init__(self, engine: OpenVinoCpu) -> None:
        self._own = OwnProcess("this session", self)
        self._engine: OpenVinoCpu | None = engine
        self._requests: dict[str, Any] = {}
        self._free: dict[tuple[str, str], deque[Any]] = {}

    def _open_engine(self) -> OpenVinoCpu:
        if self._engine is None:
            raise EngineError("this runner is closed", expected="an open runner", fix="open a new session")
        return self._engine

    @call
    def upload(self, spec: TensorSpec, array: Array) -> Value:
        """Copy an array of the spec's shape."""
        if tuple(array.shape) != spec.shape:
            raise ValueError(f"{spec.name}: expected shape {spec.shape}, got {tuple(array.shape)}")
        tensor = self._open_engine().tensor(spec)
        tensor.data[...] = array
        return _OpenVinoValue(tensor)

    @call
    def zeros(self, spec: TensorSpec) -> Value:
        """Return zeros of the spec's shape and dtype."""
        tensor = self._open_engine().tensor(spec)
        tensor.data[...] = 0
        return _OpenVinoValue(tensor)

    @call
    def prepare(self, stage: str) -> float:
        """Compile a stage where it is not."""
        return self._open_engine().prepare(stage)

    @call
    def run(self, stage: str, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run a stage on values of this engine."""
        engine = self._open_engine()
        compiled = engine.compiled(stage)
        graph = engine.graphs[stage]
        outputs: dict[str, Value] = {}
        request = self._requests.get(stage)
        try:
            if request is None:
                request = self._requests[stage] = compiled.model.create_infer_request()
            for i, spec in enumerate(graph.inputs):
                request.set_input_tensor(i, inputs[spec.name].tensor)  # type: ignore[attr-defined]
            for i, spec in enumerate(graph.outputs):
                value = self._output(engine, stage, spec)
                request.set_output_tensor(i, value.tensor)
                outputs[spec.name] = value
            # Not infer(), which copies every output.
            request.start_async()
            request.wait()
        except BaseException as error:
            # After an interrupt the request may still run, and write to its buffers: neither is used again.
            self._requests.pop(stage, None)
            for output in outputs.values():
                output.free = None  # type: ignore[attr-defined]
            # OpenVINO raises RuntimeError, and others from its bindings.
            if not isinstance(error, Exception):
                raise
            raise EngineError(
                f"OpenVINO failed in stage {stage!r}: {error}",
                expected="a stage that runs",
                fix="check the free memory; mmms-verify tells whether the bundle is intact",
            ) from error
        return outputs

    def _output(self, engine: OpenVinoCpu, stage: str, spec: TensorSpec) -> _OpenVinoValue:
        free = self._free.setdefault((stage, spec.name), deque(maxlen=_FREE_BUFFERS))
        try:
            tensor = free.pop()
        except IndexError:
            tensor = engine.tensor(spec)
        return _OpenVinoValue(tensor, free)

    @call
    def download(self, value: Value) -> Array:
        """Return a copy of a value."""
        self._open_engine()
        return np.array(value.tensor.data, copy=True)  # type: ignore[attr-defined]

    @call
    def download_float32(self, value: Value) -> npt.NDArray[np.float32]:
        """Return a value's numbers as float32."""
        return as_float32(self.download(value))

    def detach(self, value: Value) -> Value:
        """Return the value itself: nothing writes to it again."""
        return value

    @call
    def synchronize(self) -> None:
        """Do nothing: stages run at once."""

    def close(self) -> None:
        """Release the engine and the free buffers; in a forked child, do nothing."""
        if self._own.elsewhere:
            return
        self._engine = None
        self._requests = {}
        self._free = {}
