"""Compiling one ONNX graph into a TensorRT plan: one code path for TensorRT 10.12 to 11 and for TensorRT-RTX."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mmms_deploy.bundle import Precision
from mmms_deploy.documents import document
from mmms_deploy.engines.tensorrt.api import Messages, create, describe, listening, logger
from mmms_deploy.engines.tensorrt.inspect import (
    Kernel,
    PlanReport,
    check_precision,
    kernels_of_inspector,
    kernels_of_messages,
    memory_of_messages,
    summarise,
)
from mmms_deploy.engines.tensorrt.network import read_network
from mmms_deploy.engines.tensorrt.norms import widen_norms
from mmms_deploy.engines.tensorrt.resources import missing_resource
from mmms_deploy.errors import EngineUnavailableError, PlanBuildError
from mmms_deploy.progress import OnProgress, Progress

_LEVELS = range(6)
_CLOSE_OTHERS = "close other programs on the GPU (nvidia-smi lists them)"
_FIXES = (
    (
        "builder_resource",
        f"install the builder resource library for this GPU's architecture, see {document('gpu-host')}",
        "",
    ),
    ("out of memory", _CLOSE_OTHERS, "smaller"),
    ("outofmemory", _CLOSE_OTHERS, "smaller"),
    ("insufficient memory", _CLOSE_OTHERS, "larger"),
    ("failure with error: 35", "install or update the NVIDIA driver", ""),
    ("cuda initialization", "check nvidia-smi and CUDA_VISIBLE_DEVICES", ""),
)
"""Words of the library, what to do then, and the size of workspace to try, if any."""


@dataclass(frozen=True)
class BuildOptions:
    """How to compile plans. None leaves the choice to the library.

    Attributes:
        opt_level: How long to search for fast kernels, 0 (shortest) to 5.
        workspace: The most bytes of GPU memory that one operation may use as scratch space.
        tf32: Whether float32 matrix products may be rounded to TF32 (10 bits of mantissa) on the way.
        aux_streams: How many streams a stage may use besides its own. None: no other for stages that run at every
            click, so that their CUDA graph stays simple; the library's choice for the others.
        timing_cache: Whether to use the measurements of earlier builds.
        targets: Compute capabilities to compile for ahead of time (``8.9``), TensorRT-RTX only; empty for its own
            choice.
    """

    opt_level: int | None = None
    workspace: int | None = None
    tf32: bool = False
    aux_streams: int | None = None
    timing_cache: bool = True
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.opt_level is not None and self.opt_level not in _LEVELS:
            raise PlanBuildError(f"opt_level={self.opt_level} was requested", expected="0 to 5", fix="name one")
        for name, least in (("workspace", 1 << 20), ("aux_streams", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise PlanBuildError(f"{name}={value} was requested", expected=f"{least} or more", fix=f"omit {name}")

    def key(self) -> dict[str, object]:
        """Return the options that change the plan."""
        return {name: value for name, value in asdict(self).items() if name != "timing_cache"}


@dataclass(frozen=True)
class Built:
    """A compiled stage.

    Attributes:
        plan: The plan.
        report: What the plan computes in, and what memory it needs.
        seconds: How long the library took.
        timing_cache: The library's measurements, for later builds; None when there are none to keep.
    """

    plan: bytes
    report: PlanReport
    seconds: float
    timing_cache: bytes | None = None


def build_plan(
    trt: Any,
    file: Path,
    *,
    stage: str,
    precision: Precision,
    every_click: bool,
    options: BuildOptions,
    activate: Callable[[], None] | None,
    timing_cache: bytes | None = None,
    capability: tuple[int, int] | None = None,
    allow_unproven: bool = False,
    why: str = "",
    on_progress: OnProgress | None = None,
) -> Built:
    """Compile an ONNX graph, and check that the plan computes in the requested precision.

    Args:
        trt: The library.
        file: The ONNX graph. It is strongly typed: its tensor types decide the type of every computation.
        stage: Name of the stage.
        precision: The precision that its convolutions and matrix products must be computed in.
        every_click: Whether the stage runs at every click.
        options: How to compile.
        activate: Makes the GPU current in the calling thread. None without a GPU, which only TensorRT-RTX supports.
        timing_cache: What an earlier build measured on this GPU.
        capability: The GPU's compute capability; where the build fails for want of its library, the message names it.
        allow_unproven: Whether to warn of a plan that does not compute in the precision, instead of refusing it.
        why: Why the plan is compiled; the ``detail`` of the first event.
        on_progress: Receives every phase of the library, from another thread, as a task ``stage 'click': <phase>``.

    Raises:
        PlanBuildError: The graph cannot be read or compiled; the message has the library's own words and the node.
        PlanPrecisionError: The plan does not compute in the precision.
        EngineUnavailableError: The library needs a GPU to compile, or does not know the requested target.
    """
    library = describe(trt)
    if activate is None and not library.ahead_of_time:
        raise EngineUnavailableError(
            f"{library} cannot compile stage {stage!r} on a machine without a GPU",
            expected="the GPU that will run the plan",
            fix="build on the GPU host; tensorrt-rtx compiles without a GPU",
        )
    watch = _Watch(trt, stage, why, on_progress)

    def work() -> Built:
        if activate is not None:
            activate()
        return _build(trt, file, stage, every_click, options, activate is not None, timing_cache, capability, watch)

    try:
        built = _interruptible(work, watch)
        # Not in the thread of the build: a warning is for the caller's thread.
        check_precision(built.report, precision, stage, str(library), allow_unproven=allow_unproven)
        return built
    finally:
        watch.finish_unseen()


def _build(
    trt: Any,
    file: Path,
    stage: str,
    every_click: bool,
    options: BuildOptions,
    gpu: bool,
    timing_cache: bytes | None,
    capability: tuple[int, int] | None,
    watch: _Watch,
) -> Built:
    start = time.perf_counter()
    with listening(trt) as messages:
        builder = _require(create(trt.Builder, logger(trt)), trt, stage, messages, capability)
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(flags)
        _parse(trt, network, file, stage, messages)
        facts = read_network(trt, network)
        widen_norms(trt, network)
        config = builder.create_builder_config()
        _configure(trt, config, every_click, options)
        timing = _timing_cache(trt, config, timing_cache, stage) if gpu and options.timing_cache else None
        config.progress_monitor = watch.monitor
        plan = builder.build_serialized_network(network, config)
        watch.raise_for_cancelled()
        plan = bytes(_require(plan, trt, stage, messages, capability))
        seconds = time.perf_counter() - start
        kernels, activations = _inspect(trt, plan, stage, messages) if not describe(trt).ahead_of_time else ((), None)
    activations_listed, weights = memory_of_messages(messages.details)
    reports = [
        summarise(
            facts,
            listing,
            listed=listed,
            activation_bytes=activations_listed if activations is None else activations,
            weight_bytes=weights,
        )
        for listed, listing in (("inspector", kernels), ("build", kernels_of_messages(messages.details)))
    ]
    # Take the list that shows more; the one of the compiled plan where both show the same.
    report = min(reports, key=lambda report: (not report.listed, report.unproven))
    kept = None if timing is None else bytes(timing.serialize())
    return Built(plan, report, seconds, kept)


def _parse(trt: Any, network: Any, file: Path, stage: str, messages: Messages) -> None:
    parser = _require(create(trt.OnnxParser, network, logger(trt)), trt, stage, messages)
    if parser.parse_from_file(str(file)):
        return
    faults = []
    for i in range(parser.num_errors):
        fault = parser.get_error(i)
        node = f"node {fault.node_name()} ({fault.node_operator()}): " if fault.node_name() else ""
        faults.append(f"{node}{' '.join(fault.desc().split())} [{fault.code().name}]")
    raise PlanBuildError(
        f"{describe(trt)} cannot read stage {stage!r}, {file}: {'; '.join(faults[:3]) or 'it does not say why'}",
        expected="an ONNX graph with operations that it supports",
        fix="upgrade it, run the stage with another engine, or export the checkpoint again with this version",
    )


def _configure(trt: Any, config: Any, every_click: bool, options: BuildOptions) -> None:
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    if options.opt_level is not None:
        config.builder_optimization_level = options.opt_level
    streams = 0 if options.aux_streams is None and every_click else options.aux_streams
    if streams is not None:
        config.max_aux_streams = streams
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)  # it is set by default
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        # Otherwise TensorRT-RTX allocates during a run, and the run cannot be captured as a CUDA graph.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if options.targets:
        _set_targets(trt, config, options.targets)


def _set_targets(trt: Any, config: Any, targets: tuple[str, ...]) -> None:
    if not hasattr(trt, "ComputeCapability"):
        raise EngineUnavailableError(
            f"{describe(trt)} cannot compile for {', '.join(targets)}",
            expected="no target: it always compiles for the GPU of this machine",
            fix='leave BuildOptions.targets empty, or pass library="tensorrt_rtx"',
            command_fix="omit --target, or pass --library tensorrt_rtx",
        )
    known = {name[2:-1] + "." + name[-1]: name for name in dir(trt.ComputeCapability) if name.startswith("SM")}
    unknown = [target for target in targets if target not in known]
    if unknown:
        raise EngineUnavailableError(
            f"{describe(trt)} cannot compile for compute capability {', '.join(unknown)}",
            expected=f"some of {', '.join(sorted(known, key=float))}",
            fix="use tensorrt on data-centre GPUs such as H100 (9.0)",
        )
    config.num_compute_capabilities = len(targets)
    for i, target in enumerate(targets):
        config.set_compute_capability(getattr(trt.ComputeCapability, known[target]), i)


def _timing_cache(trt: Any, config: Any, kept: bytes | None, stage: str) -> Any:
    """Attach a timing cache; it holds the measurements of earlier builds where the library accepts them."""
    cache = config.create_timing_cache(kept or b"")
    if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
        return cache
    cache = config.create_timing_cache(b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise PlanBuildError(
            f"{describe(trt)} refuses an empty timing cache for stage {stage!r}",
            expected="a library that keeps its measurements",
            fix="pass BuildOptions(timing_cache=False)",
            command_fix="pass --no-timing-cache",
        )
    return cache


def _inspect(trt: Any, plan: bytes, stage: str, messages: Messages) -> tuple[tuple[Kernel, ...], int | None]:
    """Load a plan that was just built, and return its kernels and the bytes of scratch memory that it needs."""
    runtime = _require(create(trt.Runtime, logger(trt)), trt, stage, messages)
    engine = _require(runtime.deserialize_cuda_engine(plan), trt, stage, messages)
    inspector = engine.create_engine_inspector()
    text = "" if inspector is None else inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    return kernels_of_inspector(text), int(engine.device_memory_size_v2)


def _require(thing: Any, trt: Any, stage: str, messages: Messages, capability: tuple[int, int] | None = None) -> Any:
    """Return an object of the library; raise with the library's own words when it is None.

    Args:
        thing: The object, or None.
        trt: The library.
        stage: Name of the stage.
        messages: What the library said.
        capability: The compute capability of the GPU to compile for, where the object needs its builder resource.
    """
    if thing is not None:
        return thing
    reason = messages.text() or "it does not say why"
    about = describe(trt)
    missing = None if capability is None or about.ahead_of_time else missing_resource(capability)
    if missing is not None:
        raise PlanBuildError(
            f"{about} cannot compile stage {stage!r}: {reason}; {missing}",
            expected="a plan",
            fix=missing.fix(about.version),
        )
    usual = "upgrade the library, or use another engine; mmms-verify shows whether the bundle is intact"
    fix, size = next(((fix, size) for words, fix, size in _FIXES if words in reason.lower()), (usual, ""))
    raise PlanBuildError(
        f"{about} cannot compile stage {stage!r}: {reason}",
        expected="a plan",
        fix=f"{fix}, or pass a {size} BuildOptions.workspace" if size else fix,
        command_fix=f"{fix}, or pass a {size} --workspace" if size else fix,
    )


# --- progress and interrupts ------------------------------------------------------------------------------------------


class _Watch:
    """Reports the progress of a build, and stops it. No exception may be raised inside the library's calls."""

    def __init__(self, trt: Any, stage: str, why: str, on_progress: OnProgress | None) -> None:
        self.cancelled = threading.Event()
        self.failure: BaseException | None = None
        self.stage = stage
        self._why = why
        self._on_progress = on_progress
        self._open: dict[str, tuple[int, int]] = {}
        self.monitor = self._make_monitor(trt)

    def _make_monitor(self, trt: Any) -> Any:
        watch = self

        class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.IProgressMonitor.__init__(self)

            def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
                watch.start(phase_name, parent_phase, num_steps)

            def step_complete(self, phase_name: str, step: int) -> bool:
                watch.step(phase_name, step + 1)
                return not watch.cancelled.is_set()

            def phase_finish(self, phase_name: str) -> None:
                watch.finish(phase_name)

        return Monitor()

    def start(self, name: str, parent: str | None, total: int) -> None:
        depth = self._open[parent][0] + 1 if parent in self._open else 0
        self._open[name] = depth, total
        self._report(Progress(self._task(name), 0, total, depth))

    def step(self, name: str, done: int) -> None:
        depth, total = self._open.get(name, (0, done))
        self._report(Progress(self._task(name), done, total, depth))

    def finish(self, name: str) -> None:
        depth, total = self._open.pop(name, (0, 0))
        self._report(Progress(self._task(name), total, total, depth, finished=True))

    def finish_unseen(self) -> None:
        """Report why the plan was compiled, where the build ended before its first phase."""
        if self._why and not self.cancelled.is_set():
            self._report(Progress(self._task("compiling"), 1, 1, finished=True))

    def _task(self, phase: str) -> str:
        return f"stage {self.stage!r}: {phase}"

    def _report(self, step: Progress) -> None:
        if self._on_progress is None:
            return
        why, self._why = self._why, ""
        try:
            self._on_progress(replace(step, detail=why))
        except BaseException as error:  # raised again once the library has returned
            self.failure = self.failure or error
            self.cancelled.set()

    def raise_for_cancelled(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self.cancelled.is_set():
            raise _CancelledError


class _CancelledError(Exception):
    """Ends the thread of a cancelled build."""


def _interruptible(work: Callable[[], Built], watch: _Watch) -> Built:
    """Work in another thread, so that an interrupt reaches this one, and wait until the library has stopped."""
    results: list[Built | BaseException] = []
    # Not Thread.join: after an interrupt it takes a running thread for a finished one (Python 3.11).
    over = threading.Event()

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            results.append(error)
        finally:
            over.set()

    thread = threading.Thread(target=run, name=f"build of {watch.stage}", daemon=True)
    try:
        thread.start()  # waits too, and may be interrupted when the build has begun
        while not over.wait(0.1):
            pass
    except BaseException as error:
        watch.cancelled.set()
        if not isinstance(error, RuntimeError):  # raised when the system has no thread left
            _outlast_interrupts(over)
        raise
    (result,) = results
    if isinstance(result, BaseException):
        raise result
    return result


def _outlast_interrupts(over: threading.Event) -> None:
    """Wait until a cancelled build has stopped: a process that ends while the library compiles crashes in it."""
    while not over.is_set():
        with suppress(KeyboardInterrupt, SystemExit):
            over.wait()
