"""Networks that give several answers to a click: by their own scores, or the best of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from mmms_deploy import Bundle, Session
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.evaluation.annotator import SimulatedClick
from mmms_deploy.evaluation.answering import Answering, Choose, answering
from mmms_deploy.evaluation.bundles import BundleSource
from mmms_deploy.evaluation.clicking import click_through
from mmms_deploy.evaluation.errors import EvaluationSettingsError
from mmms_deploy.evaluation.predictor import return_to, settled
from mmms_deploy.evaluation.replay import replay
from mmms_deploy.evaluation.run import evaluate_scene
from mmms_deploy.evaluation.scene import Scene, Surface
from mmms_deploy.evaluation.settings import Settings
from mmms_deploy.evaluation.surfaces import multi_instance, multi_surface
from mmms_deploy.replay.metrics import iou
from tests.support.annotating import GREY, SIZE
from tests.support.scenes import scene

CENTRE = (35, 25)
REQUEST = EngineRequest(engine="onnxruntime")


def disk(radius: float) -> np.ndarray:
    """(50, 70) bool: a disk around the centre."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    inside: np.ndarray = (columns - CENTRE[0]) ** 2 + (rows - CENTRE[1]) ** 2 <= radius**2
    return inside


@pytest.fixture(scope="module")
def source(proposing: Bundle) -> Iterator[BundleSource]:
    """Predictors that take the best answer."""
    opened = BundleSource(proposing, REQUEST, choose=Choose.BEST)
    yield opened
    opened.close()


@pytest.mark.parametrize(("radius", "best"), [(4, 0), (9, 2), (18, 1)])
def test_the_best_answer_is_taken_and_refined(
    source: BundleSource, proposing: Bundle, radius: float, best: int
) -> None:
    only = Surface("disk", disk(radius))
    scene = Scene("one", GREY, (only,))
    predictor = source.open()
    predictor.set_image(GREY)
    found = click_through(predictor, scene, only, 4)
    with Session(proposing, engine="onnxruntime") as session:
        session.set_image(GREY)
        first, *others = found.clicks
        masks = [session.click(*first).candidates[best].mask]
        session.choose(best)
        masks += [session.click(*click).mask for click in others]
    assert found.ious == tuple(iou(mask, only.mask) for mask in masks)
    repeated = list(replay(predictor, scene, found))
    assert [frame.iou for frame in repeated] == list(found.ious)
    predictor.close()


def test_of_equals_the_network_s_own_choice_is_taken(source: BundleSource) -> None:
    predictor = source.open()
    predictor.set_image(GREY)
    everything = np.ones(SIZE, np.bool_)
    for void, best in ((everything & ~disk(1), 1), (None, 0)):
        answer = predictor.click(*CENTRE, True)
        taken = settled(predictor, answer, disk(1) if void is not None else disk(4), void)
        predictor.reset()
        other = source.open()
        other.set_image(GREY)
        other.click(*CENTRE, True)
        assert np.array_equal(taken, other._session.result.candidates[best].mask)
        other.close()
    predictor.close()


def test_a_threshold_counts_for_every_answer(proposing: Bundle) -> None:
    opened = BundleSource(proposing, REQUEST, choose=Choose.BEST, threshold=0.9)
    predictor = opened.open()
    predictor.set_image(GREY)
    taken = settled(predictor, predictor.click(*CENTRE, True), disk(9), None)
    with Session(proposing, engine="onnxruntime") as session:
        session.set_image(GREY)
        session.click(*CENTRE)
        assert np.array_equal(taken, session.choose(2).above(0.9))
    predictor.close()
    opened.close()


def test_an_object_is_taken_up_again_with_its_choice(source: BundleSource) -> None:
    predictor, other = source.open(), source.open()
    truth, clicks = disk(4), [SimulatedClick(*CENTRE, True), SimulatedClick(60, 40, True)]
    for one in (predictor, other):
        one.set_image(GREY)
        answers = [settled(one, one.click(c.x, c.y, c.positive), truth, None) for c in clicks]
    other.reset()
    other.click(5, 5, True)
    return_to(other, GREY, {}, clicks, answers[-1], truth)  # such a network sees no previous mask
    assert np.array_equal(other.click(34, 24, False), predictor.click(34, 24, False))
    predictor.close()
    other.close()


def test_joint_masks_and_comparisons_take_the_best(source: BundleSource, proposing: Bundle) -> None:
    by_score = BundleSource(proposing, REQUEST)
    first, second = source.open(), by_score.open()
    both = replace(scene(0), image=np.full((40, 60, 3), 51, np.uint8))
    settings = Settings(max_clicks=3)
    with_other = evaluate_scene(both, second, settings, against=first)
    alone = evaluate_scene(both, first, settings)
    assert [pair.result.ious for pair in with_other.against] == [one.ious for one in alone.objects]
    assert any(
        pair.result.ious[0] > one.ious[0] for pair, one in zip(with_other.against, with_other.objects, strict=True)
    )
    for one in (multi_surface(first, both, 0.9, 0.85, 4), multi_instance(first, both, 0.9, 3)):
        assert sum(surface.visits for surface in one.surfaces) > 1
    for opened in (first, second, by_score):
        opened.close()


def test_how_answers_are_made(proposing: Bundle, paint: Bundle) -> None:
    assert answering(proposing.manifest, choose=Choose.BEST) == Answering(choose=Choose.BEST)
    with pytest.raises(EvaluationSettingsError, match="the best of several answers was asked of paint"):
        answering(paint.manifest, choose=Choose.BEST)
    with pytest.raises(EvaluationSettingsError, match="7 clicks on an object, and proposing takes a list of 6 clicks"):
        answering(proposing.manifest, clicks=7)
