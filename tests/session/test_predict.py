"""The shape of SAM's predict."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import numpy as np
import pytest

from mmms_deploy import LATER, Bundle, Click, Session
from mmms_deploy.bundle.contract import ModalitySpec, ResizeRule
from mmms_deploy.errors import (
    AnswerError,
    MMMSDeployError,
    ModalityError,
    NoImageError,
)
from mmms_deploy.imaging.resize import through_image
from mmms_deploy.session.predict import logits_of
from tests.support.annotating import GREY, NETWORK, SIZE, check, reference
from tests.support.toy import write_toy

on_every_engine = pytest.mark.usefixtures("every_engine")

A, B, C = Click(10, 10), Click(60.25, 40.5), Click(14, 12, False)


def points(*clicks: Click) -> dict[str, np.ndarray]:
    return {
        "point_coords": np.array([[click.x, click.y] for click in clicks]),
        "point_labels": np.array([int(click.positive) for click in clicks]),
    }


def clicked(bundle: Bundle, *clicks: Click) -> Session:
    session = Session(bundle, threads=1)
    session.set_image(GREY)
    for click in clicks:
        session.click(click.x, click.y, click.positive)
    return session


def test_the_signature_is_that_of_sam_2() -> None:
    """The first six arguments of SAM's are in the same order, with the same defaults."""
    parameters = inspect.signature(Session.predict).parameters.values()
    assert [(one.name, one.default) for one in parameters][1:] == [
        ("point_coords", None),
        ("point_labels", None),
        ("box", None),
        ("mask_input", None),
        ("multimask_output", True),
        ("return_logits", False),
        ("normalize_coords", True),
    ]


@on_every_engine
def test_the_lines_of_sams_example(paint: Bundle) -> None:
    """What the example notebooks of SAM and SAM 2 do with points, line by line."""
    image = GREY
    with Session(paint, threads=1) as predictor:
        predictor.set_image(image)
        input_point = np.array([[10, 10]])
        input_label = np.array([1])
        masks, scores, logits = predictor.predict(
            point_coords=input_point,
            point_labels=input_label,
            multimask_output=True,
        )
        sorted_ind = np.argsort(scores)[::-1]
        masks = masks[sorted_ind]
        scores = scores[sorted_ind]
        logits = logits[sorted_ind]
        assert masks.shape == (1, *SIZE)  # (number_of_masks) x H x W
        for mask, score in zip(masks, scores, strict=True):
            h, w = mask.shape[-2:]
            assert mask.reshape(h, w, 1).dtype == np.bool_
            assert 0 < float(f"{score:.3f}") < 1

        input_point = np.array([[10, 10], [60.25, 40.5]])
        input_label = np.array([1, 1])
        mask_input = logits[np.argmax(scores), :, :]  # Choose the model's best mask
        masks, scores, _ = predictor.predict(
            point_coords=input_point,
            point_labels=input_label,
            mask_input=mask_input[None, :, :],
            multimask_output=False,
        )
        assert masks.shape == (1, *SIZE)
        check(predictor.result, reference(paint, [A, B]))
        np.testing.assert_array_equal(masks[0], predictor.mask)

        input_label = np.array([1, 0])
        masks, scores, _ = predictor.predict(
            point_coords=input_point,
            point_labels=input_label,
            mask_input=mask_input[None, :, :],
            multimask_output=False,
        )
        check(predictor.result, reference(paint, [A, Click(60.25, 40.5, False)]))
        assert predictor.runs == {"image": 1, "click": 3}, "the first point is not run again"


@on_every_engine
def test_types_and_shapes(session: Session) -> None:
    masks, scores, logits = session.predict(**points(A, B))
    assert (masks.dtype, scores.dtype, logits.dtype) == (np.bool_, np.float32, np.float32)
    assert (masks.shape, scores.shape, logits.shape) == ((1, *SIZE), (1,), (1, *NETWORK))
    np.testing.assert_array_equal(logits[0] > 0, session.result.network_probability > 0.5)
    high, _, low = session.predict(**points(A, B), return_logits=True)
    assert high.dtype == np.float32
    np.testing.assert_array_equal(high > 0, masks)
    np.testing.assert_array_equal(low, logits)
    assert np.abs(high).max() <= 32


