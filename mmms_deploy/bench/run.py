"""One run of ``mmms-bench``: everything in the order that keeps the numbers clean.

What loads other libraries (the onnx package, PyTorch) comes last, so that neither memory nor clicks pay for them.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import msgspec

from mmms_deploy import progress
from mmms_deploy.bench.eager import EagerMMMS, Form, forms
from mmms_deploy.bench.errors import NotMeasuredError
from mmms_deploy.bench.graphs import graph_metrics, graph_steps
from mmms_deploy.bench.machine import OtherPrograms, describe_machine
from mmms_deploy.bench.measure import (
    click_metrics,
    eager_metrics,
    eager_steps,
    image_metrics,
    moved_metrics,
    session_metrics,
    session_rounds,
    sweep_metrics,
)
from mmms_deploy.bench.memory import MemoryPhases
from mmms_deploy.bench.peak import SIZE
from mmms_deploy.bench.probe import Probe
from mmms_deploy.bench.report import (
    KIND,
    SCHEMA,
    BundleFacts,
    EngineFacts,
    MachineFacts,
    Metric,
    Report,
    WorkloadFacts,
)
from mmms_deploy.bench.vram import Vram
from mmms_deploy.bench.work import fraction_metrics, peak_metrics, size_metrics
from mmms_deploy.bench.workload import Picture, make_pictures
from mmms_deploy.bundle import Bundle, Rate
from mmms_deploy.engines.cores import available_cores
from mmms_deploy.engines.cuda.devices import require_gpu, split_device
from mmms_deploy.engines.cuda.engine import CudaEngine
from mmms_deploy.engines.protocol import Engine, EngineInfo
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.select import choose, open_engine
from mmms_deploy.engines.tensorrt.plans import stage_of
from mmms_deploy.errors import EngineError, EngineUnavailableError, MMMSDeployError

_WARM_UP = 5
_EVERY_COUNT = 8
_BUSY = 0.2
"""CPUs that other programs may keep busy before a reader should know."""

OnProgress = Callable[[str, int, int], None]
"""Called with what is measured now, steps of it that are done, and steps in all."""


@dataclass(frozen=True)
class Settings:
    """What to measure, and how.

    Attributes:
        device: As in :class:`~mmms_deploy.session.Session`, and so are the four below.
        engine: As there.
        precision: As there.
        threads: As there.
        strict: As there.
        clicks: Clicks on an image; the papers average over 30.
        images: Images.
        image_size: (H0, W0) of the images in pixels.
        eager: Whether PyTorch is measured beside it, where it is installed.
        compiled: Whether ``torch.compile`` is measured too, on a GPU; it takes minutes.
        sweep: Whether clicks are measured on every number of threads, too.
        matrix: Rows and columns of the matrices whose product is the machine's peak.
    """

    device: str = "auto"
    engine: str | None = None
    precision: str | None = None
    threads: int | None = None
    strict: bool = False
    clicks: int = 30
    images: int = 3
    image_size: tuple[int, int] = (1080, 1920)
    eager: bool = True
    compiled: bool = True
    sweep: bool = False
    matrix: int = SIZE

    def open(
        self, bundle: Bundle, threads: int | None = None, on_progress: progress.OnProgress | None = None
    ) -> Engine:
        """Open the engine that is asked for; ``on_progress`` is told of every step of compiling it."""
        return open_engine(
            bundle,
            device=self.device,
            engine=self.engine,
            precision=self.precision,
            threads=threads or self.threads,
            strict=self.strict,
            on_progress=on_progress,
        )


def run_bench(path: Path, settings: Settings, on_progress: OnProgress = lambda what, done, total: None) -> Report:
    """Measure a bundle on this machine.

    Args:
        path: The bundle's folder.
        settings: What to measure.
        on_progress: Called as the run goes on.

    Raises:
        BundleError: The bundle cannot be used.
        EngineError: There is no usable engine, or a stage failed.
    """
    if split_device(settings.device)[1]:
        raise EngineUnavailableError(
            f"device {settings.device!r} was asked for",
            expected="the first GPU, on which everything in a run is measured",
            fix='set CUDA_VISIBLE_DEVICES to the GPU, and pass device="cuda"',
        )
    others = OtherPrograms()
    memory = MemoryPhases()
    on_progress("opening the bundle", 0, 3)
    with memory.phase("bundle", "opening the bundle"):
        start = perf_counter()
        bundle = Bundle(path)
        opened = 1e3 * (perf_counter() - start)
    vram = _vram(bundle, settings)
    pictures = make_pictures(bundle.manifest, settings.images + 1, settings.clicks, settings.image_size)
    on_progress("loading the engine", 1, 3)
    compiling: list[str] = []

    def on_compiling(step: progress.Progress) -> None:
        compiling.append(stage_of(step))
        on_progress(f"compiling {step.task}", step.done, max(1, step.total or 0))

    with memory.phase("engine", "loading the engine"):
        start = perf_counter()
        engine = settings.open(bundle, on_progress=on_compiling)
        loaded = 1e3 * (perf_counter() - start)
    if vram is not None:
        vram.loaded()
    try:
        metrics = [
            _once("start.open", "opening the bundle, comparing hashes", opened),
            _once("start.load", "loading the engine", loaded),
            *_session(engine, pictures, settings, memory, vram, on_progress),
            *memory.metrics,
        ]
        metrics += _beside(bundle, engine, pictures, settings, metrics, on_progress)
        info = engine.info
        gpu = require_gpu(engine.options.ordinal) if isinstance(engine, CudaEngine) else None
    finally:
        engine.close()
    if settings.sweep and info.threads is None:
        why = f"{info.library} computes on no CPU threads here"
        metrics.append(Metric(key="sweep.threads", title="click by number of threads", unit="ms", why=why))
    elif settings.sweep:
        metrics += _sweep(bundle, pictures[1:], settings, on_progress)
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
        notes=_notes(bundle, machine, tuple(dict.fromkeys(compiling))),
    )


def _vram(bundle: Bundle, settings: Settings) -> Vram | None:
    """Look at the GPU's memory before anything is on it, when a GPU is what will be taken."""
    request = EngineRequest(settings.device, settings.engine, settings.precision, strict=settings.strict)
    choice = choose(bundle, request)
    if choice.order[0].backend.device != "cuda":
        return None
    try:
        return Vram()
    except EngineError:
        return None  # opening the engine tells


