"""The TensorRT engine: runs compiled plans in the sessions of :mod:`mmms_deploy.engines.cuda.engine`."""

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
from mmms_deploy.engines.tensorrt.build import BuildOptions
from mmms_deploy.engines.tensorrt.inspect import PlanReport
from mmms_deploy.engines.tensorrt.plans import StagePlan, log_builds, plans
from mmms_deploy.errors import EngineError, EngineUnavailableError, PlanError
from mmms_deploy.progress import OnProgress

NAME = "tensorrt"
SOURCES: Mapping[Precision, Precision] = {
    Precision.FP32: Precision.FP32,
    Precision.FP16: Precision.FP16,
    Precision.BF16: Precision.BF16,
}
"""The precisions of this engine, and the ONNX graphs of a bundle that it compiles for each."""
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "UINT8": "uint8"}


class TensorRtCuda(CudaEngine):
    """Executes the stages of a bundle with TensorRT, or TensorRT for RTX, on a GPU.

    Args:
        bundle: The bundle.
        precision: Which of its ONNX graphs to compile. Their tensor types decide the type of every computation, and the
            compiled plans are inspected.
        threads: Ignored on a GPU.
        reason: Why this engine was chosen, for its ``info``.
        options: Options for the GPU; None for the defaults.
        build: How to compile plans that are not in the cache; None for the defaults.
        may_build: Whether to compile plans that are not in the cache, which takes minutes.
        on_progress: Receives every step of a build, from another thread. The first build is logged as a warning too.

    Raises:
        EngineUnavailableError: There is no usable GPU, TensorRT is not installed or does not run on it, the bundle has
            no ONNX graphs in the precision, or a stage cannot be compiled or loaded, or may not be compiled.
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
        on_progress: OnProgress | None = None,
    ) -> None:
        options = CudaOptions() if options is None else options
        # Before TensorRT is used: without a GPU it returns invalid objects that end the process.
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
                allow_unproven=options.allow_unproven,
                on_progress=log_builds(bundle, precision, about, on_progress),
            )
            cuda.activate()
            # One runtime for all plans: they share what it loads.
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
    """Return the evidence of all plans together."""
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
        PlanError: The library cannot load it.
        EngineError: It has a tensor of a type, shape or place that a stage may not have.
    """

    def __init__(self, trt: Any, runtime: Any, stage: str, plan: StagePlan) -> None:
        self._trt = trt
        self._runtime = runtime
        self._stage = stage
        with listening(trt) as messages:
            engine = runtime.deserialize_cuda_engine(plan.plan)
        if engine is None:
            raise PlanError(
                f"the plan of stage {stage!r} cannot be loaded{_because(messages)}",
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
        """Bytes of its weights; of the whole plan where the library does not report them."""
        return self._weights

    @property
    def device_memory(self) -> int:
        """Bytes of scratch memory that a run needs."""
        return self._scratch

    def executor(self) -> TensorRtExecutor:
        """Return a new execution context. The session provides its scratch memory, which all its stages share."""
        if self._engine is None:
            raise EngineError("this engine is closed", expected="an open engine", fix="open the bundle again")
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        with listening(self._trt) as messages:
            context = self._engine.create_execution_context(strategy)
        if context is None:
            raise EngineError(
                f"stage {self._stage!r} gets no execution context{_because(messages)}",
                expected="room for it on the GPU",
                fix="close sessions, or other programs on the GPU (nvidia-smi lists them)",
            )
        return TensorRtExecutor(self._trt, self._stage, context, self._scratch, (self._engine, self._runtime))

    def close(self) -> None:
        """Release the plan; open contexts keep it alive."""
        self._engine = None
        self._runtime = None


class TensorRtExecutor:
    """An execution context.

    Args:
        trt: The module.
        stage: Name of the stage, for messages.
        context: The context.
        scratch: Bytes of scratch memory that it needs.
        origin: Objects that must outlive it.
    """

    def __init__(self, trt: Any, stage: str, context: Any, scratch: int, origin: tuple[Any, ...]) -> None:
        self._trt = trt
        self._stage = stage
        self._context = context
        self._scratch = scratch
        self._origin = origin

    def set_scratch(self, address: int) -> None:
        """Set the address of the scratch memory."""
        self._context.set_device_memory(address, self._scratch)

    def bind(self, name: str, address: int) -> None:
        """Set the address of an input or output."""
        with listening(self._trt) as messages:
            done = self._context.set_tensor_address(name, address)
        if not done:
            raise self._refused(f"{name} cannot be bound", messages)

    def enqueue(self, stream: Any) -> None:
        """Enqueue one run, on the session's own stream: on the default stream TensorRT synchronises."""
        with listening(self._trt) as messages:
            done = self._context.execute_async_v3(int(stream))
        if not done:
            raise self._refused("cannot run", messages)

    def _refused(self, what: str, messages: Messages) -> EngineError:
        return EngineError(
            f"{describe(self._trt).title} failed in stage {self._stage!r}: {what}{_because(messages)}",
            expected="a stage that runs",
            fix="check the GPU's free memory (nvidia-smi); mmms-verify shows whether the bundle is intact",
        )

    def close(self) -> None:
        """Release the context."""
        self._context = None
        self._origin = ()


def _because(messages: Messages) -> str:
    text = messages.text()
    return f": {text}" if text else ""
