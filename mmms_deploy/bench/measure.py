"""The measurements of a run, each as metrics with their raw samples.

Two that are compared take turns, so that both run under the same load of the machine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from time import perf_counter, sleep
from typing import Any

from mmms_deploy.bench.eager import EagerMMMS
from mmms_deploy.bench.errors import NotMeasuredError
from mmms_deploy.bench.report import Better, Headline, Metric
from mmms_deploy.bench.timed_session import ClickSample, ImageSample, TimedSession
from mmms_deploy.bench.workload import Picture
from mmms_deploy.engines.cuda.engine import CudaEngine
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.errors import MMMSDeployError, ResidentBudgetError
from mmms_deploy.progress import OnProgress, Progress

SETTLE = 0.02
"""Seconds between two libraries that take turns, so that the threads of the idle one stop spinning."""
SESSIONS = (1, 2, 4)
_ROUNDS = 3
_SESSION_CLICKS = 10
_EAGER_CLICKS = 10
_EAGER_IMAGES = 2
_GRAPH_WARM_UP = 3
_COMPILED_WARM_UP = 3
"""Calls of a compiled form that are not measured: the first compiles and runs, the second records a CUDA graph."""
ONNXRUNTIME_CUDA = "onnxruntime-cuda"
_CLOCKS = {"click": "host", "device": "GPU"}


class StepCounter:
    """Counts the steps of a task and reports each; the first report says that none is done.

    Args:
        on_progress: Receives the reports; None for no reports.
        task: What is measured.
        total: Steps in all.
    """

    def __init__(self, on_progress: OnProgress | None, task: str, total: int) -> None:
        self._on_progress = on_progress
        self._task = task
        self._total = total
        self._done = 0
        self._report()

    def step(self) -> None:
        """Report that one more step is done."""
        self._done += 1
        self._report()

    def _report(self) -> None:
        if self._on_progress is not None:
            self._on_progress(Progress(self._task, self._done, self._total))


# --- images and clicks ------------------------------------------------------------------------------------------------


def image_metrics(samples: Sequence[ImageSample], *, on_gpu: bool = False) -> list[Metric]:
    """Return the metrics of images.

    Args:
        samples: The images.
        on_gpu: Whether stages were timed on a GPU.
    """
    clock = "GPU's own time" if on_gpu else "engine"
    metrics = [
        Metric(
            key="image.total",
            title="image, whole set_image",
            unit="ms",
            samples=tuple(s.total for s in samples),
            gated=True,
        ),
        Metric(
            key="image.prepare",
            title="  resizing, normalising",
            unit="ms",
            samples=tuple(s.prepare for s in samples),
        ),
    ]
    for name in samples[0].stages:
        metrics.append(
            Metric(
                key=f"image.stage.{name}",
                title=f"  stage {name}, {clock}",
                unit="ms",
                samples=tuple(s.stages[name] for s in samples),
            )
        )
    return metrics


def click_metrics(
    images: Sequence[ImageSample],
    clicks: Sequence[Sequence[ClickSample]],
    *,
    on_gpu: bool = False,
    apart: bool = False,
) -> list[Metric]:
    """Return the metrics of clicks.

    Args:
        images: The images.
        clicks: The clicks on each of them, at least one.
        on_gpu: Whether stages were timed on a GPU.
        apart: Whether an image's first click runs a stage of its own, so that it is measured apart from later ones, of
            which there is at least one.
    """
    engine = "  click stage, GPU's own time" if on_gpu else "  engine, click stage"
    transfer = "    launching, waiting, answer out" if on_gpu else "    click in, answer out"
    flat = [sample for row in clicks for sample in row[1 if apart and len(row) > 1 else 0 :]]
    count = len(clicks[0])
    firsts: list[Metric] = []
    if apart:
        stage = "  first click's stage, GPU's own time" if on_gpu else "  engine, first click's stage"
        total, own = (tuple(of(row[0]) for row in clicks) for of in (_total, _engine))
        firsts = [
            Metric(
                key="click.first.total",
                title="first click, whole Session.click",
                unit="ms",
                samples=total,
                gated=True,
            ),
            Metric(key="click.first.engine", title=stage, unit="ms", samples=own, gated=True),
        ]

    def part(key: str, title: str, of: Callable[[ClickSample], float], *, gated: bool = False) -> Metric:
        samples = tuple(of(sample) for sample in flat)
        return Metric(key=f"click.{key}", title=title, unit="ms", samples=samples, gated=gated)

    return [
        *firsts,
        part("total", f"{'later ' if apart else ''}click, whole Session.click", _total, gated=True),
        part("engine", engine, _engine, gated=True),
        part("host", "  host, all the rest", lambda s: s.host),
        part("transfer", transfer, lambda s: s.transfer),
        part("mask", "    mask to the image's size", lambda s: s.mask),
        part("rest", "    checks, state, history", lambda s: s.rest),
        Metric(
            key="click.mean",
            title=f"mean of the {count} clicks on an image",
            unit="ms",
            samples=tuple(sum(s.total for s in row) / len(row) for row in clicks),
            headline=Headline.MEAN,
            gated=True,
        ),
        Metric(
            key="click.amortised",
            title=f"(image + {count} clicks) / {count}",
            unit="ms",
            samples=tuple(
                (image.total + sum(s.total for s in row)) / len(row) for image, row in zip(images, clicks, strict=True)
            ),
            headline=Headline.MEAN,
            gated=True,
        ),
    ]


def _total(sample: ClickSample) -> float:
    return sample.total


def _engine(sample: ClickSample) -> float:
    return sample.engine


def moved_metrics(images: Sequence[ImageSample], clicks: Sequence[Sequence[ClickSample]]) -> list[Metric]:
    """Return the bytes that images and clicks moved between the host and the GPU, as the session's runner counts."""
    flat = [sample for row in clicks for sample in row]
    return [
        Metric(key=f"moved.{key}", title=title, unit="B", samples=tuple(map(float, samples)))
        for key, title, samples in (
            ("click_up", "a click, to the GPU", [s.up for s in flat]),
            ("click_down", "a click, from the GPU", [s.down for s in flat]),
            ("image_up", "an image, to the GPU", [s.up for s in images]),
        )
    ]


