"""Two predictors on the same objects."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from mmms_deploy.evaluation import (
    FunctionPredictor,
    Settings,
    SimulatedClick,
    compare,
    evaluate,
    noc,
    paired_interval,
    smallest_visible,
)
from mmms_deploy.evaluation.comparison import Comparison, Difference
from mmms_deploy.evaluation.errors import MeasureError
from mmms_deploy.evaluation.report.text import difference_heads, difference_row, seen_line
from tests.support.scenes import Scenes, disks

SETTINGS = Settings(max_clicks=8, targets=(0.6, 0.8))


def opened(radius: float):
    return lambda: FunctionPredictor(disks(radius))


def test_a_predictor_agrees_with_itself() -> None:
    evaluation = evaluate(Scenes(4), opened(5), SETTINGS, against=opened(5))
    found = compare(list(evaluation), SETTINGS)
    assert (found.identical, found.objects) == (8, 8)
    assert set(found.agreement) == set(found.worst_agreement) == {1.0}
    assert all((d.difference, d.low, d.high, d.certain) == (0, 0, 0, False) for d in found.differences)
    assert found.most == ()
    assert {d.visible for d in found.differences} == {None}
    assert found.mean_agreement == 1.0
    assert seen_line(found) == "no difference seen: both need the same number of clicks on every object"


def test_each_clicks_alone_and_both_receive_the_first_ones_clicks() -> None:
    scenes = list(evaluate(Scenes(4), opened(5), SETTINGS, against=opened(7)))
    alone = {result.index: [one.ious for one in result.objects] for result in evaluate(Scenes(4), opened(7), SETTINGS)}
    data = Scenes(4)
    for scene in scenes:
        assert [pair.result.ious for pair in scene.against] == alone[scene.index]
        image = data[scene.index].image
        for first, pair in zip(scene.objects, scene.against, strict=True):
            clicks = [SimulatedClick(*click) for click in first.clicks]
            for k, agreement in enumerate(pair.agreement, start=1):
                a, b = (disks(radius)(image, clicks[:k], None) for radius in (5, 7))
                assert agreement == (a & b).sum() / (a | b).sum()
    found = compare(scenes, SETTINGS)
    for difference, target in zip(found.differences, SETTINGS.targets, strict=True):
        pairs = [
            (noc(a.ious, target, 8), noc(b.result.ious, target, 8))
            for scene in scenes
            for a, b in zip(scene.objects, scene.against, strict=True)
        ]
        assert difference.difference == pytest.approx(np.mean([a - b for a, b in pairs]))
        assert difference.worse == sum(a > b for a, b in pairs)
        assert difference.low <= difference.difference <= difference.high
    assert found.identical == 0
    agreements = [np.mean(pair.agreement) for scene in scenes for pair in scene.against]
    assert found.mean_agreement == pytest.approx(np.mean(agreements))
    gaps = [abs(one.noc - one.other) for one in found.most]
    assert gaps == sorted(gaps, reverse=True)


def test_results_of_one_predictor_are_not_compared() -> None:
    with pytest.raises(MeasureError, match="one predictor alone"):
        compare(list(evaluate(Scenes(1), opened(5), SETTINGS)), SETTINGS)


def test_images_of_different_data_sets_are_different_images() -> None:
    """Two data sets of equal scenes hold twice the images, not twice the objects in the same ones."""
    scenes = list(evaluate(Scenes(4), opened(5), SETTINGS, against=opened(7)))
    again = [msgspec.structs.replace(scene, dataset="again") for scene in scenes]
    (one, _), (both, _) = compare(scenes, SETTINGS).differences, compare([*again, *scenes], SETTINGS).differences
    assert both.difference == pytest.approx(one.difference)
    assert one.visible is not None
    assert both.visible is not None
    assert both.visible == pytest.approx(one.visible / np.sqrt(2), rel=0.05)


def test_a_comparison_of_an_earlier_version_is_read() -> None:
    found = compare(list(evaluate(Scenes(2), opened(5), SETTINGS, against=opened(7))), SETTINGS)
    stored = msgspec.json.decode(msgspec.json.encode(found))
    del stored["mean_agreement"]
    for difference in stored["differences"]:
        del difference["visible"]
    earlier = msgspec.convert(stored, Comparison)
    assert earlier.agreement == found.agreement
    assert len(difference_row(earlier.differences[0])) == len(difference_heads())


# --- the interval -----------------------------------------------------------------------------------------------------


def test_the_interval_depends_on_the_seed_alone() -> None:
    rng = np.random.default_rng(1)
    values, groups = rng.normal(0.5, 1, 60), np.repeat(np.arange(20), 3)
    assert paired_interval(values, groups) == paired_interval(values, groups)
    assert paired_interval(values, groups) != paired_interval(values, groups, seed=1)


def test_the_interval_is_that_of_the_normal_distribution_for_many_groups() -> None:
    values = np.random.default_rng(2).normal(0.3, 2, 2000)
    low, high = paired_interval(values, np.arange(2000))
    half = 1.96 * values.std() / np.sqrt(2000)
    assert low == pytest.approx(values.mean() - half, abs=0.01)
    assert high == pytest.approx(values.mean() + half, abs=0.01)


def test_objects_of_one_image_are_resampled_together() -> None:
    """Ten copies of an object in its image add no information."""
    single = np.random.default_rng(3).normal(0, 1, 40)
    alone = paired_interval(single, np.arange(40))
    together = paired_interval(np.repeat(single, 10), np.repeat(np.arange(40), 10))
    assert together == pytest.approx(alone)
    apart = paired_interval(np.repeat(single, 10), np.arange(400))
    assert apart[1] - apart[0] < 0.5 * (alone[1] - alone[0])


def test_images_count_by_their_objects() -> None:
    """Two images, of 1 and of 3 objects: a resample's mean is over objects, 0, 3/4 or 1."""
    low, high = paired_interval([0, 1, 1, 1], [0, 1, 1, 1], confidence=0.4)
    assert (low, high) == (0.75, 0.75)


