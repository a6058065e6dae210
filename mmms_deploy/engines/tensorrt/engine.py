"""TensorRT: plans that were compiled for this GPU, on the sessions of :mod:`mmms_deploy.engines.cuda.engine`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.cuda.devices import require_gpu
from mmms_deploy.engines.cuda.engine import CudaEngine, unavailable
from mmms_deploy.engines.cuda.executor import TensorIO
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.cuda.runtime import Cuda, import_cuda
from mmms_deploy.engines.protocol import EngineInfo
from mmms_deploy.engines.tensorrt.api import Messages, create, describe, listening, load_tensorrt, logger
from mmms_deploy.engines.tensorrt.build import BuildOptions, OnPhase
from mmms_deploy.engines.tensorrt.inspect import PlanReport
from mmms_deploy.engines.tensorrt.plans import StagePlan, plans
from mmms_deploy.errors import EngineError, EngineUnavailableError, PlanError

NAME = "tensorrt"
SOURCES: Mapping[Precision, Precision] = {
    Precision.FP32: Precision.FP32,
    Precision.FP16: Precision.FP16,
    Precision.BF16: Precision.BF16,
}
"""What this engine computes in, and which of a bundle's graphs it compiles for that."""
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "UINT8": "uint8"}


class TensorRtCuda(CudaEngine):
    """Executes the stages of a bundle with TensorRT, or TensorRT for RTX, on a GPU.

    Args:
        bundle: The bundle.
        precision: Which of its graphs to compile. They say themselves what is computed in which type, and the compiled
            plans are looked into.
        threads: Has no meaning on a GPU.
        reason: Why this engine was chosen, for its ``info``.
        options: How to work on the GPU; None for the defaults.
        build: How to compile plans that are not in the cache; None for the defaults.
        may_build: Whether to compile plans that are not in the cache, which takes minutes.
        on_progress: Told of every step of a build, from another thread; None for nobody.

    Raises:
        EngineUnavailableError: There is no usable GPU, TensorRT is not installed or does not run on it, the bundle has
            no graphs in the precision, or a stage cannot be compiled or loaded, or may not be compiled.
        BundleCorruptError: A graph is not what the manifest says.
    """

    def __init__(
        self,
        bundle: Bundle,
        precision: Precision,
        threads: int | None = None,
        reason: str = "",
        *,
        options: CudaOptions | None = None,
        build: BuildOptions | None = None,
        may_build: bool = True,
        on_progress: OnPhase | None = None,
    ) -> None:
        options = CudaOptions() if options is None else options
        # Before anything of TensorRT: without a GPU it hands out hollow objects that end the process.
        gpu = require_gpu(options.ordinal)
        trt = load_tensorrt()
        about = describe(trt)
        cuda = Cuda(import_cuda(), options.ordinal)
        with unavailable():
            made = plans(
                bundle,
                precision,
                device=options.ordinal,
                options=build,
                may_build=may_build,
                on_phase=on_progress or (lambda phase: None),
            )
            cuda.activate()
            # One for all plans, which share what it loads.
            runtime = create(trt.Runtime, logger(trt))
            if runtime is None:
                raise EngineUnavailableError(
                    f"{about} cannot be started", expected="its runtime", fix="run mmms-doctor"
                )
            programs = {name: TensorRtProgram(trt, runtime, name, plan) for name, plan in made.items()}
            super().__init__(
                bundle=bundle,
                graphs={stage.name: stage.graphs[SOURCES[precision]] for stage in bundle.manifest.stages},
                programs=programs,
                info=EngineInfo(
                    name=NAME,
                    device="cuda",
                    precision=precision,
                    library=about.title,
                    version=about.version,
                    threads=None,
                    providers=(str(gpu),),
                    evidence=_evidence(made, precision),
                    reason=reason,
                ),
                cuda=cuda,
                options=options,
            )


def _evidence(made: Mapping[str, StagePlan], precision: Precision) -> str:
    """Add up what the plans say."""
    reports = [plan.report for plan in made.values()]
    matrices: dict[str, int] = {}
    for report in reports:
        for dtype, count in report.matrices.items():
            matrices[dtype] = matrices.get(dtype, 0) + count
    return PlanReport(
        kernels=sum(report.kernels for report in reports),
        types={},
        matrices=matrices,
        wide=(),
        attentions=sum(report.attentions for report in reports),
        fused=sum(report.fused for report in reports),
        listed="plans" if all(report.listed for report in reports) else "",
        unproven=sum(report.unproven for report in reports),
        regions=sum(report.regions for report in reports),
    ).evidence(precision)


