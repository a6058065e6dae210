"""IoU and NoC, worked by hand."""

import numpy as np
import pytest

from mmms_deploy.errors import MaskError, MeasureError
from mmms_deploy.evaluation.measures import clicks_to_reach, iou, iou_after, noc, summarise

TRUTH = np.array([[1, 1, 1, 0], [0, 0, 0, 0]])
GUESS = np.array([[0, 1, 1, 1], [0, 0, 0, 1]])


def test_iou_by_hand() -> None:
    assert iou(GUESS, TRUTH) == 2 / 5
    assert iou(TRUTH, TRUTH) == 1
    assert iou(1 - TRUTH, TRUTH) == 0


def test_iou_leaves_out_void() -> None:
    void = np.array([[1, 0, 0, 1], [0, 0, 0, 0]])
    assert iou(GUESS, TRUTH, void) == 2 / 3


def test_iou_of_two_empty_masks_is_one() -> None:
    empty = np.zeros((2, 3), bool)
    assert iou(empty, empty) == 1
    assert iou(TRUTH, TRUTH * 0, void=TRUTH) == 1


def test_iou_refuses_probabilities_and_other_sizes() -> None:
    with pytest.raises(MaskError, match="float"):
        iou(GUESS * 0.5, TRUTH)
    with pytest.raises(MaskError, match="prediction is 4x2"):
        iou(GUESS.T, TRUTH)


def test_noc_is_the_first_click_that_reaches_the_threshold() -> None:
    assert noc([0.5, 0.85, 0.79, 0.9], 0.80) == 2
    assert noc([0.5, 0.85, 0.79, 0.9], 0.86) == 4


def test_reaching_means_greater_or_equal() -> None:
    assert noc([0.5, 0.9], 0.9) == 2


def test_a_failure_counts_as_the_limit() -> None:
    assert noc([0.5, 0.6], 0.9) == 20
    assert noc([0.5, 0.6], 0.9, max_clicks=5) == 5
    assert clicks_to_reach([0.5, 0.6], 0.9) is None


def test_clicks_beyond_the_limit_do_not_count() -> None:
    assert clicks_to_reach([0.1, 0.2, 0.95], 0.9, max_clicks=2) is None
    assert clicks_to_reach([0.1, 0.95], 0.9, max_clicks=2) == 2


@pytest.mark.parametrize(("threshold", "limit"), [(0, 20), (85, 20), (1.01, 20), (float("nan"), 20), (0.9, 0)])
def test_noc_refuses_what_is_no_fraction_or_limit(threshold: float, limit: int) -> None:
    with pytest.raises(MeasureError):
        noc([0.5], threshold, limit)


def test_iou_after_the_last_click_stays() -> None:
    assert iou_after([0.4, 0.7], 1) == 0.4
    assert iou_after([0.4, 0.7], 2) == 0.7
    assert iou_after([0.4, 0.7], 10) == 0.7
    with pytest.raises(MeasureError):
        iou_after([], 1)
    with pytest.raises(MeasureError):
        iou_after([0.4], 0)


def test_summary_by_hand() -> None:
    summary = summarise([[0.5, 0.8, 0.95], [0.9], [0.1, 0.2, 0.3]], clicks=(1, 3), thresholds=(0.8, 0.9), max_clicks=5)
    assert summary.objects == 3
    assert summary.mean_iou == {1: pytest.approx(0.5), 3: pytest.approx((0.95 + 0.9 + 0.3) / 3)}
    assert summary.noc == {0.8: pytest.approx((2 + 1 + 5) / 3), 0.9: pytest.approx((3 + 1 + 5) / 3)}
    assert summary.failures == {0.8: pytest.approx(1 / 3), 0.9: pytest.approx(1 / 3)}


def test_a_summary_of_nothing_is_refused() -> None:
    with pytest.raises(MeasureError):
        summarise([])