# --- the smallest visible difference ----------------------------------------------------------------------------------


def test_a_difference_of_the_smallest_visible_size_is_seen_four_times_in_five() -> None:
    """Its definition, on experiments: the share of intervals that leave out 0 is the power."""
    rng = np.random.default_rng(4)
    true, images = 0.4, 60
    deviation = true * np.sqrt(images) / 2.80
    seen, sizes = 0, []
    for experiment in range(300):
        values = rng.normal(true, deviation, images)
        low, high = paired_interval(values, np.arange(images), resamples=400, seed=experiment)
        seen += low > 0 or high < 0
        sizes.append(smallest_visible(values, np.arange(images), resamples=400, seed=experiment))
    assert seen / 300 == pytest.approx(0.8, abs=0.07)
    assert np.mean(sizes) == pytest.approx(true, rel=0.05)


def test_objects_of_one_image_do_not_make_smaller_differences_visible() -> None:
    single = np.random.default_rng(3).normal(0, 1, 40)
    alone = smallest_visible(single, np.arange(40))
    assert smallest_visible(np.repeat(single, 10), np.repeat(np.arange(40), 10)) == pytest.approx(alone)


@pytest.mark.parametrize(("values", "groups"), [([0, 0, 0], [0, 1, 2]), ([3, -1], [0, 0])])
def test_without_spread_between_images_it_is_unknown(values, groups) -> None:
    assert smallest_visible(values, groups) is None


def difference(low: float, high: float, visible: float | None, better: int = 1, target: float = 0.9) -> Difference:
    middle = (low + high) / 2
    return Difference(
        target=target,
        noc=3 + middle,
        other=3,
        difference=middle,
        low=low,
        high=high,
        better=better,
        worse=0,
        visible=visible,
    )


@pytest.mark.parametrize(
    ("differences", "line"),
    [
        (
            [difference(-0.02, 0.03, 0.021, target=0.8), difference(-0.05, 0.02, 0.0512)],
            "no difference seen; one of 0.051 clicks or more would have been",
        ),
        ([difference(-0.2, 0.3, 0.3, target=0.8), difference(0.1, 0.2, 0.1)], "a difference is seen at NoC@90"),
        ([difference(0, 0, None)], "no difference seen, and one image alone does not tell which one would have been"),
    ],
)
def test_a_sentence_says_whether_a_difference_is_seen(differences, line) -> None:
    found = compare(list(evaluate(Scenes(1), opened(5), SETTINGS, against=opened(5))), SETTINGS)
    assert seen_line(msgspec.structs.replace(found, differences=tuple(differences))) == line