class TensorRtProgram:
    """A plan on the GPU.

    Args:
        trt: The module.
        runtime: Its runtime.
        stage: Name of the stage, for messages.
        plan: The plan.

    Raises:
        PlanError: The library does not take it.
        EngineError: It has a tensor that no stage may have.
    """

    def __init__(self, trt: Any, runtime: Any, stage: str, plan: StagePlan) -> None:
        self._trt = trt
        self._runtime = runtime
        self._stage = stage
        with listening(trt) as said:
            engine = runtime.deserialize_cuda_engine(plan.plan)
        if engine is None:
            raise PlanError(
                f"the plan of stage {stage!r} cannot be loaded{_because(said)}",
                expected="a plan that was compiled for this GPU with this version",
                fix="check the GPU's free memory (nvidia-smi)"
                + ("" if plan.file is None else f"; or delete {plan.file}, so that it is compiled again"),
            )
        self._engine: Any = engine
        self._io = {name: self._tensor(name) for name in map(engine.get_tensor_name, range(engine.num_io_tensors))}
        self._scratch = int(engine.device_memory_size_v2)
        self._weights = plan.report.weight_bytes or len(plan.plan)

    def _tensor(self, name: str) -> TensorIO:
        engine, trt = self._engine, self._trt
        dtype = engine.get_tensor_dtype(name).name
        shape = tuple(int(side) for side in engine.get_tensor_shape(name))
        on_gpu = engine.get_tensor_location(name) == trt.TensorLocation.DEVICE
        if dtype not in _DTYPES or min(shape, default=1) < 0 or not on_gpu:
            raise EngineError(
                f"stage {self._stage!r} has {name} as {dtype} {shape}",
                expected=f"a static shape on the GPU in one of {', '.join(_DTYPES.values())}",
                fix="export the checkpoint again",
            )
        return TensorIO(_DTYPES[dtype], shape, engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT)

    @property
    def io_spec(self) -> Mapping[str, TensorIO]:
        """Its inputs and outputs by name."""
        return self._io

    @property
    def weights(self) -> int:
        """Bytes of its weights; of the plan where the library does not tell."""
        return self._weights

    @property
    def device_memory(self) -> int:
        """Bytes of scratch memory that a run needs."""
        return self._scratch

    def executor(self) -> TensorRtExecutor:
        """Return a new execution context; the scratch memory is lent, so that the stages of a session share it."""
        if self._engine is None:
            raise EngineError("this engine is closed", expected="an open engine", fix="open the bundle again")
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        with listening(self._trt) as said:
            context = self._engine.create_execution_context(strategy)
        if context is None:
            raise EngineError(
                f"stage {self._stage!r} gets no execution context{_because(said)}",
                expected="room for it on the GPU",
                fix="close sessions, or other programs on the GPU (nvidia-smi lists them)",
            )
        return TensorRtExecutor(self._trt, self._stage, context, self._scratch, (self._engine, self._runtime))

    def close(self) -> None:
        """Let go of the plan; contexts keep it as long as they live."""
        self._engine = None
        self._runtime = None


class TensorRtExecutor:
    """An execution context.

    Args:
        trt: The module.
        stage: Name of the stage, for messages.
        context: The context.
        scratch: Bytes of scratch memory that it has to be lent.
        origin: What has to outlive it.
    """

    def __init__(self, trt: Any, stage: str, context: Any, scratch: int, origin: tuple[Any, ...]) -> None:
        self._trt = trt
        self._stage = stage
        self._context = context
        self._scratch = scratch
        self._origin = origin

    def set_scratch(self, address: int) -> None:
        """Give it scratch memory."""
        self._context.set_device_memory(address, self._scratch)

    def bind(self, name: str, address: int) -> None:
        """Say where an input or output is."""
        with listening(self._trt) as said:
            done = self._context.set_tensor_address(name, address)
        if not done:
            raise self._refused(f"{name} cannot be bound", said)

    def enqueue(self, stream: Any) -> None:
        """Ask for one run; on the session's own stream, because TensorRT waits on the default one."""
        with listening(self._trt) as said:
            done = self._context.execute_async_v3(int(stream))
        if not done:
            raise self._refused("cannot run", said)

    def _refused(self, what: str, said: Messages) -> EngineError:
        return EngineError(
            f"{describe(self._trt).title} failed in stage {self._stage!r}: {what}{_because(said)}",
            expected="a stage that runs",
            fix="check the GPU's free memory; mmms-verify tells whether the bundle is intact",
        )

    def close(self) -> None:
        """Let go of the context."""
        self._context = None
        self._origin = ()


def _because(said: Messages) -> str:
    text = said.text()
    return f": {text}" if text else ""
