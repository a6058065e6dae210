"""The decision between objects, against the operations of the network's own code in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmms_deploy.bundle.contract import AnswerForm, AnswerSpec, ClickContract, ClickList, ClickMemory
from mmms_deploy.models.dynamite import DynaMITe
from mmms_deploy.session.rows import ObjectAnswer, Rows, stride_of
from tests.support.dynamite import tiny_dynamite

NETWORK, GRID, LEARNED = (40, 56), (16, 16), 2
"""The network of 40 x 56 pixels is filled up to 64 x 64."""
OWNERS = [3, 0, 7, 3, 7]
RULE = ClickContract(
    memory=ClickMemory.CLICKS,
    listed=ClickList(sizes=(8,), objects=7, learned=LEARNED),
    answers=AnswerSpec(form=AnswerForm.LOGITS, size=GRID),
)


def rows_of(logits: np.ndarray) -> Rows:
    owners = np.array([*OWNERS, *[0] * (len(logits) - len(OWNERS))], dtype=np.int32)
    return Rows(logits.astype(np.float32), owners, NETWORK, RULE)


def at_image(logits: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """The official order: enlarge by four, cut, resize to the image."""
    whole = F.interpolate(torch.from_numpy(logits)[None], scale_factor=4, mode="bilinear", align_corners=False)
    cut = whole[..., : NETWORK[0], : NETWORK[1]]
    return F.interpolate(cut, size=size, mode="bilinear", align_corners=False)


# With sizes that are powers of two of each other, weights and numbers are exact in float32.
@pytest.mark.parametrize("size", [NETWORK, (80, 112), (160, 224), (20, 28)])
def test_it_decides_as_the_network_does(size: tuple[int, int]) -> None:
    network = DynaMITe(tiny_dynamite(size=NETWORK, background_queries=LEARNED))
    logits = np.random.default_rng(0).integers(-3, 4, (len(OWNERS) + LEARNED, *GRID)).astype(np.float32)
    clicks = torch.zeros(1, len(OWNERS), 5)
    clicks[0, :, 3] = torch.tensor([float({0: 0, 3: 1, 7: 2}[owner]) for owner in OWNERS])
    clicks[0, :, 4] = 1
    decided = network.label(at_image(logits, size), clicks, 2)
    rows = rows_of(logits)
    expected = np.array([0, 3, 7])[decided.labels[0, 0].numpy()]
    found = rows.labels(size)
    np.testing.assert_array_equal(found, expected)
    assert (found.dtype, found.flags.writeable) == (np.int32, False)
    assert set(np.unique(found)) == {0, 3, 7}
    for number, label in enumerate((3, 7)):
        others = torch.maximum(decided.objects[:, 1 - number], decided.background[:, 0])
        margin = (decided.objects[:, number] - others)[0].numpy()
        np.testing.assert_array_equal(rows.margin(label, size), margin)
        answer = ObjectAnswer(rows, label, size)
        np.testing.assert_allclose(answer.probability(), torch.sigmoid(torch.from_numpy(margin)), atol=1e-6)
        np.testing.assert_array_equal(answer.mask(0.5), margin > 0)
        coarse = answer.coarse()
        assert coarse.numbers.shape == (10, 14)  # without what fills the picture up


def test_ties() -> None:
    logits = np.zeros((len(OWNERS) + LEARNED, *GRID), dtype=np.float32)
    # Before the background, and the lower label of two.
    np.testing.assert_array_equal(rows_of(logits).labels((9, 9)), 3)
    logits[[2, -1]] = 1
    np.testing.assert_array_equal(rows_of(logits).labels((9, 9)), 7)
    logits[1] = 2
    np.testing.assert_array_equal(rows_of(logits).labels((9, 9)), 0)


def test_without_a_background_there_is_an_object_everywhere() -> None:
    rows = Rows(np.zeros((1, *GRID), np.float32), np.array([5], np.int32), NETWORK, RULE)
    np.testing.assert_array_equal(rows.labels((3, 3)), 5)
    assert np.isfinite(rows.margin(5)).all()
    np.testing.assert_array_equal(ObjectAnswer(rows, 5, (3, 3)).probability(), 1)


@pytest.mark.parametrize(
    ("network", "grid", "stride"),
    [((448, 448), (112, 112), 4), ((190, 250), (48, 64), 4), ((33, 33), (16, 16), 4), ((32, 48), (4, 6), 8)],
)
def test_the_width_of_a_cell(network: tuple[int, int], grid: tuple[int, int], stride: int) -> None:
    assert stride_of(network, grid) == stride
