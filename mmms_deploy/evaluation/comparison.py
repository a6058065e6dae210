"""Two predictors on the same objects: the difference in clicks with its interval, and how alike their masks are."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle.contract import Struct
from mmms_deploy.evaluation.errors import MeasureError
from mmms_deploy.evaluation.measures import noc
from mmms_deploy.evaluation.results import SceneResult
from mmms_deploy.evaluation.settings import Settings

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0
SHOWN = 10
"""Objects listed as differing most."""


class Difference(Struct, frozen=True, kw_only=True):
    """NoC@t of two predictors on the same objects.

    Attributes:
        target: t, a fraction.
        noc: Mean NoC of the first.
        other: Mean NoC of the other.
        difference: ``noc - other``: above 0, the first one needs more clicks.
        low: Lower end of the confidence interval of the difference.
        high: Upper end.
        better: Objects on which the first one needs fewer clicks.
        worse: Objects on which it needs more.
    """

    target: float
    noc: float
    other: float
    difference: float
    low: float
    high: float
    better: int
    worse: int

    @property
    def certain(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


class DifferingObject(Struct, frozen=True, kw_only=True):
    """An object on which the two predictors differ.

    Attributes:
        scene: Name of its scene.
        name: Its name.
        noc: The first one's NoC at the highest target.
        other: The other's.
        agreement: The smallest IoU of their masks after the same clicks.
        click: The click after which it was the smallest, from 1.
    """

    scene: str
    name: str
    noc: int
    other: int
    agreement: float
    click: int


class Comparison(Struct, frozen=True, kw_only=True):
    """The comparison of two predictors on one data set.

    Attributes:
        differences: One for each target.
        agreement: Mean IoU of their masks after 1, 2, ... of the first one's clicks.
        worst_agreement: The smallest IoU of any object after 1, 2, ... clicks.
        identical: Objects whose masks were equal to the last pixel after every click.
        objects: Number of objects.
        most: The objects that differ most.
        other_click_seconds: Mean wall time of the other's answers, in seconds.
    """

    differences: tuple[Difference, ...]
    agreement: tuple[float, ...]
    worst_agreement: tuple[float, ...]
    identical: int
    objects: int
    most: tuple[DifferingObject, ...]
    other_click_seconds: float


def compare(scenes: Iterable[SceneResult], settings: Settings) -> Comparison:
    """Compare two predictors that clicked through the same objects.

    Args:
        scenes: Results with both, of one data set; at least one object.
        settings: The settings of the evaluation.

    Raises:
        MeasureError: A scene has no results of the other predictor, or there is no object.
    """
    pairs = Pairs()
    for scene in scenes:
        pairs.add(scene)
    return pairs.comparison(settings)


@dataclass(frozen=True, slots=True)
class _Pair:
    """One object: its scene, its name, both IoU curves, and the agreement after each click."""

    index: int
    scene: str
    name: str
    first: array[float]
    other: array[float]
    agreement: array[float]


class Pairs:
    """The numbers that a comparison needs, gathered scene by scene."""

    def __init__(self) -> None:
        self._pairs: list[_Pair] = []
        self._seconds = 0.0
        self._clicks = 0

    def add(self, scene: SceneResult) -> None:
        """Add one scene.

        Raises:
            MeasureError: It has no results of the other predictor.
        """
        if len(scene.against) != len(scene.objects):
            raise MeasureError(
                "a comparison of results of one predictor alone",
                expected="results of both",
                fix="pass against to evaluate()",
                command_fix="pass --against",
            )
        for one, pair in zip(scene.objects, scene.against, strict=True):
            curves = (array("d", values) for values in (one.ious, pair.result.ious, pair.agreement))
            self._pairs.append(_Pair(scene.index, scene.scene, one.name, *curves))
            self._seconds += sum(pair.result.predict_seconds)
            self._clicks += len(pair.result.predict_seconds)

    def comparison(self, settings: Settings) -> Comparison:
        """Compare the two predictors on these scenes.

        Raises:
            MeasureError: There is no object.
        """
        pairs = self._pairs
        if not pairs:
            raise MeasureError("a comparison on no objects", expected="one or more", fix="check the data set's folder")
        # A list that ended early, because no error was left, has no entry for later clicks.
        longest = max(len(pair.agreement) for pair in pairs)
        columns = [[pair.agreement[k] for pair in pairs if len(pair.agreement) > k] for k in range(longest)]
        most = sorted(
            (_differing(pair, settings) for pair in pairs), key=lambda one: (-abs(one.noc - one.other), one.agreement)
        )
        return Comparison(
            differences=tuple(_difference(pairs, target, settings.max_clicks) for target in settings.targets),
            agreement=tuple(sum(column) / len(column) for column in columns),
            worst_agreement=tuple(min(column) for column in columns),
            identical=sum(min(pair.agreement) == 1.0 for pair in pairs),
            objects=len(pairs),
            most=tuple(one for one in most[:SHOWN] if one.noc != one.other or one.agreement < 1.0),
            other_click_seconds=self._seconds / self._clicks,
        )


def _difference(pairs: Sequence[_Pair], target: float, max_clicks: int) -> Difference:
    first = np.array([noc(pair.first, target, max_clicks) for pair in pairs])
    other = np.array([noc(pair.other, target, max_clicks) for pair in pairs])
    low, high = paired_interval(first - other, [pair.index for pair in pairs])
    return Difference(
        target=target,
        noc=float(first.mean()),
        other=float(other.mean()),
        difference=float((first - other).mean()),
        low=low,
        high=high,
        better=int((first < other).sum()),
        worse=int((first > other).sum()),
    )


def _differing(pair: _Pair, settings: Settings) -> DifferingObject:
    target = settings.targets[-1]
    least = min(range(len(pair.agreement)), key=lambda k: pair.agreement[k])
    return DifferingObject(
        scene=pair.scene,
        name=pair.name,
        noc=noc(pair.first, target, settings.max_clicks),
        other=noc(pair.other, target, settings.max_clicks),
        agreement=pair.agreement[least],
        click=least + 1,
    )


def paired_interval(
    differences: npt.ArrayLike,
    groups: npt.ArrayLike,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[float, float]:
    """Confidence interval of a mean difference, by a paired percentile bootstrap over groups.

    Both predictors saw the same objects, so differences are resampled, not the two means. Objects of one image stay
    together: they are not independent.

    Args:
        differences: (N,) one for each object.
        groups: (N,) the image that each object is in.
        confidence: Share of the resampled means inside of the interval.
        resamples: Number of resamples.
        seed: Seed of the random generator, so that the interval is the same every time.

    Returns:
        Lower and upper end.
    """
    values = np.asarray(differences, np.float64)
    _, places = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(places, values)
    counts = np.bincount(places).astype(np.float64)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    block = max(1, 2_000_000 // len(sums))  # indices drawn at a time, to keep memory small
    for start in range(0, resamples, block):
        drawn = rng.integers(0, len(sums), (min(block, resamples - start), len(sums)))
        means[start : start + len(drawn)] = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