def test_the_arrays_belong_to_the_caller(session: Session) -> None:
    before = session.predict(**points(A))
    kept = [array.copy() for array in before]
    for array in before:
        array[:] = 1
    for array, old in zip(session.predict(**points(A)), kept, strict=True):
        np.testing.assert_array_equal(array, old)


@on_every_engine
def test_the_longest_beginning_is_kept(session: Session, paint: Bundle) -> None:
    session.predict(**points(A))
    session.predict(**points(A, B))
    assert session.runs["click"] == 2, "a further point is one run"
    session.predict(**points(A, C))
    assert session.runs["click"] == 3
    assert session.clicks == (A, C)
    check(session.result, reference(paint, [A, C]))
    session.predict(**points(B, A))
    assert session.runs["click"] == 5, "another order is another annotation"
    check(session.result, reference(paint, [B, A]))
    session.predict(**points(B, A))
    assert session.runs["click"] == 5


@on_every_engine
def test_a_shorter_list_goes_back_and_runs_nothing(session: Session, paint: Bundle) -> None:
    session.predict(**points(A, B, C))
    runs = session.runs
    masks, _, _ = session.predict(**points(A))
    check(session.result, reference(paint, [A]))
    np.testing.assert_array_equal(masks[0], session.mask)
    session.predict(**points(A, B, C))
    assert session.runs == runs
    assert session.clicks == (A, B, C)


def test_calls_mix_with_clicks_undo_and_redo(session: Session, paint: Bundle) -> None:
    session.click(A.x, A.y)
    session.predict(**points(A, B))
    assert session.runs["click"] == 2
    check(session.undo(), reference(paint, [A]))
    session.predict(**points(A, C))
    assert not session.can_redo
    check(session.undo(), reference(paint, [A]))
    assert session.undo().index == 0
    assert not session.can_undo


def test_a_limited_history_answers_the_same(paint: Bundle) -> None:
    with Session(paint, threads=1, history_limit=0) as session:
        session.set_image(GREY)
        for count in (1, 2, 3, 2):
            session.predict(**points(*[A, B, C][:count]))
            check(session.result, reference(paint, [A, B, C][:count]))
        assert session.runs["click"] == 5
        assert not session.can_undo


def test_it_is_about_the_current_surface(session: Session, paint: Bundle) -> None:
    session.predict(**points(A))
    session.select("dog")
    session.predict(**points(B))
    assert session.clicks == (B,)
    session.select("1")
    assert session.clicks == (A,)
    assert (session.labels > 0).sum() > 0


def test_masks_by_hand_are_no_points(session: Session, paint: Bundle) -> None:
    """Without mask_input, a call is its points and nothing else."""
    session.set_mask(np.eye(*SIZE, dtype=np.bool_))
    session.predict(**points(A))
    check(session.result, reference(paint, [A]))


