"""One run of ``mmms-bench``: everything in the order that keeps the numbers clean.

Whatever loads other libraries (the onnx package, PyTorch) comes last, so that they cost neither memory nor clicks.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

import msgspec

from mmms_deploy.bench.annotators import CLICKS, THINK, Load, annotator_metrics, annotator_note
from mmms_deploy.bench.arithmetic import fraction_metrics, peak_metrics, size_metrics
from mmms_deploy.bench.eager import EagerMMMS, Form, forms, open_eager
from mmms_deploy.bench.errors import NotMeasuredError
from mmms_deploy.bench.lists import list_metrics, size_key
from mmms_deploy.bench.measure import (
    StepCounter,
    click_metrics,
    compact_metrics,
    cuda_graph_metrics,
    eager_metrics,
    image_metrics,
    layout_metrics,
    moved_metrics,
    session_metrics,
    sweep_metrics,
)
from mmms_deploy.bench.memory import GpuMemory, MemoryPhases
from mmms_deploy.bench.objects import object_metrics
from mmms_deploy.bench.peak import SIZE
from mmms_deploy.bench.report import KIND, SCHEMA, BundleFacts, EngineFacts, Metric, Report, WorkloadFacts
from mmms_deploy.bench.state_copies import state_copy_metrics
from mmms_deploy.bench.timed_session import TimedSession
from mmms_deploy.bench.workload import Picture, make_pictures
from mmms_deploy.bundle import Bundle, Precision, Rate, Stage
from mmms_deploy.engines.cores import available_cores
from mmms_deploy.engines.cuda.devices import require_gpu
from mmms_deploy.engines.cuda.engine import CudaEngine
from mmms_deploy.engines.machine import MachineFacts, OtherPrograms, describe_machine
from mmms_deploy.engines.protocol import Engine, EngineInfo
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.select import choose, open_request
from mmms_deploy.errors import EngineError, EngineUnavailableError, MMMSDeployError
from mmms_deploy.progress import OnProgress, Progress
from mmms_deploy.reporting.published import published_network
from mmms_deploy.session.workers import AT_ONCE

_WARM_UP = 5
_EVERY_COUNT = 8
_BUSY = 0.2
"""CPUs that other programs may keep busy before the report notes it."""


@dataclass(frozen=True)
class Settings:
    """What to measure, and how.

    Attributes:
        request: The engine, as it is requested. Only the first GPU can be measured.
        clicks: Clicks on an image; the papers average over 30.
        images: Images.
        image_size: (H0, W0) of the images in pixels.
        eager: Whether PyTorch is measured beside it, where it is installed.
        compiled: Whether ``torch.compile`` is measured too, on a GPU; it takes minutes.
        sweep: Whether clicks are measured on every number of threads, too.
        sessions: Numbers of annotators that are measured on one engine; none for none.
        think: Seconds that each of them thinks between clicks, on average; 0 for no such measurement.
        at_once: How many calls of all annotators run at once.
        matrix: Rows and columns of the matrices whose product is the machine's peak.
    """

    request: EngineRequest = field(default_factory=EngineRequest)
    clicks: int = 30
    images: int = 3
    image_size: tuple[int, int] = (1080, 1920)
    eager: bool = True
    compiled: bool = True
    sweep: bool = False
    sessions: tuple[int, ...] = ()
    think: float = THINK
    at_once: int = AT_ONCE
    matrix: int = SIZE

    @property
    def load(self) -> Load:
        """What annotators do."""
        return Load(self.think, min(self.clicks, CLICKS), self.at_once)

    def open(self, bundle: Bundle, threads: int | None = None, on_progress: OnProgress | None = None) -> Engine:
        """Open the requested engine.

        Args:
            bundle: What to execute.
            threads: CPU threads instead of the requested ones.
            on_progress: Receives every step of compiling, from another thread.
        """
        request = self.request if threads is None else replace(self.request, threads=threads)
        return open_request(bundle, request, on_progress)


def run_bench(path: Path, settings: Settings, on_progress: OnProgress | None = None) -> Report:
    """Measure a bundle on this machine.

    Args:
        path: The bundle's folder.
        settings: What to measure.
        on_progress: Receives every step.

    Raises:
        BundleError: The bundle cannot be used.
        EngineError: There is no usable engine, or a stage failed.
    """
    if settings.request.ordinal:
        raise EngineUnavailableError(
            f"device 'cuda:{settings.request.ordinal}' was requested",
            expected="the first GPU, on which everything in a run is measured",
            fix='set CUDA_VISIBLE_DEVICES to the GPU, and pass device="cuda"',
            command_fix="set CUDA_VISIBLE_DEVICES to the GPU, and pass --device cuda",
        )
    report = on_progress or (lambda step: None)
    others = OtherPrograms()
    memory = MemoryPhases()
    report(Progress("opening the bundle", 0, 3))
    with memory.phase("bundle", "opening the bundle"):
        start = perf_counter()
        bundle = Bundle(path)
        opened = 1e3 * (perf_counter() - start)
    gpu_memory = _gpu_memory(bundle, settings.request)
    pictures = make_pictures(bundle.manifest, settings.images + 1, settings.clicks, settings.image_size)
    report(Progress("loading the engine", 1, 3))
    compiling: list[str] = []

    def on_compiling(step: Progress) -> None:
        compiling.append(step.task)
        report(Progress(f"compiling {step.task}", step.done, step.total))

    with memory.phase("engine", "loading the engine"):
        start = perf_counter()
        engine = settings.open(bundle, on_progress=on_compiling)
        loaded = 1e3 * (perf_counter() - start)
    if gpu_memory is not None:
        gpu_memory.loaded()
    try:
        metrics = [
            _once("start.open", "opening the bundle, comparing hashes", opened),
            _once("start.load", "loading the engine", loaded),
            *_session(engine, pictures, settings, memory, gpu_memory, report),
            *memory.metrics,
        ]
        if settings.sessions:
            metrics += annotator_metrics(engine, pictures[1:], settings.sessions, settings.load, report)
        metrics += _beside(bundle, engine, pictures, settings, metrics, report)
        info = engine.info
        gpu = require_gpu(engine.options.ordinal) if isinstance(engine, CudaEngine) else None
    finally:
        engine.close()
    if settings.sweep and info.threads is None:
        why = f"{info.library} computes on no CPU threads here"
        metrics.append(Metric(key="sweep.threads", title="click by number of threads", unit="ms", why=why))
    elif settings.sweep:
        counts = thread_counts(available_cores())
        metrics += sweep_metrics(
            lambda threads: settings.open(bundle, threads), counts, pictures[1:], settings.clicks, report
        )
    machine = msgspec.structs.replace(describe_machine(gpu=gpu), others=others.cpus())
    return Report(
        schema=SCHEMA,
        kind=KIND,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        machine=machine,
        bundle=describe_bundle(bundle),
        engine=_engine_facts(info),
        workload=WorkloadFacts(
            images=settings.images, clicks=settings.clicks, image_size=settings.image_size, warm_up=_WARM_UP
        ),
        stages=tuple(stage.name for stage in bundle.manifest.stages),
        metrics=tuple(metrics),
        notes=(
            *_notes(bundle, machine, _compiled(bundle, compiling)),
            *((annotator_note(settings.load),) if settings.sessions else ()),
        ),
    )


def _gpu_memory(bundle: Bundle, request: EngineRequest) -> GpuMemory | None:
    """Look at the GPU's memory before anything is on it; None when the chosen engine works on a CPU."""
    choice = choose(bundle, request)
    if choice.order[0].backend.device != "cuda":
        return None
    try:
        return GpuMemory()
    except EngineError:
        return None  # opening the engine raises the same error, with what to do


