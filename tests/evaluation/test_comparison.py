"""Two predictors on the same objects."""

from __future__ import annotations

import numpy as np
import pytest

from mmms_deploy.evaluation import FunctionPredictor, Settings, SimulatedClick, compare, evaluate, noc, paired_interval
from mmms_deploy.evaluation.errors import MeasureError
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
    gaps = [abs(one.noc - one.other) for one in found.most]
    assert gaps == sorted(gaps, reverse=True)


def test_results_of_one_predictor_are_not_compared() -> None:
    with pytest.raises(MeasureError, match="one predictor alone"):
        compare(list(evaluate(Scenes(1), opened(5), SETTINGS)), SETTINGS)


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
