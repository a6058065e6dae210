"""Stages and executors of the CUDA engine on the CUDA stand-in; ONNX Runtime computes them on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

from mmms_deploy.bundle import StageGraph
from mmms_deploy.engines.cuda.executor import TensorIO
from mmms_deploy.errors import EngineError
from tests.standins.cuda import GARBAGE, CudaStandIn


class StandInProgram:
    """A stage that ONNX Runtime executes on the CPU, in the stand-in's memory: what TensorRT's plan is on a GPU.

    It insists on what TensorRT insists on: every tensor bound, scratch memory lent, and one run before it is captured.
    """

    def __init__(self, cuda: CudaStandIn, session: Any, graph: StageGraph, scratch: int = 4096) -> None:
        self.cuda = cuda
        self.session = session
        self.graph = graph
        self.scratch = scratch
        self.executors = 0
        self.fail: str | None = None

    @property
    def io_spec(self) -> Mapping[str, TensorIO]:
        return {
            spec.name: TensorIO(spec.dtype, spec.shape, spec in self.graph.inputs)
            for spec in (*self.graph.inputs, *self.graph.outputs)
        }

    @property
    def weights(self) -> int:
        return 1000

    @property
    def device_memory(self) -> int:
        return self.scratch

    def executor(self) -> StandInExecutor:
        if self.fail == "executor":
            raise EngineError("no execution context")
        self.executors += 1
        return StandInExecutor(self)

    def close(self) -> None:
        pass


class StandInExecutor:
    def __init__(self, program: StandInProgram) -> None:
        self.program = program
        self.binding = program.session.io_binding()
        self.bound: dict[str, int] = {}
        self.lent: int | None = None
        self.ran = False
        self.open = True

    def set_scratch(self, address: int) -> None:
        self.lent = address

    def bind(self, name: str, address: int) -> None:
        spec = next(s for s in (*self.program.graph.inputs, *self.program.graph.outputs) if s.name == name)
        bind = self.binding.bind_input if spec in self.program.graph.inputs else self.binding.bind_output
        assert self.program.cuda.on_device(address, spec.nbytes)
        assert address % 256 == 0
        bind(name, "cpu", 0, spec.dtype, spec.shape, address)
        self.bound[name] = address

    def enqueue(self, stream: Any) -> None:
        program, cuda = self.program, self.program.cuda
        assert self.open
        assert set(self.bound) == set(program.io_spec)
        assert not program.scratch or (self.lent is not None and cuda.on_device(self.lent, program.scratch))
        if program.fail == "enqueue":
            raise EngineError("the library refuses")
        if cuda.capturing and not self.ran:
            raise EngineError("captured before its first run was done")

        def run() -> None:
            for name, address in self.bound.items():
                io = program.io_spec[name]
                if not cuda.on_device(address, 1):
                    raise MemoryError(f"{io} is gone")
            if self.lent is not None:
                ctypes.memset(self.lent, GARBAGE, program.scratch)
            program.session.run_with_iobinding(self.binding)
            self.ran = True

        cuda.submit(stream, run)

    def close(self) -> None:
        if self.open:
            self.program.executors -= 1
        self.open = False
