"""ONNX Runtime's stages as programs, with IO bindings to fixed addresses: on the GPU or, in tests, on the CPU."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from warnings import warn

from mmms_deploy.engines.cuda.executor import TensorIO
from mmms_deploy.engines.onnxruntime.libraries import plain
from mmms_deploy.errors import EngineError, MMMSDeployWarning

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}


@dataclass(frozen=True)
class Place:
    """Where ONNX Runtime executes.

    Attributes:
        provider: Its execution provider.
        device: The device whose memory is bound, as ONNX Runtime names it.
        cuda_graphs: Whether it can capture CUDA graphs there.
    """

    provider: str
    device: str
    cuda_graphs: bool


CUDA = Place("CUDAExecutionProvider", "cuda", cuda_graphs=True)
_NO_CUDA_GRAPH = "-1"
"""The CUDA graph number of a run that is not captured."""


class OnnxRuntimeProgram:
    """A stage that ONNX Runtime has loaded.

    Args:
        ort: The module.
        session: The ``InferenceSession``.
        stage: Name of the stage, for messages.
        place: Where it executes.
        run: Makes a call in the one thread for runs.
        stream: The stream on which it executes.
        capture: Whether it captures its runs as CUDA graphs.
        weights: Bytes of its weights.
        placed: Number of nodes on each provider.
        ordinal: Number of the GPU.
        strict: Whether a run that cannot be captured is an error.
    """

    def __init__(
        self,
        ort: Any,
        session: Any,
        *,
        stage: str,
        place: Place,
        run: Callable[[Callable[[], object]], None],
        stream: int,
        capture: bool,
        weights: int,
        placed: Counter[str],
        ordinal: int = 0,
        strict: bool = False,
    ) -> None:
        self.stage = stage
        self.place = place
        self.stream = stream
        self.capture = capture
        self.weights = weights
        self.device_memory = 0
        self.placed = placed
        self.run = run
        self.ordinal = ordinal
        self.strict = strict
        self._ort = ort
        self._session: Any = session
        self._numbers = itertools.count(1)
        self.io_spec: Mapping[str, TensorIO] = {
            node.name: TensorIO(_DTYPES.get(node.type, node.type), tuple(node.shape), is_input)
            for nodes, is_input in ((session.get_inputs(), True), (session.get_outputs(), False))
            for node in nodes
        }

    def executor(self) -> OnnxRuntimeExecutor:
        """Return a new IO binding, with a CUDA graph of its own if it captures."""
        if self._session is None:
            raise EngineError("this engine is closed", expected="an open engine", fix="open the bundle again")
        return OnnxRuntimeExecutor(self, self._session, str(next(self._numbers)) if self.capture else _NO_CUDA_GRAPH)

    def run_options(self, number: str) -> Any:
        """Return the options of a run, given the number of its CUDA graph."""
        options = self._ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", number)
        # The session waits when it downloads the answer. ONNX Runtime up to 1.26 waits for a replayed CUDA graph anyway
        # (https://github.com/microsoft/onnxruntime/pull/28686).
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        return options

    def close(self) -> None:
        """Release the session."""
        self._session = None


class OnnxRuntimeExecutor:
    """One session's IO binding to fixed addresses, and its CUDA graph, which ONNX Runtime knows by a number."""

    def __init__(self, program: OnnxRuntimeProgram, session: Any, number: str) -> None:
        self._program = program
        self._session = session
        self._options = program.run_options(number)
        self._binding = session.io_binding()
        self._captures = program.capture
        self._ran = False

    @property
    def is_cuda_graph(self) -> bool:
        """Whether ONNX Runtime captures its runs."""
        return self._captures

    def set_scratch(self, address: int) -> None:
        """Do nothing: ONNX Runtime has an arena of its own."""

    def bind(self, name: str, address: int) -> None:
        """Set the address of an input or output."""
        program = self._program
        io = program.io_spec[name]
        bind = self._binding.bind_input if io.is_input else self._binding.bind_output
        bind(name, program.place.device, program.ordinal, io.dtype, list(io.shape), address)

    def enqueue(self, stream: Any) -> None:
        """Enqueue one run, on the one stream that the session was made for.

        Warns:
            MMMSDeployWarning: The first run cannot be captured; all runs are sequences of operations.
        """
        program = self._program
        if int(stream) != program.stream:
            raise ValueError("ONNX Runtime executes on the stream that its session was made for")
        try:
            self._run()
        except Exception as error:  # ONNX Runtime's own types have no common base class
            if not self._captures or self._ran or program.strict:
                raise self._failed(error) from error
            self._run_uncaptured(error)
        self._ran = True

    def _run(self) -> None:
        self._program.run(lambda: self._session.run_with_iobinding(self._binding, self._options))

    def _run_uncaptured(self, refusal: Exception) -> None:
        """Run after a capture that failed, which ONNX Runtime ends by itself."""
        self._captures = False
        self._options = self._program.run_options(_NO_CUDA_GRAPH)
        try:
            self._run()
        except Exception as error:
            raise self._failed(error) from refusal
        warn(
            f"stage {self._program.stage!r} runs as a sequence of operations, not as one CUDA graph: {plain(refusal)}",
            MMMSDeployWarning,
            stacklevel=2,
        )

    def _failed(self, error: Exception) -> EngineError:
        return EngineError(
            f"ONNX Runtime failed in stage {self._program.stage!r}: {plain(error)}",
            expected="a stage that runs",
            fix="check the GPU's free memory; mmms-verify tells whether the bundle is intact",
        )

    def close(self) -> None:
        """Release the binding."""
        self._binding = None
        self._session = None
