"""The measurements of a run, each as metrics with their raw samples."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from time import perf_counter, sleep

from mmms_deploy.bench.eager import EagerMMMS
from mmms_deploy.bench.probe import ClickSample, ImageSample, Probe
from mmms_deploy.bench.report import Better, Headline, Metric
from mmms_deploy.bench.workload import Picture
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.errors import ResidentBudgetError

SETTLE = 0.02
"""Seconds between two libraries that take turns, so that the idle one's threads have stopped spinning."""
SESSIONS = (1, 2, 4)
_ROUNDS = 3
_SESSION_CLICKS = 10
_EAGER_CLICKS = 10
_EAGER_IMAGES = 2

Tell = Callable[[], None]
"""Called after every image and click."""


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
    images: Sequence[ImageSample], clicks: Sequence[Sequence[ClickSample]], *, on_gpu: bool = False
) -> list[Metric]:
    """Return the metrics of clicks.

    Args:
        images: The images.
        clicks: The clicks on each of them, at least one.
        on_gpu: Whether stages were timed on a GPU.
    """
    engine = "  click stage, GPU's own time" if on_gpu else "  engine, click stage"
    transfer = "    asking, waiting, answer out" if on_gpu else "    click in, answer out"
    flat = [sample for row in clicks for sample in row]
    count = len(clicks[0])

    def part(key: str, title: str, of: Callable[[ClickSample], float], *, gated: bool = False) -> Metric:
        samples = tuple(of(sample) for sample in flat)
        return Metric(key=f"click.{key}", title=title, unit="ms", samples=samples, gated=gated)

    return [
        part("total", "click, whole Session.click", lambda s: s.total, gated=True),
        part("engine", engine, lambda s: s.engine, gated=True),
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


def moved_metrics(images: Sequence[ImageSample], clicks: Sequence[Sequence[ClickSample]]) -> list[Metric]:
    """Return what images and clicks moved between the host and the GPU, as the runner accounts for it."""
    flat = [sample for row in clicks for sample in row]
    return [
        Metric(key=f"moved.{key}", title=title, unit="B", samples=tuple(map(float, samples)))
        for key, title, samples in (
            ("click_up", "a click, to the GPU", [s.up for s in flat]),
            ("click_down", "a click, from the GPU", [s.down for s in flat]),
            ("image_up", "an image, to the GPU", [s.up for s in images]),
        )
    ]


def session_metrics(engine: Engine, pictures: Sequence[Picture], clicks: int, tell: Tell) -> list[Metric]:
    """Measure how many clicks a second several sessions on one engine answer, each in a thread of its own.

    Args:
        engine: The engine that they share.
        pictures: Images for them, taken in turns.
        clicks: Clicks of a session at a time.
        tell: Called after every round of a number of sessions.
    """
    clicks = min(clicks, _SESSION_CLICKS)
    probes: list[Probe] = []
    no_room = ""
    rates: dict[int, list[float]] = {count: [] for count in SESSIONS}
    try:
        try:
            for _ in range(max(SESSIONS)):
                probes.append(Probe(engine))
        except ResidentBudgetError as error:
            no_room = error.given
        for index, probe in enumerate(probes):
            picture = pictures[index % len(pictures)]
            probe.set_image(picture)
            probe.click(picture.clicks[0])
        for _ in range(_ROUNDS):
            for count in SESSIONS:
                if count <= len(probes):
                    rates[count].append(_rate(probes[:count], pictures, clicks))
                tell()
    finally:
        for probe in probes:
            probe.close()
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


def session_rounds() -> int:
    """Return how often :func:`session_metrics` tells."""
    return _ROUNDS * len(SESSIONS)


def _rate(probes: Sequence[Probe], pictures: Sequence[Picture], clicks: int) -> float:
    """Clicks a second over all sessions."""
    barrier = threading.Barrier(len(probes) + 1)
    failures: list[BaseException] = []

    def annotate(probe: Probe, picture: Picture) -> None:
        barrier.wait()
        try:
            for index in range(clicks):
                probe.click(picture.clicks[index % len(picture.clicks)])
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=annotate, args=(probe, pictures[index % len(pictures)]), daemon=True)
        for index, probe in enumerate(probes)
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
    return clicks * len(probes) / seconds


def eager_metrics(
    eager: EagerMMMS, engine: Engine, pictures: Sequence[Picture], clicks: int, tell: Tell
) -> list[Metric]:
    """Measure the engine and PyTorch in turns, so that both meet the same moods of the machine.

    Args:
        eager: The network in PyTorch.
        engine: The engine, open.
        pictures: Images, at least one.
        clicks: Clicks that the run measures; at most ten of them are repeated here.
        tell: Called after every image and click of both.
    """
    ours: dict[str, list[float]] = {"image": [], "click": []}
    theirs: dict[str, list[float]] = {"image": [], "click": []}
    # A GPU would rest meanwhile, and wake up slower.
    settle = SETTLE if engine.info.device == "cpu" else 0.0

    def both(kind: str, our: Callable[[], object], their: Callable[[], object], *, count: bool = True) -> None:
        for samples, call in ((ours[kind], our), (theirs[kind], their)):
            sleep(settle)
            start = perf_counter()
            call()
            if count:
                samples.append(1e3 * (perf_counter() - start))
        tell()

    picture = pictures[0]
    with Probe(engine) as probe:
        both("image", lambda: probe.set_image(picture), lambda: eager.set_image(picture), count=False)
        for number in range(_EAGER_IMAGES):
            shown = pictures[number % len(pictures)]
            both("image", lambda p=shown: probe.set_image(p), lambda p=shown: eager.set_image(p))  # type: ignore[misc]
        points = shown.clicks[:clicks]
        both("click", lambda: probe.click(points[0]), lambda: eager.click(*points[0]), count=False)
        for point in points[:_EAGER_CLICKS]:
            both("click", lambda p=point: probe.click(p), lambda p=point: eager.click(*p))  # type: ignore[misc]
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


def eager_steps(clicks: int) -> int:
    """Return how often :func:`eager_metrics` tells."""
    return 2 + _EAGER_IMAGES + min(clicks, _EAGER_CLICKS)


def sweep_metrics(
    open_with: Callable[[int], Engine],
    counts: Sequence[int],
    pictures: Sequence[Picture],
    clicks: int,
    tell: Tell,
) -> list[Metric]:
    """Measure clicks on different numbers of threads: up and down again, half of the clicks each way.

    Args:
        open_with: Opens an engine with a number of threads.
        counts: Numbers of threads.
        pictures: Images, at least one.
        clicks: Clicks for each number.
        tell: Called after every click and engine.
    """
    samples: dict[int, list[float]] = {count: [] for count in counts}
    picture = pictures[0]
    halves = (picture.clicks[: clicks - clicks // 2], picture.clicks[: clicks // 2])
    for order, points in zip((list(counts), list(reversed(counts))), halves, strict=True):
        for count in order:
            if not points:
                continue
            engine = open_with(count)
            try:
                with Probe(engine) as probe:
                    probe.set_image(picture)
                    for point in points[:2]:
                        probe.click(point)
                    tell()
                    for point in points:
                        samples[count].append(probe.click(point).total)
                        tell()
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