def compact(engine: Engine) -> bool:
    """Whether to measure an engine with discs as answers: on a GPU, where the weights are random."""
    return isinstance(engine, CudaEngine) and not engine.bundle.manifest.trained


def compact_metrics(engine: Engine, picture: Picture) -> list[Metric]:
    """Measure clicks whose answer is a disc when it reaches the host; see :class:`TimedSession`.

    Args:
        engine: The engine, open.
        picture: An image with its clicks.

    Returns:
        Nothing where the answers of the network itself are compact enough: see :func:`compact`.
    """
    if not compact(engine):
        return []
    with TimedSession(engine, compact=True) as session:
        session.set_image(picture)
        for point in picture.clicks[:_GRAPH_WARM_UP]:
            session.click(point)
        samples = [session.click(point) for point in picture.clicks]
    return [
        Metric(
            key="click.compact.total",
            title="click, whole, with a disc as its mask",
            unit="ms",
            samples=tuple(sample.total for sample in samples),
        ),
        Metric(
            key="click.compact.mask",
            title="  mask to the image's size",
            unit="ms",
            samples=tuple(sample.mask for sample in samples),
        ),
    ]


# --- several sessions -------------------------------------------------------------------------------------------------


def session_metrics(
    engine: Engine, pictures: Sequence[Picture], clicks: int, on_progress: OnProgress | None = None
) -> list[Metric]:
    """Measure how many clicks a second several sessions on one engine answer, each in a thread of its own.

    Args:
        engine: The engine that they share.
        pictures: Images for them, taken in turns.
        clicks: Clicks of a session at a time.
        on_progress: Receives every round of a number of sessions.
    """
    counter = StepCounter(on_progress, "several sessions at once", _ROUNDS * len(SESSIONS))
    clicks = min(clicks, _SESSION_CLICKS)
    sessions: list[TimedSession] = []
    no_room = ""
    rates: dict[int, list[float]] = {count: [] for count in SESSIONS}
    try:
        try:
            for _ in range(max(SESSIONS)):
                sessions.append(TimedSession(engine))
        except ResidentBudgetError as error:
            no_room = error.given
        for index, session in enumerate(sessions):
            picture = pictures[index % len(pictures)]
            session.set_image(picture)
            session.click(picture.clicks[0])
        for _ in range(_ROUNDS):
            for count in SESSIONS:
                if count <= len(sessions):
                    rates[count].append(_rate(sessions[:count], pictures, clicks))
                counter.step()
    finally:
        for session in sessions:
            session.close()
    return [
        Metric(
            key=f"throughput.{count}",
            title=f"{count} session{'s' if count > 1 else ''} at once",
            unit="1/s",
            samples=tuple(rates[count]),
            better=Better.HIGHER,
            gated=True,
            why="" if rates[count] else no_room,
        )
        for count in SESSIONS
    ]


