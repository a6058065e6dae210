"""The plans of a bundle: read from the cache where they were compiled for exactly this use, and compiled otherwise.

TensorRT is not touched before the CUDA runtime has found the GPU. Without a GPU, TensorRT returns invalid objects that
end the process when they are used. Only plans that a build of this user wrote, with a fitting checksum, are returned.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from mmms_deploy.bundle import Bundle, Precision, Rate, Stage, sha256_of
from mmms_deploy.engines.cuda.devices import Gpu, driver_release, require_gpu
from mmms_deploy.engines.cuda.runtime import Cuda, import_cuda
from mmms_deploy.engines.tensorrt.api import Library, describe, load_tensorrt
from mmms_deploy.engines.tensorrt.build import BuildOptions, build_plan
from mmms_deploy.engines.tensorrt.inspect import UNPROVEN, PlanReport, check_precision
from mmms_deploy.engines.tensorrt.plan_cache import (
    WAITING,
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
from mmms_deploy.progress import OnProgress, Progress

_LOG = logging.getLogger(__name__)
_NOT_KEPT = "plans are not kept (MMMS_DEPLOY_CACHE is off)"


@dataclass(frozen=True)
class StagePlan:
    """The plan of a stage.

    Attributes:
        stage: Name of the stage.
        plan: The plan, as TensorRT deserialises it.
        report: What the plan computes in, and what memory it needs, read from the compiled plan.
        seconds: How long it took to compile, whether now or earlier.
        built: Why it was compiled now; empty when it came from the cache.
        file: Its file in the cache; None when it is not kept.
    """

    stage: str
    plan: bytes
    report: PlanReport
    seconds: float
    built: str
    file: Path | None


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
    allow_unproven: bool = False,
    on_progress: OnProgress | None = None,
) -> dict[str, StagePlan]:
    """Read the plans of a bundle from the cache, or compile them and check their precision.

    Args:
        bundle: The bundle.
        precision: Which of its ONNX graphs to take; their tensor types decide the type of every computation.
        device: Number of the GPU; None compiles ahead of time without a GPU, which only TensorRT-RTX supports.
        options: How to compile. None compiles with the defaults; it also accepts cached plans with another
            ``opt_level`` or ``workspace``, which change the speed of a plan and not what it computes.
        library: ``tensorrt`` or ``tensorrt_rtx``; None takes the one that is installed.
        stages: Names of the stages; None for all.
        rebuild: Whether to compile even what is in the cache.
        may_build: Whether to compile what is not in the cache, which takes minutes.
        allow_unproven: Whether to warn of a plan whose kernels show another type than the precision, instead of
            refusing it. Such a plan is kept, and is refused again wherever this is not given.
        on_progress: Receives every step of a build, from another thread. The ``detail`` of a stage's first step is why
            its plan is compiled. None logs the reasons (:func:`log_builds`).

    Returns:
        The plans by stage.

    Raises:
        EngineUnavailableError: There is no such GPU, the library is not installed or does not compile for it, the
            bundle has no ONNX graphs in the precision, or a plan is not in the cache and ``may_build`` is false.
        PlanBuildError: A graph cannot be compiled, or is not computed in its precision.
        BundleCorruptError: A graph is not the one that the manifest describes.

    Warns:
        MMMSDeployWarning: A plan is not in its precision, and ``allow_unproven`` is given.
    """
    gpu = None if device is None else require_gpu(device, alone=True)
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
        allow_unproven=allow_unproven,
        on_progress=on_progress or log_builds(bundle, precision, about),
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
            fix=f"export the checkpoint again: export_bundle(..., precisions=[Precision.{precision.name}])",
            command_fix=f"export the checkpoint again with --precision {precision}",
        )
    if gpu is None and not library.ahead_of_time:
        raise EngineUnavailableError(
            f"{library} cannot compile without a GPU",
            expected="the GPU that will run the plans",
            fix="build on the GPU host; tensorrt-rtx compiles without a GPU",
        )
    if gpu is None or not library.ahead_of_time:
        return
    if not hasattr(trt.ComputeCapability, "SM{}{}".format(*gpu.capability)):
        raise EngineUnavailableError(
            f"{library} does not run on {gpu}", expected="a GPU that it supports", fix="pip install tensorrt"
        )


def log_builds(
    bundle: Bundle, precision: Precision, library: Library, on_progress: OnProgress | None = None
) -> OnProgress:
    """Return a callback that logs why each stage is compiled, the first as a warning, and passes every step on."""
    logged: list[str] = []

    def receive(step: Progress) -> None:
        if step.detail:
            _LOG.log(
                logging.INFO if logged else logging.WARNING,
                "%s compiles stage %r of %s in %s for this GPU, which can take minutes: %s"
                " (run mmms-build %s beforehand to avoid the wait)",
                library,
                stage_of(step),
                bundle.path,
                precision,
                step.detail,
                bundle.reference,
            )
            logged.append(step.task)
        if on_progress is not None:
            on_progress(step)

    return receive


def stage_of(step: Progress) -> str:
    """Return the stage that a build's task names, e.g. ``click`` for ``stage 'click': choosing kernels``."""
    return step.task.removeprefix("stage '").partition("': ")[0]


