"""Sessions with a bundle that was made of an encoder and a decoder: the same answers as the files themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
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
from mmms_deploy.errors import ChoiceError, ClickError, SessionError
from mmms_deploy.evaluation.answering import answering
from mmms_deploy.evaluation.errors import EvaluationSettingsError
from mmms_deploy.imaging.resize import resize, resize_image
from mmms_deploy.session import Click, ClickResult
from tests.support.engines import CPU_ENGINES, skip_without
from tests.support.pair import GRID, SIDE

CLICKS = [(40, 30, True), (70, 10, False), (20, 50, True)]
IMAGE = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)


def answers_of_files(
    pair: tuple[Path, Path, Path], choices: Sequence[int | None] = ()
) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Feed the files as their users do, and yield logits (3, 8, 8) and scores (3,) after every click.

    Args:
        pair: Encoder, decoder and description.
        choices: Which answer is the mask input of the next click; None, or nothing, for the one of the largest score.
    """
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
        choice = next(iter(choices[count - 1 : count]), None)
        previous, has = masks[:, [int(scores.argmax()) if choice is None else choice]], np.ones(1, np.float32)
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


@pytest.mark.parametrize("choices", [(1,), (2, 0), (None, 2)])
def test_the_next_click_sees_the_answer_that_was_chosen(
    session: Session, pair: tuple[Path, Path, Path], choices: tuple[int | None, ...]
) -> None:
    size = IMAGE.shape[:2]
    for place, (click, (logits, _)) in enumerate(zip(CLICKS, answers_of_files(pair, choices), strict=True)):
        result = session.click(*click)
        np.testing.assert_allclose([one.answer.numbers for one in result.candidates], logits, atol=1e-4)
        choice = next(iter(choices[place : place + 1]), None)
        if choice is None:
            continue
        one, runs = result.candidates[choice], session.runs
        chosen = session.choose(choice)
        assert session.runs == runs
        assert [other.taken for other in chosen.candidates] == [number == choice for number in range(3)]
        assert [other.score for other in chosen.candidates] == [other.score for other in result.candidates]
        assert (chosen.score, chosen.clicks, chosen.index) == (one.score, result.clicks, place + 1)
        assert np.array_equal(chosen.answer.numbers, one.answer.numbers)
        assert np.array_equal(chosen.mask, one.mask)
        assert np.array_equal(chosen.probability, one.probability)
        assert np.array_equal(session.labels > 0, one.mask)
        assert chosen.mask.shape == size


def test_a_choice_is_a_step_of_the_history(session: Session) -> None:
    first = session.click(*CLICKS[0])
    before = session.click(*CLICKS[1])
    taken = [one.taken for one in before.candidates].index(True)
    other = session.choose((taken + 1) % 3)
    same = session.choose((taken + 1) % 3)
    again = session.choose(taken)
    assert np.array_equal(again.mask, before.mask)
    runs = session.runs
    back = [session.undo() for _ in range(4)]
    for found, expected in zip(back, (same, other, before, first), strict=True):
        assert np.array_equal(found.mask, expected.mask)
        assert [one.taken for one in found.candidates] == [one.taken for one in expected.candidates]
    forth = [session.redo() for _ in range(4)]
    assert np.array_equal(forth[1].mask, other.mask)
    assert np.array_equal(forth[3].mask, again.mask)
    assert session.runs == runs
    following = session.click(*CLICKS[2])
    session.set_clicks([[x, y, int(kind)] for x, y, kind in CLICKS])
    assert np.array_equal(following.answer.numbers, session.result.answer.numbers), "the taken one was chosen again"


def test_choices_where_there_is_nothing_to_choose_from(session: Session) -> None:
    with pytest.raises(ChoiceError, match="answer 1 was chosen before a click"):
        session.choose(1)
    result = session.click(*CLICKS[0])
    for wrong in (3, -1):
        with pytest.raises(ChoiceError, match=f"answer {wrong} was chosen") as caught:
            session.choose(wrong)
        assert "one from 0 to 2: pair-bundle gives 3 answers" in str(caught.value)
    for kind in (True, 1.0, "1", None, result.candidates[1]):
        with pytest.raises(ChoiceError, match="the choice is "):
            session.choose(kind)  # type: ignore[arg-type]
    assert session.result is result
    session.set_mask(result.mask)
    with pytest.raises(ChoiceError, match="after a mask was put in"):
        session.choose(1)
    session.undo()
    assert session.choose(np.int64(1)).candidates[1].taken


def test_a_list_of_clicks_has_its_choices(session: Session) -> None:
    session.click(*CLICKS[0])
    session.choose(1)
    expected = session.click(*CLICKS[1])
    listed: list[Any] = [Click(*CLICKS[0]), {"choice": 1}, CLICKS[1]]
    runs = session.runs
    assert session.set_clicks(listed) is expected
    without = session.set_clicks([CLICKS[0], CLICKS[1]])
    assert not np.array_equal(without.answer.numbers, expected.answer.numbers)
    assert session.runs["click"] == runs["click"] + 1
    session.reset()
    assert np.array_equal(session.set_clicks(listed).answer.numbers, expected.answer.numbers)
    assert [click.to_list() for click in session.clicks] == [[x, y, int(kind)] for x, y, kind in CLICKS[:2]]
    before = session.result
    for wrong, error in (([{"choice": 0}], "before a click"), ([CLICKS[0], {"choice": "a"}], "the choice is 'a'")):
        with pytest.raises(ChoiceError, match=error):
            session.set_clicks(wrong)
    assert session.result is before


def test_logits_of_another_answer_choose_it(session: Session) -> None:
    points, labels = [[x, y] for x, y, _ in CLICKS[:2]], [1, 0]
    _, scores, logits = session.predict(points[:1], labels[:1])
    other = int(scores.argmin())
    runs = session.runs
    followed = session.predict(points, labels, mask_input=logits[other][None])
    assert session.runs["click"] == runs["click"] + 1
    session.set_clicks([CLICKS[0], {"choice": other}, CLICKS[1]])
    assert session.runs["click"] == runs["click"] + 1
    assert np.array_equal(followed[0], [one.mask for one in session.result.candidates])
    session.undo()
    best = int(scores.argmax())
    (mask,), _, _ = session.predict(points[:1], labels[:1], mask_input=logits[best][None], multimask_output=False)
    assert np.array_equal(mask, session.result.candidates[best].mask)
    assert session.result.candidates[best].taken


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
    session.choose(2)
    session.click(*CLICKS[0])
    session.choose(0)
    session.undo()
    text, masks = json.dumps(session.to_dict()), [session.select(n).mask for n in session.surfaces]
    session.set_image(IMAGE)
    session.restore(json.loads(text))
    assert all(np.array_equal(session.select(n).mask, m) for n, m in zip(session.surfaces, masks, strict=True))
    assert session.redo().candidates[0].taken
    steps = json.loads(text)["surfaces"][1]["interactions"]
    assert [step for step in steps if isinstance(step, dict)] == [{"choice": 2}, {"choice": 0}]
    for wrong in ({"choice": -1}, {"choice": True}, {}, {"choice": 2, "mask": {"size": [64, 96], "counts": "0"}}):
        damaged = json.loads(text)
        damaged["surfaces"][1]["interactions"][1] = wrong
        with pytest.raises(SessionError, match="this is no saved session"):
            session.restore(damaged)
    damaged["surfaces"][1]["interactions"][1] = {"choice": 9}
    with pytest.raises(ChoiceError, match="answer 9 was chosen"):
        session.restore(damaged)


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