def _rate(sessions: Sequence[TimedSession], pictures: Sequence[Picture], clicks: int) -> float:
    """Return the clicks a second of all sessions together."""
    barrier = threading.Barrier(len(sessions) + 1)
    failures: list[BaseException] = []

    def annotate(session: TimedSession, picture: Picture) -> None:
        barrier.wait()
        try:
            for index in range(clicks):
                session.click(picture.clicks[index % len(picture.clicks)])
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=annotate, args=(session, pictures[index % len(pictures)]), daemon=True)
        for index, session in enumerate(sessions)
    ]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = perf_counter()
    for thread in threads:
        thread.join()
    seconds = perf_counter() - start
    if failures:
        raise failures[0]
    return clicks * len(sessions) / seconds


# --- the engine and PyTorch -------------------------------------------------------------------------------------------


def eager_metrics(
    eager: EagerMMMS,
    engine: Engine,
    pictures: Sequence[Picture],
    clicks: int,
    on_progress: OnProgress | None = None,
) -> list[Metric]:
    """Measure the engine and PyTorch in turns.

    Args:
        eager: The network in PyTorch.
        engine: The engine, open.
        pictures: Images, at least one.
        clicks: Clicks that the run measures; at most ten of them are repeated here.
        on_progress: Receives every image and click of both.
    """
    warm_up = _COMPILED_WARM_UP if eager.form.compiled else 1
    steps = 2 * warm_up + _EAGER_IMAGES + min(clicks, _EAGER_CLICKS)
    counter = StepCounter(on_progress, f"{eager.form} PyTorch, in turns with the engine", steps)
    ours: dict[str, list[float]] = {"image": [], "click": []}
    theirs: dict[str, list[float]] = {"image": [], "click": []}
    # A GPU would lower its clock meanwhile, and be slower afterwards.
    settle = SETTLE if engine.info.device == "cpu" else 0.0

    def both(kind: str, our: Callable[[], object], their: Callable[[], object], *, count: bool = True) -> None:
        for samples, call in ((ours[kind], our), (theirs[kind], their)):
            sleep(settle)
            start = perf_counter()
            call()
            if count:
                samples.append(1e3 * (perf_counter() - start))
        counter.step()

    picture = pictures[0]
    with TimedSession(engine, compact=compact(engine)) as session:
        for _ in range(warm_up):
            both("image", lambda: session.set_image(picture), lambda: eager.set_image(picture), count=False)
        for number in range(_EAGER_IMAGES):
            shown = pictures[number % len(pictures)]
            both("image", lambda p=shown: session.set_image(p), lambda p=shown: eager.set_image(p))  # type: ignore[misc]
        points = shown.clicks[:clicks]
        for _ in range(warm_up):
            both("click", lambda: session.click(points[0]), lambda: eager.click(*points[0]), count=False)
        for point in points[:_EAGER_CLICKS]:
            both("click", lambda p=point: session.click(p), lambda p=point: eager.click(*p))  # type: ignore[misc]
    metrics = []
    for kind in ("click", "image"):
        pairs = list(zip(ours[kind], theirs[kind], strict=True))
        metrics += [
            Metric(
                key=f"{eager.form.key}.{kind}",
                title=f"{kind}, PyTorch {eager.version} {eager.form}",
                unit="ms",
                samples=tuple(theirs[kind]),
            ),
            Metric(
                key=f"{eager.form.key}.{kind}_ours",
                title=f"{kind}, this engine in the same turns",
                unit="ms",
                samples=tuple(ours[kind]),
            ),
            Metric(
                key=f"{eager.form.key}.{kind}_ratio",
                title=f"{kind}, this engine / {eager.form} PyTorch",
                unit="ratio",
                samples=tuple(our / their for our, their in pairs),
                gated=True,
            ),
        ]
    return metrics


