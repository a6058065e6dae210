"""Two predictors on the same objects: the difference in clicks with its interval, and how alike their masks are.

A difference that is not seen says nothing until it is known which difference these objects could have shown. So every
interval comes with the smallest visible difference: the least true difference of the mean NoC that a two-sided test at
the level of 5 % finds with a probability of 80 %, 2.80 standard errors (Bloom, "Minimum Detectable Effects: A Simple
Way to Report the Statistical Power of Experimental Designs", Evaluation Review 19(5), 1995). The standard error is
that of the same paired resamples of the images that give the interval.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle.contract import Struct
from mmms_deploy.evaluation.errors import MeasureError
from mmms_deploy.evaluation.measures import noc
from mmms_deploy.evaluation.results import SceneResult
from mmms_deploy.evaluation.settings import Settings

RESAMPLES = 10_000
CONFIDENCE = 0.95
POWER = 0.8
"""Probability with which the smallest visible difference is found."""
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
        visible: The smallest visible difference of the mean NoC, in clicks, in either direction; None where it is
            unknown: fewer than two images, no object on which the two differ, or results of an earlier version.
    """

    target: float
    noc: float
    other: float
    difference: float
    low: float
    high: float
    better: int
    worse: int
    visible: float | None = None

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
    """The comparison of two predictors on the same objects.

    Attributes:
        differences: One for each target.
        agreement: Mean IoU of their masks after 1, 2, ... of the first one's clicks.
        worst_agreement: The smallest IoU of any object after 1, 2, ... clicks.
        identical: Objects whose masks were equal to the last pixel after every click.
        objects: Number of objects.
        most: The objects that differ most.
        other_click_seconds: Mean wall time of the other's answers, in seconds.
        mean_agreement: Mean over the objects of the IoU of their masks, averaged over the clicks on the object, 0..1;
            None in results of an earlier version.
    """

    differences: tuple[Difference, ...]
    agreement: tuple[float, ...]
    worst_agreement: tuple[float, ...]
    identical: int
    objects: int
    most: tuple[DifferingObject, ...]
    other_click_seconds: float
    mean_agreement: float | None = None


def compare(scenes: Iterable[SceneResult], settings: Settings) -> Comparison:
    """Compare two predictors that clicked through the same objects.

    Args:
        scenes: Results with both; at least one object. They may be of several data sets.
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
    """One object: its image, as data set and index, its scene's name, its name, both IoU curves, and the agreement."""

    image: tuple[str, int]
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
            self._pairs.append(_Pair((scene.dataset, scene.index), scene.scene, one.name, *curves))
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
        numbers = {image: number for number, image in enumerate(sorted({pair.image for pair in pairs}))}
        images = [numbers[pair.image] for pair in pairs]
        return Comparison(
            differences=tuple(_difference(pairs, images, target, settings.max_clicks) for target in settings.targets),
            agreement=tuple(sum(column) / len(column) for column in columns),
            worst_agreement=tuple(min(column) for column in columns),
            identical=sum(min(pair.agreement) == 1.0 for pair in pairs),
            objects=len(pairs),
            most=tuple(one for one in most[:SHOWN] if one.noc != one.other or one.agreement < 1.0),
            other_click_seconds=self._seconds / self._clicks,
            mean_agreement=sum(sum(pair.agreement) / len(pair.agreement) for pair in pairs) / len(pairs),
        )


def _difference(pairs: Sequence[_Pair], images: Sequence[int], target: float, max_clicks: int) -> Difference:
    first = np.array([noc(pair.first, target, max_clicks) for pair in pairs])
    other = np.array([noc(pair.other, target, max_clicks) for pair in pairs])
    low, high = paired_interval(first - other, images)
    return Difference(
        target=target,
        noc=float(first.mean()),
        other=float(other.mean()),
        difference=float((first - other).mean()),
        low=low,
        high=high,
        better=int((first < other).sum()),
        worse=int((first > other).sum()),
        visible=smallest_visible(first - other, images),
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
    means = _resampled_means(differences, groups, resamples, seed)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def smallest_visible(
    differences: npt.ArrayLike,
    groups: npt.ArrayLike,
    confidence: float = CONFIDENCE,
    power: float = POWER,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> float | None:
    """Smallest visible difference of a mean: the least true one that a two-sided test finds with a given probability.

    It is ``(z(1 - (1 - confidence) / 2) + z(power)) * SE`` with the normal quantiles z and the standard error SE of the
    resampled means: 2.80 standard errors at 5 % and 80 % (Bloom, Evaluation Review 19(5), 1995). The groups have to be
    many enough for the mean to be about normal.

    Args:
        differences: (N,) one for each object.
        groups: (N,) the image that each object is in.
        confidence: One minus the level of the two-sided test.
        power: Probability with which the test finds a difference of this size.
        resamples: Number of resamples.
        seed: Seed of the random generator.

    Returns:
        The difference, above 0; None where the objects do not say it: fewer than two groups, or no spread.
    """
    error = float(_resampled_means(differences, groups, resamples, seed).std())
    normal = NormalDist()
    return (normal.inv_cdf((1 + confidence) / 2) + normal.inv_cdf(power)) * error or None


def _resampled_means(
    differences: npt.ArrayLike, groups: npt.ArrayLike, resamples: int, seed: int
) -> npt.NDArray[np.float64]:
    """Return the means (resamples,) over objects of as many groups as there are, drawn with replacement."""
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
    return means