def _session(
    engine: Engine,
    pictures: list[Picture],
    settings: Settings,
    memory: MemoryPhases,
    gpu_memory: GpuMemory | None,
    on_progress: OnProgress,
) -> list[Metric]:
    """Measure the session: the first image and click, then the warm ones, then several sessions at once."""
    first, *rest = pictures
    on_device: list[Metric] = []
    with TimedSession(engine, on_gpu=True) as session:
        on_progress(Progress("first image", 2, 3))
        with memory.phase("image", "first image"):
            first_image = session.set_image(first)
        first_click = session.click(first.clicks[0])
        session.prepare(settings.clicks)
        for index in range(_WARM_UP):
            session.click(first.clicks[index % len(first.clicks)])
        images, clicks = [], []
        with memory.phase("clicks", f"setting images and clicking, {settings.images} x {settings.clicks}"):
            counter = StepCounter(on_progress, "images and clicks", settings.images * (1 + settings.clicks))
            for picture in rest:
                images.append(session.set_image(picture))
                row = []
                for point in picture.clicks:
                    row.append(session.click(point))
                    counter.step()
                clicks.append(row)
                counter.step()
        on_gpu = session.on_gpu
        if gpu_memory is not None and isinstance(engine, CudaEngine):
            on_device = gpu_memory.metrics(engine)
    if on_gpu:
        on_device += moved_metrics(images, clicks)
    with_discs = compact_metrics(engine, rest[0])
    with memory.phase("sessions", "several sessions at once"):
        throughput = session_metrics(engine, rest, settings.clicks, on_progress)
    return [
        _once("start.first_image", "first image", first_image.total),
        _once("start.first_click", "first click", first_click.total),
        *image_metrics(images, on_gpu=on_gpu),
        *click_metrics(images, clicks, on_gpu=on_gpu, apart=_apart(engine.bundle)),
        *with_discs,
        *list_metrics(engine, first),
        *on_device,
        *throughput,
    ]