# --- a click as a CUDA graph ------------------------------------------------------------------------------------------


def cuda_graph_metrics(engine: CudaEngine, picture: Picture, on_progress: OnProgress | None = None) -> list[Metric]:
    """Measure clicks as one CUDA graph against the same operations launched one by one, in turns.

    Args:
        engine: The engine, open. Another one of the same stages, without CUDA graphs, is opened meanwhile.
        picture: An image with its clicks.
        on_progress: Receives every click of both.
    """
    return _compared(
        engine,
        picture,
        "graph",
        "clicks with and without a CUDA graph, in turns",
        ("click as one CUDA graph", "its operations one by one"),
        "one CUDA graph / one by one",
        _with_and_without,
        on_progress,
    )


def layout_metrics(engine: CudaEngine, picture: Picture, on_progress: OnProgress | None = None) -> list[Metric]:
    """Measure clicks with both layouts of ONNX Runtime's convolutions, in turns.

    Args:
        engine: The engine, open. Another one of the same stages, in the other layout, is opened meanwhile.
        picture: An image with its clicks.
        on_progress: Receives every click of both.

    Returns:
        Nothing for another engine than ONNX Runtime's.
    """
    if engine.info.name != ONNXRUNTIME_CUDA:
        return []
    return _compared(
        engine,
        picture,
        "layout",
        "clicks in NHWC and in NCHW, in turns",
        ("click with prefer_nhwc", "click without"),
        "with prefer_nhwc / without",
        _both_layouts,
        on_progress,
    )


_Pair = Callable[[CudaEngine, ExitStack], tuple[TimedSession, TimedSession]]


def _compared(
    engine: CudaEngine,
    picture: Picture,
    group: str,
    task: str,
    titles: tuple[str, str],
    ratio: str,
    pair: _Pair,
    on_progress: OnProgress | None,
) -> list[Metric]:
    """Return times of two sessions in turns, by both clocks, and their ratio."""
    counter = StepCounter(on_progress, task, _GRAPH_WARM_UP + len(picture.clicks))
    try:
        with ExitStack() as stack:
            samples = _in_turns(pair(engine, stack), picture, counter)
    except MMMSDeployError as error:
        return [
            Metric(key=f"{group}.{key}_ratio", title=f"{clock}, {ratio}", unit="ratio", why=error.given)
            for key, clock in _CLOCKS.items()
        ]
    metrics = []
    for key, clock in _CLOCKS.items():
        ours, theirs = (tuple(s.total if key == "click" else s.engine for s in row) for row in samples)
        metrics += [
            Metric(key=f"{group}.{key}", title=f"{clock}, {titles[0]}", unit="ms", samples=ours),
            Metric(key=f"{group}.{key}_off", title=f"{clock}, {titles[1]}", unit="ms", samples=theirs),
            Metric(
                key=f"{group}.{key}_ratio",
                title=f"{clock}, {ratio}",
                unit="ratio",
                samples=tuple(a / b for a, b in zip(ours, theirs, strict=True)),
                gated=True,
            ),
        ]
    return metrics


