"""Clicks on several objects of one image, in one run of the network, beside PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter, sleep

import numpy as np

from mmms_deploy.bench.eager import EagerMMMS
from mmms_deploy.bench.errors import NotMeasuredError
from mmms_deploy.bench.measure import SETTLE, StepCounter
from mmms_deploy.bench.report import Better, Metric
from mmms_deploy.bench.workload import Picture, Point
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.progress import OnProgress
from mmms_deploy.session import Session

OBJECTS = (1, 4, 16)
"""How many objects are clicked at once."""
_ROUNDS = 10


def object_metrics(
    engine: Engine,
    picture: Picture,
    eager: EagerMMMS | None,
    why: str = "",
    on_progress: OnProgress | None = None,
) -> list[Metric]:
    """Measure ``Session.click_objects`` and the same clicks in PyTorch, in turns.

    Every call clicks once on each object, and ends with a mask of the image's size for each of them.

    Args:
        engine: The engine, open.
        picture: An image.
        eager: The network in PyTorch; None without one.
        why: Why there is none.
        on_progress: Receives every round.

    Returns:
        Nothing for a bundle that has no click stage for several objects.
    """
    manifest = engine.bundle.manifest
    if not manifest.batches:
        return []
    counter = StepCounter(on_progress, "clicks on several objects at once", len(OBJECTS) * (1 + _ROUNDS))
    settle = SETTLE if engine.info.device == "cpu" else 0.0
    metrics: list[Metric] = []
    with Session(engine.bundle, engine=engine, keep_image=False, batch=True) as session:
        for count in OBJECTS:
            session.set_image(picture.rgb, **picture.modalities)
            theirs: list[float] | None = None if eager is None else []
            ours: list[float] = []
            if eager is not None:
                eager.set_image(picture)
            for turn in range(1 + _ROUNDS):
                points = _points(picture, count, turn)
                sleep(settle)
                start = perf_counter()
                session.click_objects({str(number): point for number, point in enumerate(points, start=1)})
                middle = perf_counter()
                sleep(settle)
                again = perf_counter()
                if eager is not None and theirs is not None:
                    try:
                        eager.click_objects(points)
                        theirs += [perf_counter() - again] if turn else []
                    except NotMeasuredError as error:
                        theirs, why = None, error.given
                ours += [middle - start] if turn else []
                counter.step()
            metrics += _of(count, ours, theirs, why, "PyTorch" if eager is None else f"{eager.form} PyTorch")
    return metrics


def _points(picture: Picture, count: int, turn: int) -> list[Point]:
    """Return a click on every object, others at every turn; the first ones on an object are positive."""
    height, width = picture.rgb.shape[:2]
    places = np.random.default_rng((count, turn)).random((count, 2)) * (width - 1, height - 1)
    return [(float(x), float(y), turn % 3 != 2) for x, y in places]


def _of(
    count: int, ours: Sequence[float], theirs: Sequence[float] | None, why: str, what: str
) -> tuple[Metric, Metric, Metric]:
    objects = f"{count} object{'s' if count > 1 else ''}"
    given = theirs or ()
    return (
        Metric(
            key=f"objects.{count}",
            title=f"clicks on {objects} at once",
            unit="1/s",
            samples=tuple(count / seconds for seconds in ours),
            better=Better.HIGHER,
            gated=True,
        ),
        Metric(
            key=f"objects.{count}_torch",
            title=f"  on {objects}, {what}",
            unit="1/s",
            samples=tuple(count / seconds for seconds in given),
            better=Better.HIGHER,
            why="" if given else why,
        ),
        Metric(
            key=f"objects.{count}_ratio",
            title=f"  on {objects}, time of this engine / {what}",
            unit="ratio",
            samples=tuple(our / their for our, their in zip(ours, given, strict=bool(given))),
            gated=True,
            why="" if given else why,
        ),
    )