def _session(
    engine: Engine,
    pictures: list[Picture],
    settings: Settings,
    memory: MemoryPhases,
    vram: Vram | None,
    on_progress: OnProgress,
) -> list[Metric]:
    """Measure the session: the first image and click, then the warm ones, then several sessions at once."""
    first, *rest = pictures
    total = settings.images * (1 + settings.clicks)
    on_device: list[Metric] = []
    with Probe(engine, watched=True) as probe:
        on_progress("first image", 2, 3)
        with memory.phase("image", "first image"):
            first_image = probe.set_image(first)
        first_click = probe.click(first.clicks[0])
        for index in range(_WARM_UP):
            probe.click(first.clicks[index % len(first.clicks)])
        images, clicks, done = [], [], 0
        with memory.phase("clicks", f"setting images and clicking, {settings.images} x {settings.clicks}"):
            for picture in rest:
                on_progress("images and clicks", done, total)
                images.append(probe.set_image(picture))
                row = []
                for point in picture.clicks:
                    row.append(probe.click(point))
                    done += 1
                    on_progress("images and clicks", done, total)
                clicks.append(row)
                done += 1
        on_gpu = probe.on_gpu
        if vram is not None and isinstance(engine, CudaEngine):
            on_device = vram.metrics(engine)
    if on_gpu:
        on_device += moved_metrics(images, clicks)
    rounds = iter(range(1, 1 + session_rounds()))
    on_progress("several sessions at once", 0, session_rounds())
    with memory.phase("sessions", "several sessions at once"):
        throughput = session_metrics(
            engine,
            rest,
            settings.clicks,
            lambda: on_progress("several sessions at once", next(rounds), session_rounds()),
        )
    return [
        _once("start.first_image", "first image", first_image.total),
        _once("start.first_click", "first click", first_click.total),
        *image_metrics(images, on_gpu=on_gpu),
        *click_metrics(images, clicks, on_gpu=on_gpu),
        *on_device,
        *throughput,
    ]


