"""The measures of an evaluation, one data set at a time."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from mmms_deploy.bundle.contract import Struct
from mmms_deploy.evaluation.comparison import Comparison, Pairs
from mmms_deploy.evaluation.measures import area_under_curve, iou_after, summarise
from mmms_deploy.evaluation.results import RunFacts, SceneResult
from mmms_deploy.evaluation.settings import Protocol
from mmms_deploy.evaluation.surfaces import (
    MultiInstanceResult,
    MultiInstanceSummary,
    MultiSurfaceResult,
    MultiSurfaceSummary,
    summarise_instances,
    summarise_surfaces,
)


class TargetSummary(Struct, frozen=True, kw_only=True):
    """NoC@t and its failures.

    Attributes:
        target: t, a fraction.
        noc: Mean number of clicks; a failure counts as the limit.
        failed: Objects that never reach t within the limit.
        failure_rate: Their share, 0..1.
        at_limit: Objects whose NoC is the limit: failures as RITM's code counts them. There, reaching t with the very
            last click is a failure too.
        clicks: How many objects took 1, 2, ... clicks; failures are left out.
    """

    target: float
    noc: float
    failed: int
    failure_rate: float
    at_limit: int
    clicks: tuple[int, ...]


class CurveSummary(Struct, frozen=True, kw_only=True):
    """Quality by clicks, of complete curves only.

    Attributes:
        iou: Mean IoU after 1, 2, ... clicks.
        low: First quartile of the objects' IoU after 1, 2, ... clicks.
        high: Third quartile.
        boundary_iou: Mean boundary IoU after 1, 2, ... clicks.
        auc: Mean area under an object's IoU curve, 0..1.
        boundary_auc: Mean area under an object's boundary IoU curve, 0..1.
    """

    iou: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    boundary_iou: tuple[float, ...]
    auc: float
    boundary_auc: float


class TimeSummary(Struct, frozen=True, kw_only=True):
    """Wall time, in seconds.

    Attributes:
        image: Mean of setting an image.
        click: Mean of the predictor's answer to a click.
        click_with_simulation: The same with the time in which the simulated annotator chose the click.
        click_median: Median of the predictor's answers.
        clicks: Number of clicks measured.
    """

    image: float
    click: float
    click_with_simulation: float
    click_median: float
    clicks: int


class DatasetSummary(Struct, frozen=True, kw_only=True):
    """The measures of one data set.

    Attributes:
        name: Its name.
        scenes: Scenes evaluated.
        objects: Objects evaluated.
        skipped: Surfaces left out because they have no pixel outside of void.
        max_clicks: The limit.
        targets: NoC at every target.
        curve: Quality by clicks; None when clicking stopped at the highest target.
        time: Wall time.
        multi_surface: NoCMS and FRMS.
        multi_instance: The multi-instance task.
        comparison: With the other predictor; None without one.
    """

    name: str
    scenes: int
    objects: int
    skipped: int
    max_clicks: int
    targets: tuple[TargetSummary, ...]
    curve: CurveSummary | None
    time: TimeSummary
    multi_surface: tuple[MultiSurfaceSummary, ...] = ()
    multi_instance: tuple[MultiInstanceSummary, ...] = ()
    comparison: Comparison | None = None

    def target(self, value: float) -> TargetSummary:
        """NoC at one of the targets."""
        return next(target for target in self.targets if target.target == value)


def summarise_run(facts: RunFacts, results: Iterable[SceneResult]) -> tuple[DatasetSummary, ...]:
    """Summarise results, one entry for each data set that has any, in the order of ``facts``.

    Args:
        facts: What was evaluated, on what and how.
        results: The scenes of each data set in their order; read once, and not kept.
    """
    gathered = {dataset.name: _Gathered(dataset.name, facts) for dataset in facts.datasets}
    for result in results:
        gathered[result.dataset].add(result)
    return tuple(one.summary() for one in gathered.values() if one.ious)


class _Gathered:
    """The numbers that a summary of a data set needs, half a kilobyte for each object."""

    def __init__(self, name: str, facts: RunFacts) -> None:
        self._name, self._settings = name, facts.settings
        self.ious: list[array[float]] = []
        self._boundary_ious: list[array[float]] = []
        self._seconds = array("d")
        self._simulated = 0.0
        self._image_seconds = array("d")
        self._skipped = 0
        self._surfaces: list[list[MultiSurfaceResult]] = [[] for _ in self._settings.multi_surface]
        self._instances: list[list[MultiInstanceResult]] = [[] for _ in self._settings.multi_instance]
        self._pairs = None if facts.against is None else Pairs()

    def add(self, scene: SceneResult) -> None:
        """Add one scene."""
        for one in scene.objects:
            self.ious.append(array("d", one.ious))
            self._boundary_ious.append(array("d", one.boundary_ious))
            self._seconds.extend(one.predict_seconds)
            self._simulated += sum(one.simulate_seconds)
        self._image_seconds.append(scene.image_seconds)
        self._skipped += len(scene.skipped)
        for kept, found in zip(self._surfaces, scene.multi_surface, strict=False):  # a scene without objects has none
            kept.append(found)
        for several, task in zip(self._instances, scene.multi_instance, strict=False):
            several.append(task)
        if self._pairs is not None:
            self._pairs.add(scene)

    def summary(self) -> DatasetSummary:
        """Summarise the scenes that were added; they have one object or more."""
        settings = self._settings
        found = summarise(self.ious, (), settings.targets, settings.max_clicks)
        targets = tuple(
            TargetSummary(
                target=t,
                noc=found.noc[t],
                failed=found.failed[t],
                failure_rate=found.failures[t],
                at_limit=found.at_limit[t],
                clicks=found.clicks[t],
            )
            for t in settings.targets
        )
        clicks = len(self._seconds)
        return DatasetSummary(
            name=self._name,
            scenes=len(self._image_seconds),
            objects=len(self.ious),
            skipped=self._skipped,
            max_clicks=settings.max_clicks,
            targets=targets,
            curve=self._curve() if settings.protocol is Protocol.CURVE else None,
            time=TimeSummary(
                image=sum(self._image_seconds) / len(self._image_seconds),
                click=sum(self._seconds) / clicks,
                click_with_simulation=(sum(self._seconds) + self._simulated) / clicks,
                click_median=sorted(self._seconds)[clicks // 2],
                clicks=clicks,
            ),
            multi_surface=tuple(summarise_surfaces(results, settings.max_clicks) for results in self._surfaces),
            multi_instance=tuple(summarise_instances(results) for results in self._instances),
            comparison=None if self._pairs is None else self._pairs.comparison(settings),
        )

    def _curve(self) -> CurveSummary:
        count, limit = len(self.ious), self._settings.max_clicks
        steps = range(1, limit + 1)
        columns = [sorted(iou_after(curve, k) for curve in self.ious) for k in steps]
        return CurveSummary(
            iou=tuple(sum(column) / count for column in columns),
            low=tuple(column[count // 4] for column in columns),
            high=tuple(column[(3 * count) // 4] for column in columns),
            boundary_iou=tuple(sum(iou_after(curve, k) for curve in self._boundary_ious) / count for k in steps),
            auc=sum(area_under_curve(curve, limit) for curve in self.ious) / count,
            boundary_auc=sum(area_under_curve(curve, limit) for curve in self._boundary_ious) / count,
        )
