"""How far two masks agree: their intersection over union, and the checks that both are masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmms_deploy.errors import MaskError


def as_mask(name: str, values: object, shape: tuple[int, int] | None = None) -> NDArray[np.bool_]:
    """Check that an array is a mask, and return it as bools.

    Args:
        name: What the error's text calls the array.
        values: (H, W) bool, or integers of which zero is false and anything else true.
        shape: The (H, W) it must have; ``None`` for any.

    Returns:
        (H, W) bool.

    Raises:
        MaskError: It is no two-dimensional, non-empty array of bools or integers, or has another shape.
    """
    array = np.asarray(values)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "bui":
        raise MaskError(
            f"{name} is an array of shape {array.shape} and type {array.dtype}",
            expected="a mask (H, W) of bools or integers, at least one pixel large",
            fix="pass one mask, not a batch; threshold probabilities first (probability > 0.5)",
        )
    if shape is not None and array.shape != shape:
        raise MaskError(
            f"{name} is {array.shape[0]}x{array.shape[1]} pixels (H x W)",
            expected=f"{shape[0]}x{shape[1]} as the ground truth",
            fix="compare masks at the image's own resolution",
        )
    return array if array.dtype == np.bool_ else array != 0


def iou(prediction: NDArray[Any], ground_truth: NDArray[Any], void: NDArray[Any] | None = None) -> float:
    """Intersection over union of two masks.

    Args:
        prediction: (H, W), bool or integers, nonzero where the object is predicted.
        ground_truth: (H, W), bool or integers, nonzero on the object.
        void: (H, W), nonzero on pixels that are left out of both masks; ``None`` for none.

    Returns:
        A number from 0 to 1; 1 when both masks are empty.

    Raises:
        MaskError: A mask has the wrong shape or type.
    """
    truth = as_mask("ground_truth", ground_truth)
    guess = as_mask("prediction", prediction, truth.shape)
    both, either = truth & guess, truth | guess
    if void is not None:
        counted = ~as_mask("void", void, truth.shape)
        both, either = both & counted, either & counted
    union = int(np.count_nonzero(either))
    return int(np.count_nonzero(both)) / union if union else 1.0
