"""The plans of a bundle: fetched from the cache when they were compiled for exactly this, compiled otherwise.

Nothing of TensorRT is touched before the CUDA runtime has found the GPU: without one, TensorRT hands out hollow objects
that end the process when they are used. Only bytes that this user's own build wrote, with their checksum, are returned.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from mmms_deploy.bundle import Bundle, Precision, Rate, Stage, StageGraph, sha256_of
from mmms_deploy.engines.cuda import Cuda, import_cuda
from mmms_deploy.engines.devices import Gpu, driver_release, require_gpu
from mmms_deploy.engines.tensorrt_api import Library, describe, load_tensorrt
from mmms_deploy.engines.tensorrt_build import BuildOptions, OnPhase, Phase, build_plan
from mmms_deploy.engines.tensorrt_inspect import PlanReport
from mmms_deploy.engines.tensorrt_plans_cache import (
    Facts,
    Identity,
    keep_plan,
    keep_timing,
    one_at_a_time,
    plan_file,
    plans_folder,
    read_plan,
    read_timing,
    timing_file,
    why_none,
)
from mmms_deploy.errors import BundleCorruptError, EngineUnavailableError, PlanError

_LOG = logging.getLogger(__name__)


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
    on_phase: OnPhase = lambda phase: None,
    on_build: Callable[[str, str], None] | None = None,
) -> dict[str, StagePlan]:
    """Fetch or compile the plans of a bundle, and prove their precision.

    Args:
        bundle: The bundle.
        precision: Which of its graphs; they say themselves what is computed in which type.
        device: Number of the GPU; None compiles ahead of time, without one, which only TensorRT-RTX can do.
        options: How to compile; None for the defaults.
        library: ``tensorrt`` or ``tensorrt_rtx``; None takes the one that is installed.
        stages: Names of the stages; None for all.
        rebuild: Whether to compile even what is in the cache.
        on_phase: Told of every step of a build, from another thread.
        on_build: Told the stage and why, when a build starts; None logs it as a warning, because it takes minutes.

    Returns:
        The plans by stage.

    Raises:
        EngineUnavailableError: There is no such GPU, the library is not installed or does not compile for it, or the
            bundle has no graphs in the precision.
        PlanBuildError: A graph cannot be compiled, or is not computed in its precision.
        BundleCorruptError: A graph is not the one that the manifest describes.
    """
    gpu = None if device is None else require_gpu(device)
    trt = load_tensorrt(library)
    about = describe(trt)
    _check(trt, about, gpu, bundle, precision)
    maker = _Maker(trt, about, gpu, options or BuildOptions(), rebuild, on_phase, on_build or _log_build)
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


def _log_build(stage: str, why: str) -> None:
    _LOG.warning("stage %r is compiled for this GPU, which can take minutes: %s", stage, why)


@dataclass(frozen=True)
class _Maker:
    """Makes plans with one library for one GPU."""

    trt: Any
    library: Library
    gpu: Gpu | None
    options: BuildOptions
    rebuild: bool
    on_phase: OnPhase
    on_build: Callable[[str, str], None]

    def make(self, bundle: Bundle, stage: Stage, precision: Precision) -> StagePlan:
        graph = stage.graphs[precision]
        identity = self._identity(bundle, stage, graph, precision)
        folder = plans_folder()
        if identity is None or folder is None:
            return self._build(bundle, stage, precision, None, None, "plans are not kept (MMMS_DEPLOY_CACHE is off)")
        file = plan_file(folder, identity)
        found, why = self._fetch(stage, file, identity)
        if found is not None:
            return found

        def on_wait() -> None:
            self.on_phase(Phase(stage.name, "another process compiles plans; waiting for it", 0, 0, 1))

        with one_at_a_time(folder, on_wait):
            found, why = self._fetch(stage, file, identity)
            if found is not None:
                return found
            return self._build(bundle, stage, precision, file, identity, why)

    def _identity(self, bundle: Bundle, stage: Stage, graph: StageGraph, precision: Precision) -> Identity | None:
        files = bundle.manifest.files
        hashes = [files[name].sha256 for name in (graph.file, graph.data) if name is not None and name in files]
        if not hashes:
            return None
        return Identity(
            graph=" ".join(hashes),
            precision=precision,
            library=str(self.library),
            gpu="" if self.gpu is None else self.gpu.name,
            compute_capability="" if self.gpu is None else "{}.{}".format(*self.gpu.capability),
            driver="" if self.gpu is None else driver_release() or f"for CUDA {self.gpu.cuda}",
            every_click=stage.rate is Rate.CLICK,
            # As they come back from a file.
            options=msgspec.json.decode(msgspec.json.encode(self.options.key())),
        )

    def _fetch(self, stage: Stage, file: Path, identity: Identity) -> tuple[StagePlan | None, str]:
        """Return a plan from the cache, or why there is none."""
        if self.rebuild:
            return None, "it was asked for"
        try:
            plan, facts = read_plan(file, identity)
        except FileNotFoundError:
            return None, why_none(file.parent, identity)
        except PlanError as error:
            return None, error.given
        return StagePlan(stage.name, plan, facts.report, facts.seconds, "", file), ""

    def _build(
        self, bundle: Bundle, stage: Stage, precision: Precision, file: Path | None, identity: Identity | None, why: str
    ) -> StagePlan:
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
