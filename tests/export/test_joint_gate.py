"""The gate of a network that answers for several objects: which rows count, and what is caught."""

from __future__ import annotations

import numpy as np
import pytest

from mmms_deploy.bundle.names import ROW_LOGITS
from mmms_deploy.errors import GateError
from mmms_deploy.export.comparison import ROW_LIMIT
from mmms_deploy.export.gate import _AgainstTorch
from mmms_deploy.export.joint import drawn_list, filled, surfaces_of, told_rows
from mmms_deploy.export.listed import ListedNetwork
from mmms_deploy.export.samples import sample_images
from mmms_deploy.export.trace import Trace
from tests.support.dynamite import click_list, random_dynamite

SCALE = 20.0


@pytest.fixture(scope="module")
def network() -> ListedNetwork:
    return ListedNetwork(random_dynamite("mit"))


def seen(network: ListedNetwork, changed: np.ndarray) -> list[float]:
    """What the gate says of an answer to one click, in a list of four rows, that differs from torch's."""
    expected = np.zeros((1, 6, 4, 4), np.float32)
    trace = Trace([{}], [{ROW_LOGITS: expected}], ["1 click"], SCALE, 0.5, [None], [told_rows(network, 4, 1)])
    against = _AgainstTorch("stages against torch", trace, sample_images(())[0])
    against.see({ROW_LOGITS: expected + changed}, 0, "stage click")
    return [check.worst for check in against.checks()]


def test_rows_without_a_click_may_be_anything(network) -> None:
    changed = np.zeros((1, 6, 4, 4), np.float32)
    changed[0, 1:4] = 50.0
    assert seen(network, changed) == [0.0]


@pytest.mark.parametrize("row", [0, 4, 5])
def test_a_row_that_differs_is_caught(network, row) -> None:
    """That of the click, and both learned ones; by the mean of all three, over the largest logit."""
    changed = np.zeros((1, 6, 4, 4), np.float32)
    changed[0, row] = 1.5 * ROW_LIMIT * SCALE
    assert seen(network, changed) == [pytest.approx(0.5 * ROW_LIMIT)]
    changed[0, row] = 6 * ROW_LIMIT * SCALE
    with pytest.raises(GateError, match=r"the rows' logits, over the largest logit is 0\.001 at stage click"):
        seen(network, changed)


def test_clicks_go_round_the_objects() -> None:
    """A positive click turns to the next object, a negative one is made on the current one."""
    clicks = np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0], [0, 0, 1], [0, 0, 1]], np.float32)
    assert surfaces_of(clicks).tolist() == [1, 2, 2, 3, 1]


def test_a_drawn_list_is_full(network) -> None:
    clicks = drawn_list(network, 64).numpy()[0]
    assert (clicks[:, 4] == 1).all()
    assert clicks[:, 2].tolist() == list(range(64))
    assert set(clicks[:, 3]) == {0, 1, 2, 3}
    height, width = network.network.config.size
    assert clicks[:, 0].max() < width
    assert clicks[:, 1].max() < height
    assert filled(click_list([(1, 2, 0, 1)]), 3).tolist() == [[[1, 2, 0, 1, 1], [0] * 5, [0] * 5]]
