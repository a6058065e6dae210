"""Compiling one ONNX graph into a TensorRT plan: one code path for TensorRT 10.12 to 11 and for TensorRT-RTX."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmms_deploy.bundle import Precision
from mmms_deploy.engines.tensorrt.api import Messages, create, describe, listening, logger
from mmms_deploy.engines.tensorrt.inspect import (
    Kernel,
    PlanReport,
    kernels_of_inspector,
    kernels_of_messages,
    memory_of_messages,
    prove_precision,
    summarise,
)
from mmms_deploy.engines.tensorrt.network import read_network
from mmms_deploy.errors import EngineUnavailableError, PlanBuildError

_LEVELS = range(6)
_FIXES = (
    ("builder_resource", "install the builder resource library for this GPU's architecture, see docs/gpu-host.md"),
    ("out of memory", "close other programs on the GPU (nvidia-smi lists them), or give less --workspace"),
    ("outofmemory", "close other programs on the GPU (nvidia-smi lists them), or give less --workspace"),
    ("insufficient memory", "close other programs on the GPU (nvidia-smi lists them), or give more --workspace"),
    ("failure with error: 35", "install or update the NVIDIA driver"),
    ("cuda initialization", "check nvidia-smi and CUDA_VISIBLE_DEVICES"),
)


@dataclass(frozen=True)
class BuildOptions:
    """How plans are compiled. None takes what the library does by itself.

    Attributes:
        opt_level: How long it searches, 0 to 5.
        workspace: The most bytes of GPU memory that one operation may use as scratch space.
        tf32: Whether float32 matrix products may be rounded to TF32 (10 bits of mantissa) on the way.
        aux_streams: How many streams beside its own a stage may use. None: no other for stages that run every click,
            which then are a simple CUDA graph, and the library's own choice for the others.
        timing_cache: Whether what was measured in earlier builds is used again.
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
            raise PlanBuildError(f"opt_level={self.opt_level} was asked for", expected="0 to 5", fix="name one")
        for name, least in (("workspace", 1 << 20), ("aux_streams", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise PlanBuildError(f"{name}={value} was asked for", expected=f"{least} or more", fix=f"omit {name}")

    def key(self) -> dict[str, object]:
        """Return the options that change the plan."""
        return {name: value for name, value in asdict(self).items() if name != "timing_cache"}


@dataclass(frozen=True)
class Phase:
    """A step of a build, as the library names it; phases are nested.

    Attributes:
        stage: The stage that is compiled.
        name: Name of the phase.
        depth: 0 for the whole build.
        done: Steps that are done.
        total: Steps that it has.
        finished: Whether it is over.
    """

    stage: str
    name: str
    depth: int
    done: int
    total: int
    finished: bool = False


OnPhase = Callable[[Phase], None]
"""Called from another thread than the one that builds."""


@dataclass(frozen=True)
class Built:
    """A compiled stage.

    Attributes:
        plan: The plan.
        report: What it is.
        seconds: How long the library took.
        timing_cache: What it measured, for later builds; None when it keeps nothing.
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
    on_phase: OnPhase = lambda phase: None,
) -> Built:
    """Compile a graph, and prove that the plan computes in its precision.

    Args:
        trt: The library.
        file: The ONNX graph; strongly typed, it says itself what is computed in which type.
        stage: Name of the stage.
        precision: What its matrix operations have to be computed in.
        every_click: Whether the stage runs at every click.
        options: How to compile.
        activate: Makes the GPU the calling thread's. None without a GPU, which only TensorRT-RTX can do.
        timing_cache: What an earlier build measured on this GPU.
        on_phase: Told of every step.

    Raises:
        PlanBuildError: The graph cannot be read or compiled; the message has the library's own words and the node.
        PlanPrecisionError: The plan does not compute in the precision.
        EngineUnavailableError: The library needs a GPU to compile, or does not know the one it shall compile for.
    """
    library = describe(trt)
    if activate is None and not library.ahead_of_time:
        raise EngineUnavailableError(
            f"{library} was asked to compile stage {stage!r} on a machine without a GPU",
            expected="the GPU that will run the plan",
            fix="build on the GPU host; tensorrt-rtx compiles without a GPU",
        )
    watch = _Watch(trt, stage, on_phase)

    def work() -> Built:
        if activate is not None:
            activate()
        return _build(trt, file, stage, precision, every_click, options, activate is not None, timing_cache, watch)

    return _interruptible(work, watch)


def _build(
    trt: Any,
    file: Path,
    stage: str,
    precision: Precision,
    every_click: bool,
    options: BuildOptions,
    gpu: bool,
    timing_cache: bytes | None,
    watch: _Watch,
) -> Built:
    start = time.perf_counter()
    with listening(trt) as messages:
        builder = _made(create(trt.Builder, logger(trt)), trt, stage, messages)
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(flags)
        _parse(trt, network, file, stage, messages)
        facts = read_network(trt, network)
        config = builder.create_builder_config()
        _configure(trt, config, every_click, options)
        timing = _timing_cache(trt, config, timing_cache, stage) if gpu and options.timing_cache else None
        config.progress_monitor = watch.monitor
        plan = builder.build_serialized_network(network, config)
        watch.raise_for_cancelled()
        plan = bytes(_made(plan, trt, stage, messages))
        seconds = time.perf_counter() - start
        kernels, activations = _inspect(trt, plan, stage, messages) if not describe(trt).ahead_of_time else ((), None)
    said, weights = memory_of_messages(messages.details)
    reports = [
        summarise(
            facts,
            listing,
            listed=listed,
            activation_bytes=said if activations is None else activations,
            weight_bytes=weights,
        )
        for listed, listing in (("inspector", kernels), ("build", kernels_of_messages(messages.details)))
    ]
    # What shows more is taken; the compiled plan's own word where both show the same.
    report = min(reports, key=lambda report: (not report.listed, report.unproven))
    prove_precision(report, precision, stage, str(describe(trt)))
    kept = None if timing is None else bytes(timing.serialize())
    return Built(plan, report, seconds, kept)


def _parse(trt: Any, network: Any, file: Path, stage: str, messages: Messages) -> None:
    parser = _made(create(trt.OnnxParser, network, logger(trt)), trt, stage, messages)
    if parser.parse_from_file(str(file)):
        return
    faults = []
    for i in range(parser.num_errors):
        fault = parser.get_error(i)
        node = f"node {fault.node_name()} ({fault.node_operator()}): " if fault.node_name() else ""
        faults.append(f"{node}{' '.join(fault.desc().split())} [{fault.code().name}]")
    raise PlanBuildError(
        f"{describe(trt)} cannot read stage {stage!r}, {file}: {'; '.join(faults[:3]) or 'it does not say why'}",
        expected="an ONNX graph with operations that it knows",
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
        # Without, TensorRT-RTX allocates while it runs, and a run cannot be recorded as a CUDA graph.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if options.targets:
        _set_targets(trt, config, options.targets)


def _set_targets(trt: Any, config: Any, targets: tuple[str, ...]) -> None:
    if not hasattr(trt, "ComputeCapability"):
        raise EngineUnavailableError(
            f"{describe(trt)} was asked to compile for {', '.join(targets)}",
            expected="the GPU of this machine, for which it always compiles",
            fix="leave the targets out, or use tensorrt-rtx",
        )
    known = {name[2:-1] + "." + name[-1]: name for name in dir(trt.ComputeCapability) if name.startswith("SM")}
    unknown = [target for target in targets if target not in known]
    if unknown:
        raise EngineUnavailableError(
            f"{describe(trt)} was asked to compile for compute capability {', '.join(unknown)}",
            expected=f"some of {', '.join(sorted(known, key=float))}",
            fix="use tensorrt on data-centre GPUs such as H100 (9.0)",
        )
    config.num_compute_capabilities = len(targets)
    for i, target in enumerate(targets):
        config.set_compute_capability(getattr(trt.ComputeCapability, known[target]), i)


def _timing_cache(trt: Any, config: Any, kept: bytes | None, stage: str) -> Any:
    """Attach a timing cache, filled with what was kept, where that fits."""
    cache = config.create_timing_cache(kept or b"")
    if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
        return cache
    cache = config.create_timing_cache(b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise PlanBuildError(
            f"{describe(trt)} refuses an empty timing cache for stage {stage!r}",
            expected="a library that keeps its measurements",
            fix="build without a timing cache (--no-timing-cache)",
        )
    return cache


def _inspect(trt: Any, plan: bytes, stage: str, messages: Messages) -> tuple[tuple[Kernel, ...], int | None]:
    """Load a plan that was just built, and ask it what it consists of and how much scratch memory it wants."""
    runtime = _made(create(trt.Runtime, logger(trt)), trt, stage, messages)
    engine = _made(runtime.deserialize_cuda_engine(plan), trt, stage, messages)
    inspector = engine.create_engine_inspector()
    text = "" if inspector is None else inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    return kernels_of_inspector(text), int(engine.device_memory_size_v2)


def _made(thing: Any, trt: Any, stage: str, messages: Messages) -> Any:
    """Return what a library made, or raise with its own words when that is None."""
    if thing is not None:
        return thing
    said = messages.text() or "it does not say why"
    fix = next((fix for words, fix in _FIXES if words in said.lower()), "")
    raise PlanBuildError(
        f"{describe(trt)} cannot compile stage {stage!r}: {said}",
        expected="a plan",
        fix=fix or "upgrade the library, or run the stage with another engine; mmms-verify tells whether it is intact",
    )


# --- progress and interrupts ------------------------------------------------------------------------------------------


class _Watch:
    """Hears how far a build is, and stops it. Nothing may be raised inside of the library's calls."""

    def __init__(self, trt: Any, stage: str, on_phase: OnPhase) -> None:
        self.cancelled = threading.Event()
        self.failure: BaseException | None = None
        self.stage = stage
        self._on_phase = on_phase
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
        self._tell(Phase(self.stage, name, depth, 0, total))

    def step(self, name: str, done: int) -> None:
        depth, total = self._open.get(name, (0, done))
        self._tell(Phase(self.stage, name, depth, done, total))

    def finish(self, name: str) -> None:
        depth, total = self._open.pop(name, (0, 0))
        self._tell(Phase(self.stage, name, depth, total, total, finished=True))

    def _tell(self, phase: Phase) -> None:
        try:
            self._on_phase(phase)
        except BaseException as error:  # raised again once the library has returned
            self.failure = self.failure or error
            self.cancelled.set()

    def raise_for_cancelled(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self.cancelled.is_set():
            raise _CancelledError


class _CancelledError(Exception):
    """Ends the thread of a build that nobody waits for any more."""


def _interruptible(work: Callable[[], Built], watch: _Watch) -> Built:
    """Do something in another thread, so that an interrupt reaches this one, and wait until the library has stopped."""
    results: list[Built | BaseException] = []
    # Not Thread.join: interrupted, it takes a running thread for a finished one (Python 3.11).
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
    """Wait for a library that was told to stop: a process that ends while it still compiles crashes in it."""
    while not over.is_set():
        with suppress(KeyboardInterrupt, SystemExit):
            over.wait()
