"""The plans of a bundle: fetched from the cache when they were compiled for exactly this, compiled otherwise.

Nothing of TensorRT is touched before the CUDA runtime has found the GPU: without one, TensorRT hands out hollow objects
that end the process when they are used. Only bytes that this user's own build wrote, with their checksum, are returned.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from mmms_deploy.bundle import Bundle, Precision, Rate, Stage, sha256_of
from mmms_deploy.engines.cuda.devices import Gpu, driver_release, require_gpu
from mmms_deploy.engines.cuda.runtime import Cuda, import_cuda
from mmms_deploy.engines.tensorrt.api import Library, describe, load_tensorrt
from mmms_deploy.engines.tensorrt.build import BuildOptions, OnPhase, Phase, build_plan
from mmms_deploy.engines.tensorrt.inspect import PlanReport
from mmms_deploy.engines.tensorrt.plan_cache import (
    Facts,
    Identity,
    check_plan,
    has_relatives,
    keep_plan,
    keep_timing,
    one_at_a_time,
    plan_file,
    plans_folder,
    read_plan,
    read_timing,
    searched_otherwise,
    timing_file,
    why_none,
)
from mmms_deploy.errors import BundleCorruptError, EngineUnavailableError, PlanError

OnBuild = Callable[[str, str], None]
"""Told the stage and why, when a build starts."""

_LOG = logging.getLogger(__name__)
_NOT_KEPT = "plans are not kept (MMMS_DEPLOY_CACHE is off)"


@dataclass(frozen=True)
class StagePlan:
    """The plan of a stage.

    Attributes:
        stage: Name of the stage.
        plan: The plan, as TensorRT deserialises it.
        report: What it is, read from the compiled plan.
        seconds: How long it took to compile, now or back then.
        built: Why it was compiled now; empty when it came from the cache.
        file: Where it is kept; None when it is not.
    """

    stage: str
    plan: bytes
    report: PlanReport
    seconds: float
    built: str
    file: Path | None


def load_or_build(
    bundle: Bundle,
    precision: Precision,
    *,
    device: int | None = 0,
    options: BuildOptions | None = None,
    on_progress: OnPhase = lambda phase: None,
) -> Mapping[str, bytes]:
    """Return the plan of every stage, as bytes that may be given to TensorRT; arguments are those of :func:`plans`."""
    made = plans(bundle, precision, device=device, options=options, on_phase=on_progress)
    return {name: stage.plan for name, stage in made.items()}


def plans(
    bundle: Bundle,
    precision: Precision,
    *,
    device: int | None = 0,
    options: BuildOptions | None = None,
    library: str | None = None,
    stages: Collection[str] | None = None,
    rebuild: bool = False,
    may_build: bool = True,
    on_phase: OnPhase = lambda phase: None,
    on_build: OnBuild | None = None,
) -> dict[str, StagePlan]:
    """Fetch or compile the plans of a bundle, and prove their precision.

    Args:
        bundle: The bundle.
        precision: Which of its graphs; they say themselves what is computed in which type.
        device: Number of the GPU; None compiles ahead of time, without one, which only TensorRT-RTX can do.
        options: How to compile. None compiles with the defaults, and takes plans from the cache too that were searched
            for longer or shorter (``opt_level``, ``workspace``).
        library: ``tensorrt`` or ``tensorrt_rtx``; None takes the one that is installed.
        stages: Names of the stages; None for all.
        rebuild: Whether to compile even what is in the cache.
        may_build: Whether to compile what is not in the cache, which takes minutes.
        on_phase: Told of every step of a build, from another thread.
        on_build: Told the stage and why, when a build starts; None logs the first as a warning, because it takes
            minutes.

    Returns:
        The plans by stage.

    Raises:
        EngineUnavailableError: There is no such GPU, the library is not installed or does not compile for it, the
            bundle has no graphs in the precision, or a plan is not in the cache and ``may_build`` is false.
        PlanBuildError: A graph cannot be compiled, or is not computed in its precision.
        BundleCorruptError: A graph is not the one that the manifest describes.
    """
    gpu = None if device is None else require_gpu(device)
    trt = load_tensorrt(library)
    about = describe(trt)
    _check(trt, about, gpu, bundle, precision)
    maker = _Maker(
        trt=trt,
        library=about,
        gpu=gpu,
        options=options or BuildOptions(),
        exact=options is not None,
        rebuild=rebuild,
        may_build=may_build,
        on_phase=on_phase,
        on_build=on_build or _logged(bundle, precision, about),
    )
    return {
        stage.name: maker.make(bundle, stage, precision)
        for stage in bundle.manifest.stages
        if stages is None or stage.name in stages
    }


def _check(trt: Any, library: Library, gpu: Gpu | None, bundle: Bundle, precision: Precision) -> None:
    if precision not in bundle.manifest.precisions:
        raise EngineUnavailableError(
            f"{bundle.path} has no graphs in {precision}",
            expected=f"one of {', '.join(bundle.manifest.precisions) or 'none'}",
            fix=f"export the checkpoint with --precision {precision}",
        )
    if gpu is None and not library.ahead_of_time:
        raise EngineUnavailableError(
            f"{library} was asked to compile without a GPU",
            expected="the GPU that will run the plans",
            fix="build on the GPU host; tensorrt-rtx compiles without a GPU",
        )
    if gpu is None or not library.ahead_of_time:
        return
    if not hasattr(trt.ComputeCapability, "SM{}{}".format(*gpu.capability)):
        raise EngineUnavailableError(
            f"{library} does not run on {gpu}", expected="a GPU that it knows", fix="pip install tensorrt"
        )


def _logged(bundle: Bundle, precision: Precision, library: Library) -> OnBuild:
    """Return what says aloud, once for all stages, that somebody has to wait now."""
    said: list[str] = []

    def on_build(stage: str, why: str) -> None:
        level = logging.INFO if said else logging.WARNING
        _LOG.log(
            level,
            "%s compiles stage %r of %s in %s for this GPU, which can take minutes: %s"
            " (mmms-build %s does it before somebody waits)",
            library,
            stage,
            bundle.path,
            precision,
            why,
            bundle.path,
        )
        said.append(stage)

    return on_build


def why_not_ready(bundle: Bundle, precision: Precision, device: int = 0) -> str | None:
    """Return why a bundle would be compiled when it is opened, and the command; None when all its plans are there.

    Cheap: no builder or runtime is made, of every plan only the end is read, and the library is imported only when
    there are plans of every stage. That a plan is damaged shows when it is loaded.

    Args:
        bundle: The bundle.
        precision: Which of its graphs.
        device: Number of the GPU.

    Raises:
        EngineUnavailableError: There is no such GPU.
    """
    folder = plans_folder()
    if folder is None:
        return _NOT_KEPT
    graphs = {stage.name: _hashes(bundle, stage, precision) for stage in bundle.manifest.stages}
    if not all(graph and has_relatives(folder, graph, precision) for graph in graphs.values()):
        return _with_command("its plans were never compiled here", bundle)
    gpu = require_gpu(device)
    try:
        library = describe(load_tensorrt())
    except EngineUnavailableError:
        return None  # it is not for want of plans; opening it says aloud what is wrong
    for stage in bundle.manifest.stages:
        identity = _identity(bundle, stage, precision, library, gpu, BuildOptions())
        if identity is not None and (why := _why_no_plan(folder, identity)):
            return _with_command(why, bundle)
    return None


def _with_command(why: str, bundle: Bundle) -> str:
    return f"{why}; mmms-build {bundle.path} compiles it"


def _why_no_plan(folder: Path, identity: Identity) -> str:
    try:
        check_plan(*_place(folder, identity))
    except FileNotFoundError:
        return why_none(folder, identity)
    except PlanError as error:
        return error.given
    return ""


def _place(folder: Path, identity: Identity, exact: bool = False) -> tuple[Path, Identity]:
    """Return where a plan is, or will be, and what it is for: with these options, or else searched for otherwise."""
    file = plan_file(folder, identity)
    other = None if exact or file.exists() else searched_otherwise(folder, identity)
    return other or (file, identity)


def _hashes(bundle: Bundle, stage: Stage, precision: Precision) -> str:
    """Return the SHA-256 of a stage's graph, and of its weights where they are in a file of their own."""
    files, graph = bundle.manifest.files, stage.graphs[precision]
    return " ".join(files[name].sha256 for name in (graph.file, graph.data) if name is not None and name in files)


