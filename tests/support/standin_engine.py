"""The CUDA engine as it is, on the CUDA stand-in and ONNX Runtime's CPU provider."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.cuda.engine import CudaEngine
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.cuda.runtime import Cuda
from mmms_deploy.engines.onnxruntime.cpu import import_onnxruntime
from mmms_deploy.engines.protocol import EngineInfo
from mmms_deploy.engines.registry import Backend
from mmms_deploy.errors import CudaError
from tests.standins.cuda import CudaStandIn
from tests.support.standin_program import StandInProgram


def _session(bundle: Bundle, file: str) -> Any:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(bundle.file(file), sess_options=options, providers=["CPUExecutionProvider"])


class StandInEngine(CudaEngine):
    """An engine whose GPU is this process's memory.

    Args:
        standin: The CUDA runtime; None for a new one.
        options: Settings.
        shared: Whether the library executes on one stream for all sessions and remembers addresses, as ONNX Runtime
            does, instead of taking any, as TensorRT does.
    """

    def __init__(
        self,
        bundle: Bundle,
        precision: Precision = Precision.FP32,
        threads: int | None = None,
        reason: str = "",
        *,
        standin: CudaStandIn | None = None,
        options: CudaOptions | None = None,
        shared: bool = False,
    ) -> None:
        self.standin = CudaStandIn() if standin is None else standin
        cuda = Cuda(self.standin, driver=self.standin.driver_calls)
        graphs = {stage.name: stage.graphs[precision] for stage in bundle.manifest.stages}
        self.programs = {
            name: StandInProgram(self.standin, _session(bundle, graph.file), graph, scratch=0 if shared else 4096)
            for name, graph in graphs.items()
        }
        super().__init__(
            bundle=bundle,
            graphs=graphs,
            programs=self.programs,
            info=EngineInfo(
                name="standin-shared" if shared else "standin",
                device="cpu",
                precision=precision,
                library="Stand-in",
                version="1",
                threads=threads or 1,
                providers=("Stand-in",),
                evidence="a stand-in",
                reason=reason,
            ),
            cuda=cuda,
            options=CudaOptions() if options is None else options,
            stream=cuda.create_stream() if shared else None,
            keep_resources=shared,
            capture=not shared,
        )


@contextmanager
def tidy(bundle: Bundle, *, shared: bool = False) -> Iterator[StandInEngine]:
    """An engine that has to leave nothing behind."""
    engine = StandInEngine(bundle, shared=shared)
    yield engine
    engine.close()
    assert not engine.standin.leaked


def shared(*args: Any, **kwargs: Any) -> StandInEngine:
    return StandInEngine(*args, shared=True, **kwargs)


BACKENDS = tuple(
    Backend(
        name=name,
        device="cpu",
        computes=MappingProxyType({Precision.FP32: Precision.FP32}),
        installed=lambda: ("standin", "1"),
        module=__name__,
        factory=factory,
    )
    for name, factory in (("standin", "StandInEngine"), ("standin-shared", "shared"))
)
"""For the engines' registry, to run what runs on every engine."""


def on_gpu(*args: Any, **kwargs: Any) -> StandInEngine:
    engine = StandInEngine(*args, **kwargs)
    engine._info = replace(engine.info, device="cuda", threads=None)
    return engine


GPU_BACKENDS = (replace(BACKENDS[0], device="cuda", factory="on_gpu"),)
"""The same as what it stands for."""


def failure_of(step: Callable[[], object]) -> CudaError | None:
    """The error of CUDA that a step raises."""
    try:
        step()
    except CudaError as error:
        return error
    return None
