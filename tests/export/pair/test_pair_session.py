"""Sessions with a bundle that was made of an encoder and a decoder: the same answers as the files themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from mmms_deploy import Session, open_engine
from mmms_deploy.bench.timed_session import TimedSession
from mmms_deploy.bench.workload import Picture
from mmms_deploy.bundle import Bundle, ImageSpec
from mmms_deploy.errors import ClickError
from mmms_deploy.evaluation.answering import answering
from mmms_deploy.evaluation.errors import EvaluationSettingsError
from mmms_deploy.imaging.resize import resize, resize_image
from mmms_deploy.session import ClickResult
from tests.support.engines import CPU_ENGINES, skip_without
from tests.support.pair import GRID, SIDE

CLICKS = [(40, 30, True), (70, 10, False), (20, 50, True)]
IMAGE = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)


def answers_of_files(pair: tuple[Path, Path, Path]) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Feed the files as their users do, and yield logits (3, 8, 8) and scores (3,) after every click."""
    spec = ImageSpec()
    encoder, decoder = (onnxruntime.InferenceSession(str(path)) for path in pair[:2])
    image = resize_image(IMAGE, (SIDE, SIDE), spec.resize) / 255
    image = (image - np.reshape(spec.mean, (3, 1, 1))) / np.reshape(spec.std, (3, 1, 1))
    (feature,) = encoder.run(None, {"image": image[None].astype(np.float32)})
    previous, has = np.zeros((1, 1, GRID, GRID), np.float32), np.zeros(1, np.float32)
    for count in range(1, len(CLICKS) + 1):
        places = [[[x * SIDE / 96, y * SIDE / 64] for x, y, _ in CLICKS[:count]]]
        masks, scores = decoder.run(
            ["masks", "scores"],
            {
                "embedding": feature,
                "coords": np.array(places, np.float32),
                "labels": np.array([[float(kind) for _, _, kind in CLICKS[:count]]], np.float32),
                "mask_input": previous,
                "has_mask": has,
            },
        )
        previous, has = masks[:, [int(scores.argmax())]], np.ones(1, np.float32)
        yield masks[0], scores[0]


@pytest.fixture(params=[one for one in CPU_ENGINES if one.values[0][1] == "fp32"])
def session(request: pytest.FixtureRequest, pair_bundle: Bundle) -> Iterator[Session]:
    """A session in float32, with the image set."""
    name, precision = request.param
    skip_without(name, precision)
    with Session(pair_bundle, engine=name, precision=precision) as opened:
        opened.set_image(IMAGE)
        yield opened


def test_every_click_is_answered_as_the_files_answer_it(session: Session, pair: tuple[Path, Path, Path]) -> None:
    rule = session.bundle.manifest.clicks.mask_resize
    taken = []
    for click, (logits, scores) in zip(CLICKS, answers_of_files(pair), strict=True):
        result = session.click(*click)
        best = int(scores.argmax())
        taken.append(best)
        np.testing.assert_allclose(result.answer.numbers, logits[best], atol=1e-4)
        np.testing.assert_allclose(result.network_probability, 1 / (1 + np.exp(-logits[best])), atol=1e-5)
        enlarged = resize(logits[best], (64, 96), rule)
        clear = np.abs(enlarged) > 1e-3
        assert (result.mask == (enlarged > 0))[clear].all()
        np.testing.assert_allclose(result.probability, 1 / (1 + np.exp(-enlarged)), atol=1e-4)
        assert result.score == pytest.approx(scores[best], abs=1e-5)
        assert [one.taken for one in result.candidates] == [place == best for place in range(3)]
        for candidate, one, score in zip(result.candidates, logits, scores, strict=True):
            assert candidate.score == pytest.approx(score, abs=1e-5)
            shown = resize(one, (64, 96), rule)
            assert (candidate.mask == (shown > 0))[np.abs(shown) > 1e-3].all()
    assert len(set(taken)) > 1, "the small pair changes its mind with the second click"