class TestMaskInput:
    @on_every_engine
    def test_the_running_state_is_gone_on_from(self, session: Session, paint: Bundle) -> None:
        _, _, logits = session.predict(**points(A))
        session.predict(**points(A, B), mask_input=logits)
        assert session.runs["click"] == 2
        check(session.result, reference(paint, [A, B]))
        _, _, again = session.predict(**points(A), mask_input=logits[0])
        np.testing.assert_array_equal(again, logits)
        assert session.runs["click"] == 2, "the same points and their own answer are the same state"

    def test_a_state_with_a_mask_by_hand_is_gone_on_from(self, session: Session) -> None:
        session.click(A.x, A.y)
        session.set_mask(np.eye(*SIZE, dtype=np.bool_))
        _, _, edited = session.predict(**points(A), mask_input=logits_of(session.result.network_probability, 0.5)[None])
        with clicked(session.bundle, A) as other:
            other.set_mask(np.eye(*SIZE, dtype=np.bool_))
            expected = other.click(B.x, B.y)
        session.predict(**points(A, B), mask_input=edited)
        np.testing.assert_array_equal(session.result.network_probability, expected.network_probability)

    @on_every_engine
    def test_round_trip_into_another_session(self, paint: Bundle) -> None:
        """A mask alone is the answer that it was; the next click sees what it saw."""
        with clicked(paint, A, B) as first, clicked(paint) as second:
            masks, scores, logits = first.predict(**points(A, B))
            again, same, low = second.predict(mask_input=logits)
            np.testing.assert_array_equal(again, masks)
            np.testing.assert_allclose(same, scores, atol=1e-6)
            np.testing.assert_allclose(low, logits, atol=2e-5)
            np.testing.assert_allclose(second.result.network_probability, first.result.network_probability, atol=1e-6)
            assert second.runs["click"] == 0

    def test_other_points_begin_with_the_mask(self, paint: Bundle) -> None:
        with clicked(paint, A) as first, clicked(paint) as second:
            _, _, logits = first.predict(**points(A))
            first.predict(**points(B), mask_input=logits)
            second.predict(mask_input=logits)
            second.click(B.x, B.y)
            np.testing.assert_array_equal(first.result.network_probability, second.result.network_probability)
            assert first.clicks == (B,)
            first.predict(**points(B, C), mask_input=logits)
            assert first.runs["click"] == 3, "the same mask again is the same beginning"

    def test_it_is_put_in_like_a_mask(self, paint: Bundle) -> None:
        """Logits of another size are stretched over the image by the rule for masks."""
        rows = np.zeros(SIZE, dtype=np.float32)
        rows[20:] = 1
        with clicked(paint) as first, clicked(paint) as second:
            first.set_mask(rows)
            second.predict(mask_input=np.where(rows, np.float16(30), np.float16(-30))[None])
            np.testing.assert_allclose(second.result.network_probability, first.result.network_probability, atol=1e-6)
            np.testing.assert_allclose(*(s.click(B.x, B.y).network_probability for s in (first, second)), atol=1e-5)

    def test_the_previous_mask_through_the_image(self, tmp_path) -> None:
        aligned = ResizeRule(align_corners=True)
        bundle = write_toy(tmp_path / "through", mask_resize=aligned, previous_resize=aligned)
        with clicked(bundle, A) as first, clicked(bundle) as second:
            masks, _, logits = first.predict(**points(A))
            again, _, _ = second.predict(mask_input=logits)
            np.testing.assert_array_equal(again, masks)
            seen = through_image(first.result.network_probability, SIZE, aligned, aligned)
            np.testing.assert_allclose(second.result.network_probability, seen, atol=1e-6)


def test_errors_of_a_session(paint: Bundle, tmp_path) -> None:
    with Session(paint, threads=1) as session, pytest.raises(NoImageError):
        session.predict(**points(A))
    depth = (ModalitySpec(name="depth", scale=0.01),)
    with Session(write_toy(tmp_path / "depth", modalities=depth), threads=1) as session:
        session.set_image(GREY, depth=LATER)
        with pytest.raises(ModalityError, match="not there yet"):
            session.predict(**points(A))


def test_a_failing_engine_changes_nothing(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the points before the one that fails are taken."""
    before = session.click(A.x, A.y)
    after, calls = session._after_click, []

    def failing(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise AnswerError("no answer")
        return after(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(session, "_after_click", failing)
    with pytest.raises(MMMSDeployError, match="no answer"):
        session.predict(**points(A, B, C))
    assert session.result is before
    assert session.clicks == (A,)


@pytest.fixture
def session(paint: Bundle) -> Iterator[Session]:
    with clicked(paint) as session:
        yield session