def _with_and_without(engine: CudaEngine, stack: ExitStack) -> tuple[TimedSession, TimedSession]:
    """Return a session with CUDA graphs and one without; leaving the stack closes both and the second engine."""
    on = stack.enter_context(TimedSession(engine, on_gpu=True))
    if not on.is_cuda_graph:
        raise NotMeasuredError("a click is not one CUDA graph on this engine; a warning said why when it was opened")
    return on, _other(engine, stack, "without a CUDA graph", replace(engine.options, cuda_graph=False))


def _both_layouts(engine: CudaEngine, stack: ExitStack) -> tuple[TimedSession, TimedSession]:
    """Return a session that prefers NHWC and one that does not."""
    usual = stack.enter_context(TimedSession(engine, on_gpu=True))
    preferred = engine.options.prefer_nhwc
    other = _other(engine, stack, "in the other layout", replace(engine.options, prefer_nhwc=not preferred))
    return (usual, other) if preferred else (other, usual)


def _other(engine: CudaEngine, stack: ExitStack, reason: str, options: CudaOptions) -> TimedSession:
    """Return a session on another engine of the same stages; leaving the stack closes both."""
    # All engines of this package are opened with these arguments. Compiled plans come from the cache, if there is one.
    factory: Any = type(engine)
    other: CudaEngine = factory(engine.bundle, engine.info.precision, None, reason, options=options)
    stack.callback(other.close)
    return stack.enter_context(TimedSession(other, on_gpu=True))


def _in_turns(
    sessions: Sequence[TimedSession], picture: Picture, counter: StepCounter
) -> tuple[list[ClickSample], ...]:
    """Make the same clicks in two sessions; the order of the two changes with every click."""
    rows: tuple[list[ClickSample], ...] = ([], [])
    for session in sessions:
        session.set_image(picture)
    for number in range(_GRAPH_WARM_UP):
        for session in sessions:
            session.click(picture.clicks[number % len(picture.clicks)])
        counter.step()
    for number, point in enumerate(picture.clicks):
        pairs = list(zip(sessions, rows, strict=True))
        for session, row in pairs if number % 2 else reversed(pairs):
            row.append(session.click(point))
        counter.step()
    return rows


# --- numbers of threads -----------------------------------------------------------------------------------------------


def sweep_metrics(
    open_with: Callable[[int], Engine],
    counts: Sequence[int],
    pictures: Sequence[Picture],
    clicks: int,
    on_progress: OnProgress | None = None,
) -> list[Metric]:
    """Measure clicks on different numbers of threads: up and down again, half of the clicks each way.

    Args:
        open_with: Opens an engine with a number of threads.
        counts: Numbers of threads, ascending.
        pictures: Images, at least one.
        clicks: Clicks for each number.
        on_progress: Receives every click and every engine that is open.
    """
    counter = StepCounter(on_progress, f"threads 1 to {counts[-1]}", len(counts) * (clicks + 2))
    samples: dict[int, list[float]] = {count: [] for count in counts}
    picture = pictures[0]
    halves = (picture.clicks[: clicks - clicks // 2], picture.clicks[: clicks // 2])
    for order, points in zip((list(counts), list(reversed(counts))), halves, strict=True):
        for count in order:
            if not points:
                continue
            engine = open_with(count)
            try:
                with TimedSession(engine) as session:
                    session.set_image(picture)
                    for point in points[:2]:
                        session.click(point)
                    counter.step()
                    for point in points:
                        samples[count].append(session.click(point).total)
                        counter.step()
            finally:
                engine.close()
    return [
        Metric(
            key=f"sweep.{count}",
            title=f"click on {count} thread{'s' if count > 1 else ''}",
            unit="ms",
            samples=tuple(samples[count]),
        )
        for count in counts
    ]
