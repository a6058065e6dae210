"""IoU of two masks, worked by hand."""

import numpy as np
import pytest

from mmms_deploy.errors import MaskError
from mmms_deploy.replay.metrics import iou

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
