"""ONNX Runtime's stages as programs: IO bindings to fixed addresses, on the GPU or, in tests, on the CPU."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mmms_deploy.engines.cuda_executor import TensorIO
from mmms_deploy.errors import EngineError

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}


@dataclass(frozen=True)
class Place:
    """Where ONNX Runtime executes.

    Attributes:
        provider: Its execution provider.
        device: Its name of the device whose memory is bound.
        graphs: Whether it can record CUDA graphs there.
    """

    provider: str
    device: str
    graphs: bool


CUDA = Place("CUDAExecutionProvider", "cuda", graphs=True)


class OnnxRuntimeProgram:
    """A stage that ONNX Runtime has loaded.

    Args:
        ort: The module.
        session: The ``InferenceSession``.
        stage: Name of the stage, for messages.
        place: Where it executes.
        run: Makes a call in the thread for it.
        stream: The stream on which it executes.
        record: Whether it records CUDA graphs.
        weights: Bytes of its weights.
        placed: How many nodes lie on which provider.
        ordinal: Number of the GPU.
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
        record: bool,
        weights: int,
        placed: Counter[str],
        ordinal: int = 0,
    ) -> None:
        self.stage = stage
        self.place = place
        self.stream = stream
        self.record = record
        self.weights = weights
        self.device_memory = 0
        self.placed = placed
        self.run = run
        self.ordinal = ordinal
        self._ort = ort
        self._session: Any = session
        self._numbers = itertools.count(1)
        self.io_spec: Mapping[str, TensorIO] = {
            node.name: TensorIO(_DTYPES.get(node.type, node.type), tuple(node.shape), is_input)
            for nodes, is_input in ((session.get_inputs(), True), (session.get_outputs(), False))
            for node in nodes
        }

    def executor(self) -> OnnxRuntimeExecutor:
        """Return a new IO binding, with a CUDA graph of its own when there are any."""
        if self._session is None:
            raise EngineError("this engine is closed", expected="an open engine", fix="open the bundle again")
        options = self._ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(next(self._numbers)) if self.record else "-1")
        # The session waits when it fetches the answer.
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        return OnnxRuntimeExecutor(self, self._session, options)

    def close(self) -> None:
        """Let go of the session."""
        self._session = None


class OnnxRuntimeExecutor:
    """An IO binding to fixed addresses."""

    def __init__(self, program: OnnxRuntimeProgram, session: Any, options: Any) -> None:
        self._program = program
        self._session = session
        self._options = options
        self._binding = session.io_binding()

    @property
    def is_graph(self) -> bool:
        """Whether ONNX Runtime records its runs."""
        return self._program.record

    def lend(self, address: int) -> None:
        """Do nothing: ONNX Runtime has an arena of its own."""

    def bind(self, name: str, address: int) -> None:
        """Say where an input or output is."""
        program = self._program
        io = program.io_spec[name]
        bind = self._binding.bind_input if io.is_input else self._binding.bind_output
        bind(name, program.place.device, program.ordinal, io.dtype, list(io.shape), address)

    def enqueue(self, stream: Any) -> None:
        """Ask for one run, on the one stream that the session was made for."""
        program = self._program
        if int(stream) != program.stream:
            raise ValueError("ONNX Runtime executes on the stream that its session was made for")
        try:
            program.run(lambda: self._session.run_with_iobinding(self._binding, self._options))
        except Exception as error:  # ONNX Runtime's own types have no common base class
            raise EngineError(
                f"ONNX Runtime failed in stage {program.stage!r}: {error}",
                expected="a stage that runs",
                fix="check the GPU's free memory; mmms-verify tells whether the bundle is intact",
            ) from error

    def close(self) -> None:
        """Let go of the binding."""
        self._binding = None
        self._session = None