def _apart(bundle: Bundle) -> bool:
    """Whether a first click runs another stage than later ones."""
    return any(stage.rate is Rate.FIRST_CLICK for stage in bundle.manifest.stages)


def _beside(
    bundle: Bundle,
    engine: Engine,
    pictures: list[Picture],
    settings: Settings,
    known: list[Metric],
    on_progress: OnProgress,
) -> list[Metric]:
    """Measure what stands beside the session: operations, clicks without a CUDA graph, PyTorch, the machine's peak."""
    on_progress(Progress("counting operations", 0, 3))
    metrics = size_metrics(bundle, engine)
    if isinstance(engine, CudaEngine):
        metrics += cuda_graph_metrics(engine, pictures[-1], on_progress)
        metrics += state_copy_metrics(engine)
        metrics += layout_metrics(engine, pictures[-1], on_progress)
    eager, against = _eager(bundle, engine, pictures, settings, on_progress)
    metrics += peak_metrics(engine, with_torch=eager, size=settings.matrix, on_progress=on_progress)
    stages = {stage.name: _time_of(stage) for stage in bundle.manifest.stages if not stage.batch}
    metrics += fraction_metrics(engine, [*known, *metrics], stages)
    return [*metrics, *against]


def _time_of(stage: Stage) -> str:
    """Return the key of the metric that has a stage's time."""
    if stage.rows is not None:
        return size_key(stage.rows)
    times = {Rate.CLICK: "click.engine", Rate.FIRST_CLICK: "click.first.engine"}
    return times.get(stage.rate, f"image.stage.{stage.name}")


def _eager(
    bundle: Bundle, engine: Engine, pictures: list[Picture], settings: Settings, on_progress: OnProgress
) -> tuple[bool, list[Metric]]:
    """Return whether PyTorch can be used, and the metrics of the engine and PyTorch in turns."""
    every = forms(engine.info)
    wanted = forms(engine.info, compiled=settings.compiled)
    on_progress(Progress("loading PyTorch", 1, 3))
    try:
        if not settings.eager:
            raise NotMeasuredError("switched off with --no-eager")
        eager = open_eager(bundle.manifest, engine.info.threads or available_cores(), engine.info.device)
    except NotMeasuredError as error:
        without = [metric for form in every for metric in _no_eager(form, error.given)]
        return False, [*without, *object_metrics(engine, pictures[-1], None, error.given, on_progress)]
    metrics = []
    for form in every:
        if form not in wanted:
            metrics += _no_eager(form, "switched off with --no-compiled")
            continue
        try:
            variant = eager if form == eager.form else eager.variant(form)
            metrics += eager_metrics(variant, engine, pictures[1:], settings.clicks, on_progress)
        except MMMSDeployError:
            raise
        except Exception as error:
            # PyTorch's compilers raise types of their own. What they need (Triton, a C compiler) may be missing, and
            # kernels for this GPU too. The other measurements are kept all the same.
            metrics += _no_eager(form, f"PyTorch failed: {_first_line(error)}")
    metrics += _objects(engine, eager, pictures[-1], on_progress)
    eager.close()
    return True, metrics


