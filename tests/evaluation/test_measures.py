"""NoC, areas under curves and boundary IoU, worked by hand."""

import numpy as np
import pytest

from mmms_deploy.evaluation.errors import MeasureError
from mmms_deploy.evaluation.measures import (
    area_under_curve,
    boundary_iou,
    boundary_of,
    clicks_to_reach,
    iou_after,
    noc,
    summarise,
)


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


def test_summary_names_both_ways_to_count_failures() -> None:
    summary = summarise([[0.5, 0.9], [0.9], [0.1, 0.2]], thresholds=(0.9,), max_clicks=2)
    assert summary.noc == {0.9: pytest.approx((2 + 1 + 2) / 3)}
    assert summary.failed == {0.9: 1}
    assert summary.at_limit == {0.9: 2}, "reaching it with the last click is a failure in RITM's code"
    assert summary.clicks == {0.9: (1, 1)}


def test_area_under_the_curve_by_hand() -> None:
    # Trapezoids of 0.3, 0.5 and 0.6, over three steps.
    assert area_under_curve([0.2, 0.4, 0.6, 0.6], 4) == pytest.approx(1.4 / 3)
    assert area_under_curve([0.2, 0.4, 0.6], 4) == pytest.approx(1.4 / 3), "the last IoU stays"
    assert area_under_curve([0.5], 20) == pytest.approx(0.5)
    assert area_under_curve([0.3, 0.9], 1) == 0.3
    with pytest.raises(MeasureError):
        area_under_curve([], 4)
    with pytest.raises(MeasureError):
        area_under_curve([0.4], 0)


# --- boundary IoU -----------------------------------------------------------------------------------------------------


def test_the_band_is_two_percent_of_the_diagonal_wide() -> None:
    mask = np.zeros((300, 400), bool)  # diagonal 500: a band of 10 pixels
    mask[50:250, 60:360] = True
    inner = mask.copy()
    inner[60:240, 70:350] = False
    np.testing.assert_array_equal(boundary_of(mask), inner)


def test_the_images_border_is_a_boundary() -> None:
    mask = np.ones((30, 40), bool)  # a band of 1 pixel
    expected = mask.copy()
    expected[1:-1, 1:-1] = False
    np.testing.assert_array_equal(boundary_of(mask), expected)


def test_the_band_equals_opencvs_repeated_erosion() -> None:
    import cv2

    rng = np.random.default_rng(0)
    mask = cv2.GaussianBlur(rng.standard_normal((90, 130)).astype(np.float32), (0, 0), 9) > 0
    eroded = cv2.erode(np.pad(mask.astype(np.uint8), 1), np.ones((3, 3), np.uint8), iterations=3)[1:-1, 1:-1]
    np.testing.assert_array_equal(boundary_of(mask), mask & (eroded == 0))


def test_boundary_iou_by_hand() -> None:
    truth, guess = np.zeros((20, 30), bool), np.zeros((20, 30), bool)  # bands of 1 pixel
    truth[5:10, 5:10] = True  # 16 pixels in the band
    guess[5:10, 6:11] = True  # one to the right: two columns of 5 are not shared, of the rows 2 * 3 and the side are
    band = boundary_of(guess) & boundary_of(truth)
    assert boundary_iou(guess, truth) == band.sum() / (32 - band.sum())
    assert band.sum() == 8
    assert boundary_iou(truth, truth) == 1
    assert boundary_iou(guess & False, guess & False) == 1
    assert boundary_iou(guess & False, truth) == 0


def test_boundary_iou_leaves_out_void_without_making_it_a_boundary() -> None:
    truth = np.zeros((20, 30), bool)
    truth[5:15, 5:25] = True
    void = np.zeros_like(truth)
    void[:, 15:] = True
    guess = truth.copy()
    guess[:, 15:] = False
    guess[5:15, 14] = True
    # Left of void the bands differ only in the new edge, at column 14: 8 pixels more, of 10 + 2 * 9.
    assert boundary_iou(guess, truth, void) == 28 / 36
