"""Masks and label maps that two devices made of the same answer."""

from __future__ import annotations

import numpy as np

from mmms_deploy.imaging.decision import Enlargement, LargestMap
from mmms_deploy.imaging.resize import resize
from mmms_deploy.imaging.resize_weights import chained_weights
from mmms_deploy.session import ClickResult

HAIR = 1e-6
"""How far rounding can move a number of about 1 that is a mean of a few others."""


def assert_same_mask(result: ClickResult, expected: ClickResult | None = None) -> None:
    """Check that a result's mask is what the CPU makes of its answer, but for pixels within a hair of the threshold.

    Args:
        result: The result; its mask may be from a GPU.
        expected: The result of a session on the CPU, whose answer has to be the same; None for the result's own answer.
    """
    answer = result.answer
    if expected is not None:
        np.testing.assert_array_equal(answer.numbers, expected.answer.numbers)
    mask = answer.above(result.mask.shape) if expected is None else expected.mask
    assert result.mask.shape == mask.shape
    assert result.mask.dtype == np.bool_
    assert not result.mask.flags.writeable
    row, column = np.nonzero(result.mask != mask)
    if row.size:
        exact = resize(answer.probability, result.mask.shape, answer.rule.mask_resize)
        assert np.abs(exact[row, column] - answer.rule.threshold).max() <= HAIR


def assert_same_labels(found: np.ndarray, planes: np.ndarray, owners: np.ndarray, how: Enlargement) -> None:
    """Check that a label map is the CPU's, but for pixels whose two largest maps are within rounding of each other.

    Args:
        found: (H0, W0) int32, perhaps from a GPU.
        planes: (R, h, w) float32, the maps.
        owners: (R,) int32, the owner of each.
        how: How they are enlarged.
    """
    expected = LargestMap(planes, owners, how).labels()
    row, column = np.nonzero(found != expected)
    if not row.size:
        return
    at = [_dense(planes.shape[1 + axis], how, axis, place) for axis, place in enumerate((row, column))]
    exact = np.einsum("nh,rhw,nw->rn", at[0], planes.astype(np.float64), at[1], optimize=True)

    def most(of: np.ndarray) -> np.ndarray:
        return np.where(owners[:, None] == of, exact, -np.inf).max(axis=0)

    hair = HAIR * max(1.0, float(np.abs(planes).max()))
    # Both are the largest there: another pair of owners may not be confused.
    assert (exact.max(axis=0) - np.minimum(most(found[row, column]), most(expected[row, column])) <= hair).all()


def _dense(size_in: int, how: Enlargement, axis: int, place: np.ndarray) -> np.ndarray:
    """Return the weights of all input pixels of an axis, (N, size_in), for some output pixels."""
    first, weights = chained_weights(size_in, how.between[axis], how.kept[axis], how.size[axis], how.rule, how.rule)
    dense = np.zeros((len(place), size_in + weights.shape[1]))
    np.put_along_axis(dense, first[place, None] + np.arange(weights.shape[1]), weights[place], axis=1)
    return dense[:, :size_in]
