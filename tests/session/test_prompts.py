"""What predict takes as prompts, what it refuses, and its numbers."""

from __future__ import annotations

import numpy as np
import pytest

from mmms_deploy import Click, Session
from mmms_deploy.errors import ClickError, MaskInputError
from mmms_deploy.session.answers import given_logits
from mmms_deploy.session.predict import logits_of, score_of
from tests.support.annotating import NETWORK, SIZE

A, B = Click(10, 10), Click(60.25, 40.5)


class Tensor:
    """As a tensor of torch that has a gradient."""

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


POINTS = {"point_coords": [[10, 10], [60.25, 40.5]], "point_labels": [1, 1]}


@pytest.mark.parametrize(
    ("logits", "fix"),
    [
        (np.zeros((3, *NETWORK), np.float32), "choose one mask: logits[0][None]"),
        (np.zeros(SIZE, np.bool_), "set_mask(mask)"),
        (np.zeros(SIZE, np.uint8), "set_mask(mask)"),
        (np.full(NETWORK, np.nan, np.float32), "how it was computed"),
        (np.zeros((1, 0, 4), np.float32), "choose one mask"),
        ([[1.0], [1.0, 2.0]], "NumPy arrays"),
        ("mask", "choose one mask"),
        (Tensor(), ".detach().cpu().numpy()"),
    ],
    ids=["three", "bool", "uint8", "nan", "empty", "ragged", "text", "tensor"],
)
def test_what_is_no_logits_is_refused(session: Session, logits: object, fix: str) -> None:
    before = session.click(A.x, A.y)
    with pytest.raises(MaskInputError) as caught:
        session.predict(**POINTS, mask_input=logits)  # type: ignore[arg-type]
    assert fix in str(caught.value.fix)
    assert session.result is before


@pytest.mark.parametrize(
    ("given", "fix"),
    [
        ({}, "pass point_coords=[[x, y]], point_labels=[1]"),
        ({"point_coords": np.zeros((0, 2)), "point_labels": []}, "pass point_coords=[[x, y]]"),
        ({"box": np.array([10, 20, 30, 45])}, "e.g. in its middle: point_coords=[[20, 32.5]], point_labels=[1]"),
        ({"box": [[10, 20, 30, 45], [1, 2, 3, 4]], **POINTS}, "click inside instead"),
        ({"box": "all"}, "click inside instead"),
        ({"point_coords": [[10, 10]]}, "both, of the same length"),
        ({"point_labels": [1]}, "both, of the same length"),
        ({"point_coords": [[10, 10]], "point_labels": [1, 0]}, "pass [[x, y]] and [1]"),
        ({"point_coords": [10, 10], "point_labels": [1]}, "pass [[x, y]] and [1]"),
        ({"point_coords": np.zeros((2, 1, 2)), "point_labels": np.ones((2, 1))}, "select(name)"),
        ({"point_coords": [[10, 10], [20]], "point_labels": [1, 1]}, "NumPy arrays or lists"),
        ({"point_coords": Tensor(), "point_labels": [1]}, ".detach().cpu().numpy()"),
        ({"box": Tensor()}, "click inside instead"),
        ({"point_coords": [["a", "b"]], "point_labels": [1]}, "pass numbers"),
        ({"point_coords": [[10, 10]], "point_labels": [2]}, "click inside the box"),
        ({"point_coords": [[10, 10]], "point_labels": [3]}, "click inside the box"),
        ({"point_coords": [[10, 10]], "point_labels": [-1]}, "leave such points out"),
        ({"point_coords": [[10, 10]], "point_labels": [0.5]}, "leave such points out"),
        ({"point_coords": [[10, 10]], "point_labels": [np.nan]}, "leave such points out"),
        ({"point_coords": [[10, 10], [70, 10]], "point_labels": [1, 1]}, "inside the image"),
        ({"point_coords": [[np.nan, 10]], "point_labels": [1]}, "how the click was computed"),
    ],
)
def test_what_is_no_point_is_refused_and_changes_nothing(session: Session, given: dict[str, object], fix: str) -> None:
    before = session.click(A.x, A.y)
    with pytest.raises(ClickError) as caught:
        session.predict(**given)  # type: ignore[arg-type]
    assert fix in str(caught.value.fix)
    assert caught.value.expected
    assert session.result is before
    assert session.runs["click"] == 1


def test_a_box_is_named(session: Session) -> None:
    with pytest.raises(ClickError, match=r"predict got a box\n.*this network takes clicks, no boxes"):
        session.predict(box=np.array([10, 20, 30, 40]))


def test_lists_batches_and_parts(session: Session) -> None:
    expected = session.predict([[10, 10], [60.25, 40.5]], [1, 0])[2]
    for coords, labels, pixels in (
        (np.array([[[10, 10], [60.25, 40.5]]]), np.array([[1, 0]]), True),
        (((10, 10), (60.25, 40.5)), (1.0, False), True),
        ([[10 / 70, 10 / 50], [60.25 / 70, 40.5 / 50]], [1, 0], False),
    ):
        np.testing.assert_array_equal(session.predict(coords, labels, normalize_coords=pixels)[2], expected)
    assert session.runs["click"] == 2


def test_logits_of_any_threshold() -> None:
    probability = np.array([[0, 1e-30, 0.3, np.nextafter(np.float32(0.3), 1), 0.5, 1]], dtype=np.float32)
    for threshold in (0.3, 0.5, 0.9):
        logits = logits_of(probability, threshold)
        np.testing.assert_array_equal(logits > 0, probability > np.float32(threshold))
        assert (np.diff(logits[0]) >= 0).all()
        assert (logits.min(), logits.max()) == (-32, 32)
    np.testing.assert_allclose(logits_of(np.array([[0.75]], np.float32), 0.5), np.log(3), rtol=1e-6)


@pytest.mark.filterwarnings("error")
def test_probabilities_that_a_resize_rounded_beyond_have_the_largest_logits() -> None:
    """Some kernels of OpenBLAS add a row of ones to a little more than 1."""
    beyond = np.array([[-1e-7, np.nextafter(np.float32(1), np.float32(2))]], dtype=np.float32)
    np.testing.assert_array_equal(given_logits(beyond), [[-10, 10]])
    np.testing.assert_array_equal(logits_of(beyond, 0.5), [[-32, 32]])


def test_the_score_says_how_decided_an_answer_is() -> None:
    half = np.array([[1, 1, 0, 0]], dtype=np.float32)
    assert score_of(half, 0.5) == 1
    assert score_of(half * 0, 0.5) == 0
    assert score_of(np.array([[0.8, 0.6, 0.4, 0]], dtype=np.float32), 0.5) == pytest.approx(1.4 / 2.4)