def _beside(
    bundle: Bundle,
    engine: Engine,
    pictures: list[Picture],
    settings: Settings,
    known: list[Metric],
    on_progress: OnProgress,
) -> list[Metric]:
    """Measure what stands beside the session: operations, the machine's peak, eager PyTorch."""
    on_progress("counting operations", 0, 3)
    metrics = size_metrics(bundle, engine)
    if isinstance(engine, CudaEngine):
        metrics += _graphs(engine, pictures[-1], settings, on_progress)
    eager, against = _eager(bundle, engine, pictures, settings, on_progress)
    on_progress("multiplying matrices", 2, 3)
    metrics += peak_metrics(engine, with_torch=eager, size=settings.matrix)
    stages = {
        stage.name: "click.engine" if stage.rate is Rate.CLICK else f"image.stage.{stage.name}"
        for stage in bundle.manifest.stages
    }
    metrics += fraction_metrics(engine, [*known, *metrics], stages)
    return [*metrics, *against]


def _eager(
    bundle: Bundle, engine: Engine, pictures: list[Picture], settings: Settings, on_progress: OnProgress
) -> tuple[bool, list[Metric]]:
    """Return whether PyTorch is there, and what it measured."""
    every = forms(engine.info)
    wanted = forms(engine.info, compiled=settings.compiled)
    steps = eager_steps(settings.clicks)
    on_progress(_beside_what(every[0]), 0, steps)
    try:
        if not settings.eager:
            raise NotMeasuredError("switched off with --no-eager")
        eager = EagerMMMS(bundle.manifest, engine.info.threads or available_cores(), engine.info.device)
    except NotMeasuredError as error:
        return False, [metric for form in every for metric in _no_eager(form, error.given)]
    metrics = []
    for form in every:
        if form not in wanted:
            metrics += _no_eager(form, "switched off with --no-compiled")
            continue
        what, numbers = _beside_what(form), iter(range(1, 1 + steps))
        on_progress(what, 0, steps)
        try:
            metrics += eager_metrics(
                eager if form == eager.form else eager.variant(form),
                engine,
                pictures[1:],
                settings.clicks,
                lambda what=what, numbers=numbers: on_progress(what, next(numbers), steps),  # type: ignore[misc]
            )
        except MMMSDeployError:
            raise
        except Exception as error:
            # PyTorch's compilers raise types of their own, and what they need (Triton, a C compiler) may be missing; so
            # may kernels for this GPU. What else was measured is not lost for that.
            metrics += _no_eager(form, f"PyTorch failed: {_first_line(error)}")
    eager.close()
    return True, metrics


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().split(chr(10))[0]}"


def _beside_what(form: Form) -> str:
    return f"{form} PyTorch, in turns with the engine"


def _no_eager(form: Form, why: str) -> list[Metric]:
    return [
        Metric(key=f"{form.key}.{kind}_ratio", title=f"{kind}, this engine / {form} PyTorch", unit="ratio", why=why)
        for kind in ("click", "image")
    ]


def _graphs(engine: CudaEngine, picture: Picture, settings: Settings, on_progress: OnProgress) -> list[Metric]:
    what, steps = "clicks with and without a CUDA graph, in turns", graph_steps(settings.clicks)
    numbers = iter(range(1, 1 + steps))
    on_progress(what, 0, steps)
    return graph_metrics(engine, picture, lambda: on_progress(what, next(numbers), steps))


def _sweep(bundle: Bundle, pictures: list[Picture], settings: Settings, on_progress: OnProgress) -> list[Metric]:
    counts = thread_counts(available_cores())
    steps = len(counts) * (settings.clicks + 2)
    numbers = iter(range(1, 1 + steps))
    what = f"threads 1 to {counts[-1]}"
    on_progress(what, 0, steps)
    return sweep_metrics(
        lambda threads: settings.open(bundle, threads),
        counts,
        pictures,
        settings.clicks,
        lambda: on_progress(what, next(numbers), steps),
    )


def thread_counts(cores: int) -> list[int]:
    """Return the numbers of threads to try: every one up to eight, then doubling, and all cores."""
    counts = [*range(1, min(cores, _EVERY_COUNT) + 1)]
    while counts[-1] < cores:
        counts.append(min(2 * counts[-1], cores))
    return counts


def describe_bundle(bundle: Bundle) -> BundleFacts:
    """Return what matters of a bundle."""
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