def test_undo_and_redo_run_nothing_and_bring_the_candidates_back(session: Session) -> None:
    first, second = (session.click(*click) for click in CLICKS[:2])
    runs = dict(session._pipeline.runs)
    undone, again = session.undo(), session.redo()
    assert dict(session._pipeline.runs) == runs
    for one, other in ((undone, first), (again, second)):
        assert np.array_equal(one.mask, other.mask)
        assert [c.score for c in one.candidates] == [c.score for c in other.candidates]
    session.undo()
    assert session.undo().candidates == ()
    assert session.result.score is None


def test_predict_gives_all_answers_or_the_taken_one(session: Session) -> None:
    result = session.click(*CLICKS[0])
    points, labels = [[x, y] for x, y, _ in CLICKS[:2]], [1, 0]
    masks, scores, logits = session.predict(points[:1], labels[:1])
    assert masks.shape == (3, 64, 96)
    assert logits.shape == (3, GRID, GRID)
    np.testing.assert_array_equal(scores, np.array([one.score for one in result.candidates], np.float32))
    best = int(scores.argmax())
    one, score, low = session.predict(points[:1], labels[:1], multimask_output=False)
    assert np.array_equal(one[0], masks[best])
    assert (score[0], low.shape) == (scores[best], (1, GRID, GRID))
    runs = dict(session._pipeline.runs)
    follow = session.predict(points, labels, mask_input=low, return_logits=True)
    assert session._pipeline.runs["click"] == runs["click"] + 1, "it goes on from the answer that it is given"
    assert follow[0].shape == (3, 64, 96)
    expected = session.result
    assert np.array_equal(follow[0][[c.taken for c in expected.candidates].index(True)] > 0, expected.mask)


def test_a_mask_that_is_put_in_is_what_the_decoder_sees_next(session: Session) -> None:
    result = session.click(*CLICKS[0])
    other = next(one for one in result.candidates if not one.taken)
    put = session.set_mask(other.mask)
    assert np.array_equal(put.mask, other.mask)
    assert put.candidates == ()
    after = session.click(*CLICKS[1])
    session.undo()
    session.undo()
    without = session.click(*CLICKS[1])
    assert not np.array_equal(after.answer.numbers, without.answer.numbers)


def test_a_saved_session_answers_the_same(session: Session) -> None:
    session.click(*CLICKS[0])
    session.set_mask(session.result.candidates[1].mask)
    session.select("other")
    session.click(*CLICKS[1])
    text, masks = json.dumps(session.to_dict()), [session.select(n).mask for n in session.surfaces]
    session.set_image(IMAGE)
    session.restore(json.loads(text))
    assert all(np.array_equal(session.select(n).mask, m) for n, m in zip(session.surfaces, masks, strict=True))


def test_the_list_of_points_ends_by_name(session: Session) -> None:
    results: list[ClickResult] = [session.click(8 * i, 8 * i) for i in range(5)]
    with pytest.raises(ClickError, match="click 6 on one object"):
        session.click(1, 1)
    assert np.array_equal(session.mask, results[-1].mask)
    session.undo()
    session.click(1, 1)


def test_more_clicks_than_the_list_has_are_refused_before_an_evaluation(pair_bundle: Bundle) -> None:
    assert answering(pair_bundle.manifest, clicks=5).threshold is None
    with pytest.raises(EvaluationSettingsError, match="6 clicks on an object, and pair-bundle takes a list of 5"):
        answering(pair_bundle.manifest, clicks=6)


def test_a_benchmark_starts_over_where_the_list_is_full(pair_bundle: Bundle) -> None:
    engine = open_engine(pair_bundle, engine="onnxruntime", precision="fp32")
    with closing(engine), TimedSession(engine) as session:
        session.set_image(Picture(rgb=IMAGE, modalities={}, clicks=()))
        for number in range(12):
            session.click((8.0 + number, 8.0, True))
        assert session.result.index == 2
