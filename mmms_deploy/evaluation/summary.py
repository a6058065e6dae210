"""The measures of an evaluation, a data set at a time."""

from __future__ import annotations

from collections.abc import Iterable

from mmms_deploy.contract import Struct
from mmms_deploy.evaluation.comparison import Comparison, compare
from mmms_deploy.evaluation.measures import area_under_curve, iou_after, summarise
from mmms_deploy.evaluation.results import RunFacts, SceneResult
from mmms_deploy.evaluation.settings import Protocol
from mmms_deploy.evaluation.surfaces import (
    MultiInstanceSummary,
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
        at_limit: Objects whose NoC is the limit: failures as RITM's code counts them, in which reaching t with the very
            last click is one too.
        clicks: How many objects took 1, 2, ... clicks; failures left out.
    """

    target: float
    noc: float
    failed: int
    failure_rate: float
    at_limit: int
    clicks: tuple[int, ...]


class CurveSummary(Struct, frozen=True, kw_only=True):
    """Quality by clicks; only of complete curves.

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
        click_with_simulation: With the time in which the simulated annotator chose the click.
        click_median: Median of the predictor's answers.
        clicks: Number of clicks measured.
    """

    image: float
    click: float
    click_with_simulation: float
    click_median: float
    clicks: int


class DatasetSummary(Struct, frozen=True, kw_only=True):
    """Everything about one data set.

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
        facts: What they are results of.
        results: The scenes, in any order.
    """
    by_dataset: dict[str, list[SceneResult]] = {dataset.name: [] for dataset in facts.datasets}
    for result in results:
        by_dataset[result.dataset].append(result)
    summaries = []
    for name, scenes in by_dataset.items():
        if any(scene.objects for scene in scenes):
            summaries.append(_summarise(name, sorted(scenes, key=lambda scene: scene.index), facts))
    return tuple(summaries)


def _summarise(name: str, scenes: list[SceneResult], facts: RunFacts) -> DatasetSummary:
    settings = facts.settings
    objects = [one for scene in scenes for one in scene.objects]
    curves = [one.ious for one in objects]
    found = summarise(curves, (), settings.targets, settings.max_clicks)
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
    seconds = sorted(value for one in objects for value in one.predict_seconds)
    simulated = sum(value for one in objects for value in one.simulate_seconds)
    return DatasetSummary(
        name=name,
        scenes=len(scenes),
        objects=len(objects),
        skipped=sum(len(scene.skipped) for scene in scenes),
        max_clicks=settings.max_clicks,
        targets=targets,
        curve=_curve(scenes, settings.max_clicks) if settings.protocol is Protocol.CURVE else None,
        time=TimeSummary(
            image=sum(scene.image_seconds for scene in scenes) / len(scenes),
            click=sum(seconds) / len(seconds),
            click_with_simulation=(sum(seconds) + simulated) / len(seconds),
            click_median=seconds[len(seconds) // 2],
            clicks=len(seconds),
        ),
        multi_surface=tuple(
            summarise_surfaces([scene.multi_surface[k] for scene in scenes if scene.multi_surface], settings.max_clicks)
            for k in range(len(settings.multi_surface))
        ),
        multi_instance=tuple(
            summarise_instances([scene.multi_instance[k] for scene in scenes if scene.multi_instance])
            for k in range(len(settings.multi_instance))
        ),
        comparison=None if facts.against is None else compare(scenes, settings),
    )


def _curve(scenes: list[SceneResult], max_clicks: int) -> CurveSummary:
    objects = [one for scene in scenes for one in scene.objects]
    count, steps = len(objects), range(1, max_clicks + 1)
    columns = [sorted(iou_after(one.ious, k) for one in objects) for k in steps]
    return CurveSummary(
        iou=tuple(sum(column) / count for column in columns),
        low=tuple(column[count // 4] for column in columns),
        high=tuple(column[(3 * count) // 4] for column in columns),
        boundary_iou=tuple(sum(iou_after(one.boundary_ious, k) for one in objects) / count for k in steps),
        auc=sum(area_under_curve(one.ious, max_clicks) for one in objects) / count,
        boundary_auc=sum(area_under_curve(one.boundary_ious, max_clicks) for one in objects) / count,
    )