def _objects(engine: Engine, eager: EagerMMMS, picture: Picture, on_progress: OnProgress) -> list[Metric]:
    """Return the metrics of clicks on several objects, beside eager PyTorch in the engine's precision."""
    if not engine.bundle.manifest.batches:
        return []
    precision = engine.info.precision
    reduced = engine.info.device != "cpu" and precision in (Precision.FP16, Precision.BF16)
    try:
        variant = eager.variant(Form(precision, weights=True)) if reduced else eager
        return object_metrics(engine, picture, variant, on_progress=on_progress)
    except MMMSDeployError:
        raise
    except Exception as error:  # as above
        return object_metrics(engine, picture, None, f"PyTorch failed: {_first_line(error)}", on_progress)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().split(chr(10))[0]}"


def _no_eager(form: Form, why: str) -> list[Metric]:
    return [
        Metric(key=f"{form.key}.{kind}_ratio", title=f"{kind}, this engine / {form} PyTorch", unit="ratio", why=why)
        for kind in ("click", "image")
    ]


def thread_counts(cores: int) -> list[int]:
    """Return the numbers of threads to try: every one up to eight, then doubling, and all cores."""
    counts = [*range(1, min(cores, _EVERY_COUNT) + 1)]
    while counts[-1] < cores:
        counts.append(min(2 * counts[-1], cores))
    return counts


def describe_bundle(bundle: Bundle) -> BundleFacts:
    """Return what a report says of a bundle."""
    manifest = bundle.manifest
    provenance = manifest.provenance
    origin = [provenance.checkpoint_sha256, provenance.backbone_checkpoint_sha256, provenance.random_seed]
    known = msgspec.json.encode([provenance.description, origin], order="deterministic")
    return BundleFacts(
        name=manifest.name,
        digest=manifest.digest,
        network=hashlib.sha256(known).hexdigest(),
        size=manifest.size,
        modalities=tuple(modality.name for modality in manifest.modalities),
        trained=manifest.trained,
        rewrites=provenance.rewrites,
        megabytes=round(sum(entry.size for entry in manifest.files.values()) / 1e6, 1),
        published=published_network(provenance.description) or "",
    )


def _engine_facts(info: EngineInfo) -> EngineFacts:
    return EngineFacts(
        name=info.name,
        device=info.device,
        precision=str(info.precision),
        library=info.library,
        version=info.version,
        threads=info.threads,
        providers=info.providers,
        evidence=info.evidence,
    )


def _compiled(bundle: Bundle, tasks: Iterable[str]) -> tuple[str, ...]:
    """Return the stages that were compiled: those that the tasks name, such as ``stage 'click': choosing kernels``."""
    named = list(dict.fromkeys(tasks))
    return tuple(stage.name for stage in bundle.manifest.stages if any(f"'{stage.name}'" in task for task in named))


def _notes(bundle: Bundle, machine: MachineFacts, compiled: tuple[str, ...]) -> tuple[str, ...]:
    notes = []
    if compiled:
        notes.append(
            f"Compiled in this run: {', '.join(compiled)}. Loading took longer than it will the next time, and more of"
            " the GPU's memory may be held; mmms-build compiles beforehand."
        )
    if not bundle.manifest.trained:
        notes.append(
            "The weights are random: the times are those of a trained network, the masks mean nothing. Only enlarging a"
            " mask takes longer, because its outline is everywhere."
        )
    if machine.others is not None and machine.others > _BUSY:
        notes.append(
            f"Other programs kept {machine.others:.2f} of {machine.logical_cpus} CPUs busy during the run: these times"
            " are longer than on a quiet machine."
        )
    return tuple(notes)


def _once(key: str, title: str, milliseconds: float) -> Metric:
    return Metric(key=key, title=title, unit="ms", samples=(milliseconds,))
