"""What clicks cost of a network that takes all of them as a list: by the size of the list, by the number of objects."""

from __future__ import annotations

from time import perf_counter

import numpy as np

from mmms_deploy.bench.report import Metric
from mmms_deploy.bench.workload import Picture
from mmms_deploy.bundle import Manifest
from mmms_deploy.bundle.contract import ClickList
from mmms_deploy.bundle.names import CHOICE, CLICK_LIST, FIRST_CLICK
from mmms_deploy.engines.protocol import Engine, Runner
from mmms_deploy.session import Session
from mmms_deploy.session.pipeline import PipelineState, StagePipeline

OBJECTS = (1, 2, 5, 10)
"""How many objects the clicks are on."""
_RUNS = 3
_CLICKS = 10


def size_key(rows: int) -> str:
    """Return the key of the metric that has the engine's time for a list of so many rows."""
    return f"list.engine.{rows}"


def list_metrics(engine: Engine, picture: Picture) -> list[Metric]:
    """Measure the click stage in every size, and clicks on several objects.

    Args:
        engine: The engine, open.
        picture: An image with its clicks.

    Returns:
        Nothing for a network that takes no list.

    Raises:
        EngineError: A stage failed.
    """
    listed = engine.bundle.manifest.clicks.listed
    if listed is None:
        return []
    return [*_by_size(engine, listed), *(_by_objects(engine, listed, picture) if listed.objects > 1 else [])]


def _by_size(engine: Engine, listed: ClickList) -> list[Metric]:
    """Measure full lists. The image is zeros: the time does not depend on it."""
    manifest, runner = engine.bundle.manifest, engine.open()
    metrics = []
    try:
        pipeline = StagePipeline(manifest, engine.graphs, runner)
        outside = {name: pipeline.zeros(name) for name in pipeline.inputs if name != CLICK_LIST}
        if FIRST_CLICK in outside:
            outside[FIRST_CLICK] = pipeline.upload(FIRST_CLICK, np.ones((1, 4)))
            outside[CHOICE] = pipeline.zeros(CHOICE)
        ready = pipeline.set(pipeline.start(), outside)
        for rows in listed.sizes:
            compiled = 1e3 * pipeline.prepare(rows)
            ready, samples = _runs(pipeline, runner, ready, _full(manifest, listed, rows))
            title = f"  engine, a list of {rows} clicks"
            metrics.append(Metric(key=size_key(rows), title=title, unit="ms", samples=tuple(samples)))
            if compiled:
                title = f"  compiling for a list of {rows}, once"
                metrics.append(Metric(key=f"list.compile.{rows}", title=title, unit="ms", samples=(compiled,)))
    finally:
        runner.close()
    return metrics


def _full(manifest: Manifest, listed: ClickList, rows: int) -> np.ndarray:
    """Return a full list of clicks, (1, rows, fields) float32, all of them on the first object."""
    height, width = manifest.size
    clicks = np.ones((1, rows, listed.fields), dtype=np.float32)
    clicks[0, :, :2] = np.random.default_rng(0).random((rows, 2)) * (width - 1, height - 1)
    return clicks


def _runs(
    pipeline: StagePipeline, runner: Runner, state: PipelineState, clicks: np.ndarray
) -> tuple[PipelineState, list[float]]:
    """Answer a list some times; return the state with the image's features, and milliseconds."""
    rows, samples = clicks.shape[1], []
    for _ in range(1 + _RUNS):
        given = {CLICK_LIST: pipeline.upload(CLICK_LIST, clicks, rows)}
        runner.synchronize()
        start = perf_counter()
        state = pipeline.run(pipeline.set(state, given), rows=rows)
        runner.synchronize()
        samples.append(1e3 * (perf_counter() - start))
    return state, samples[1:]


def _by_objects(engine: Engine, listed: ClickList, picture: Picture) -> list[Metric]:
    """Measure a tenth click, whole, where the clicks before it are on some objects."""
    clicks = [(x, y) for x, y, _ in picture.clicks[:_CLICKS]]
    clicks = [clicks[number % len(clicks)] for number in range(min(_CLICKS, listed.sizes[0]))]
    metrics = []
    for count in (count for count in OBJECTS if count <= min(len(clicks), listed.objects)):
        with Session(engine.bundle, engine=engine, keep_image=False) as session:
            session.set_image(picture.rgb, **picture.modalities)
            for number, place in enumerate(clicks):
                session.select(str(number % count + 1))
                session.click(*place)
            samples = []
            for _ in range(_RUNS):
                session.undo()
                start = perf_counter()
                session.click(*clicks[-1])
                samples.append(1e3 * (perf_counter() - start))
        title = f"  click {len(clicks)}, on {count} object{'s' if count > 1 else ''}"
        metrics.append(Metric(key=f"list.objects.{count}", title=title, unit="ms", samples=tuple(samples)))
    return metrics
