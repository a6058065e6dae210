"""Masks that two devices made of the same answer."""

from __future__ import annotations

import numpy as np

from mmms_deploy.imaging.resize import resize
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