def why_not_ready(bundle: Bundle, precision: Precision, device: int = 0) -> str | None:
    """Return why opening a bundle would compile plans, and the command that does; None when all plans are there.

    This is cheap: it creates no builder or runtime, reads only the end of every plan, and imports the library only when
    every stage has plans. A damaged plan shows only when it is loaded.

    Args:
        bundle: The bundle.
        precision: Which of its ONNX graphs to take.
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
        return None  # plans are not what is missing; opening the bundle reports the error
    for stage in bundle.manifest.stages:
        identity = _identity(bundle, stage, precision, library, gpu, BuildOptions())
        if identity is not None and (why := _why_no_plan(folder, identity)):
            return _with_command(why, bundle)
    return None


def _with_command(why: str, bundle: Bundle) -> str:
    return f"{why}; mmms-build {bundle.reference} compiles it"


def _why_no_plan(folder: Path, identity: Identity) -> str:
    try:
        facts = check_plan(*_place(folder, identity))
    except FileNotFoundError:
        return why_none(folder, identity)
    except PlanError as error:
        return error.given
    return "" if facts.report.proven(identity.precision) else f"{UNPROVEN} of its plan"


def _place(folder: Path, identity: Identity, exact: bool = False) -> tuple[Path, Identity]:
    """Return the file and identity of a plan: with exactly these options if it exists, else with another search."""
    file = plan_file(folder, identity)
    other = None if exact or file.exists() else searched_otherwise(folder, identity)
    return other or (file, identity)


def _hashes(bundle: Bundle, stage: Stage, precision: Precision) -> str:
    """Return the SHA-256 of a stage's ONNX graph, and of its weights where they are in a separate file."""
    files, graph = bundle.manifest.files, stage.graphs[precision]
    return " ".join(files[name].sha256 for name in bundle.files_of(graph) if name in files)


def _identity(
    bundle: Bundle, stage: Stage, precision: Precision, library: Library, gpu: Gpu | None, options: BuildOptions
) -> Identity | None:
    """Return the key of a plan in the cache; None for a bundle without hashes, because its plans are not kept."""
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
        # The same types as after reading them from a file.
        options=msgspec.json.decode(msgspec.json.encode(options.key())),
    )


@dataclass(frozen=True)
class _Maker:
    """Reads or compiles plans with one library for one GPU."""

    trt: Any
    library: Library
    gpu: Gpu | None
    options: BuildOptions
    exact: bool
    rebuild: bool
    may_build: bool
    allow_unproven: bool
    on_progress: OnProgress

    def make(self, bundle: Bundle, stage: Stage, precision: Precision) -> StagePlan:
        identity = _identity(bundle, stage, precision, self.library, self.gpu, self.options)
        folder = plans_folder()
        if identity is None or folder is None:
            return self._build(bundle, stage, precision, None, None, _NOT_KEPT)
        found, why = self._fetch(stage, folder, identity)
        if found is not None:
            return found
        self._check_may_build(bundle, stage, why)  # before waiting for others
        task = f"stage {stage.name!r}: {WAITING}"

        def on_progress(step: Progress) -> None:
            step = replace(step, task=task)
            if not step.finished:
                _LOG.warning("stage %r of %s: %s", stage.name, bundle.path, WAITING)
            self.on_progress(step)

        with one_at_a_time(folder, on_progress):
            found, why = self._fetch(stage, folder, identity)
            if found is not None:
                return found
            return self._build(bundle, stage, precision, plan_file(folder, identity), identity, why)

    def _check_may_build(self, bundle: Bundle, stage: Stage, why: str) -> None:
        if not self.may_build:
            raise EngineUnavailableError(
                f"the plan of stage {stage.name!r} would have to be compiled: {why}",
                expected="plans for this GPU, driver and version of TensorRT",
                fix=f"mmms-build {bundle.reference}",
            )

    def _fetch(self, stage: Stage, folder: Path, identity: Identity) -> tuple[StagePlan | None, str]:
        """Return a plan from the cache, or why there is none."""
        if self.rebuild:
            return None, "it was requested"
        file, fitting = _place(folder, identity, self.exact)
        try:
            plan, facts = read_plan(file, fitting)
        except FileNotFoundError:
            return None, why_none(folder, identity)
        except PlanError as error:
            return None, error.given
        # A build that allowed it has kept it: that is no leave for other uses.
        precision, allowed = identity.precision, self.allow_unproven
        check_precision(facts.report, precision, stage.name, str(self.library), allow_unproven=allowed)
        return StagePlan(stage.name, plan, facts.report, facts.seconds, "", file), ""

    def _build(
        self, bundle: Bundle, stage: Stage, precision: Precision, file: Path | None, identity: Identity | None, why: str
    ) -> StagePlan:
        self._check_may_build(bundle, stage, why)
        graph = stage.graphs[precision]
        # The bundle may have been opened without comparing hashes, and this hash is the key of the plan.
        for name in bundle.files_of(graph):
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
            capability=None if self.gpu is None else self.gpu.capability,
            allow_unproven=self.allow_unproven,
            why=why,
            on_progress=self.on_progress,
        )
        if timing is not None and built.timing_cache is not None:
            keep_timing(timing, built.timing_cache)
        kept = None
        if file is not None and identity is not None:
            facts = Facts(identity=identity, report=built.report, seconds=built.seconds)
            kept = file if keep_plan(file, facts, built.plan) else None
        return StagePlan(stage.name, built.plan, built.report, built.seconds, why, kept)