def _identity(
    bundle: Bundle, stage: Stage, precision: Precision, library: Library, gpu: Gpu | None, options: BuildOptions
) -> Identity | None:
    """Return what a plan is found by; None for a bundle without hashes, whose plans are not kept."""
    graph = _hashes(bundle, stage, precision)
    if not graph:
        return None
    return Identity(
        graph=graph,
        precision=precision,
        library=str(library),
        gpu="" if gpu is None else gpu.name,
        compute_capability="" if gpu is None else "{}.{}".format(*gpu.capability),
        driver="" if gpu is None else driver_release() or f"for CUDA {gpu.cuda}",
        every_click=stage.rate is Rate.CLICK,
        # As they come back from a file.
        options=msgspec.json.decode(msgspec.json.encode(options.key())),
    )


@dataclass(frozen=True)
class _Maker:
    """Makes plans with one library for one GPU."""

    trt: Any
    library: Library
    gpu: Gpu | None
    options: BuildOptions
    exact: bool
    rebuild: bool
    may_build: bool
    on_phase: OnPhase
    on_build: OnBuild

    def make(self, bundle: Bundle, stage: Stage, precision: Precision) -> StagePlan:
        identity = _identity(bundle, stage, precision, self.library, self.gpu, self.options)
        folder = plans_folder()
        if identity is None or folder is None:
            return self._build(bundle, stage, precision, None, None, _NOT_KEPT)
        found, why = self._fetch(stage, folder, identity)
        if found is not None:
            return found
        self._check_may_build(bundle, stage, why)  # before waiting for others
        waiting: list[Phase] = []

        def on_wait() -> None:
            waiting.append(Phase(stage.name, "another process compiles plans; waiting for it", 0, 0, 1))
            _LOG.warning("stage %r of %s: %s", stage.name, bundle.path, waiting[0].name)
            self.on_phase(waiting[0])

        with one_at_a_time(folder, on_wait):
            for phase in waiting:
                self.on_phase(replace(phase, done=1, finished=True))
            found, why = self._fetch(stage, folder, identity)
            if found is not None:
                return found
            return self._build(bundle, stage, precision, plan_file(folder, identity), identity, why)

    def _check_may_build(self, bundle: Bundle, stage: Stage, why: str) -> None:
        if not self.may_build:
            raise EngineUnavailableError(
                f"the plan of stage {stage.name!r} would have to be compiled: {why}",
                expected="plans for this GPU, driver and version of TensorRT",
                fix=f"mmms-build {bundle.path}",
            )

    def _fetch(self, stage: Stage, folder: Path, identity: Identity) -> tuple[StagePlan | None, str]:
        """Return a plan from the cache, or why there is none."""
        if self.rebuild:
            return None, "it was asked for"
        file, fitting = _place(folder, identity, self.exact)
        try:
            plan, facts = read_plan(file, fitting)
        except FileNotFoundError:
            return None, why_none(folder, identity)
        except PlanError as error:
            return None, error.given
        return StagePlan(stage.name, plan, facts.report, facts.seconds, "", file), ""

    def _build(
        self, bundle: Bundle, stage: Stage, precision: Precision, file: Path | None, identity: Identity | None, why: str
    ) -> StagePlan:
        self._check_may_build(bundle, stage, why)
        self.on_build(stage.name, why)
        graph = stage.graphs[precision]
        # The bundle may have been opened without comparing hashes, and the plan will be found by this one.
        for name in filter(None, (graph.file, graph.data)):
            entry = bundle.manifest.files.get(name)
            if entry is not None and (found := sha256_of(bundle.file(name))) != entry.sha256:
                raise BundleCorruptError(
                    f"{bundle.file(name)} has SHA-256 {found}",
                    expected=entry.sha256,
                    fix="copy the bundle again, or export the checkpoint again",
                )
        timing = None if file is None or identity is None else timing_file(file.parent, identity)
        measures = timing is not None and self.gpu is not None and self.options.timing_cache
        built = build_plan(
            self.trt,
            bundle.file(graph.file),
            stage=stage.name,
            precision=precision,
            every_click=stage.rate is Rate.CLICK,
            options=self.options,
            activate=None if self.gpu is None else Cuda(import_cuda(), self.gpu.ordinal).activate,
            timing_cache=read_timing(timing) if measures and timing is not None else None,
            on_phase=self.on_phase,
        )
        if timing is not None and built.timing_cache is not None:
            keep_timing(timing, built.timing_cache)
        kept = None
        if file is not None and identity is not None:
            facts = Facts(identity=identity, report=built.report, seconds=built.seconds)
            kept = file if keep_plan(file, facts, built.plan) else None
        return StagePlan(stage.name, built.plan, built.report, built.seconds, why, kept)
