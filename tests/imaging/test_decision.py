"""Deciding between maps at the image's size, against all maps resized whole."""

from __future__ import annotations

import numpy as np
import pytest

from mmms_deploy.bundle.contract import ResizeRule
from mmms_deploy.imaging.decision import Enlargement, LargestMap
from mmms_deploy.imaging.resize import resize

RULE = ResizeRule()
OWNERS = np.array([2, 0, 9, 2, 5, 0], dtype=np.int32)


def smooth(rng: np.random.Generator, grid: tuple[int, int]) -> np.ndarray:
    """Maps with few outlines, so that most tiles are decided without being computed, and noise in one of them."""
    maps = resize(rng.normal(size=(len(OWNERS), 3, 4)).astype(np.float32), grid, RULE)
    maps[3] += 0.2 * rng.normal(size=grid).astype(np.float32)
    return maps


def whole(maps: np.ndarray, how: Enlargement) -> np.ndarray:
    cut = resize(maps, how.between, RULE)[:, : how.kept[0], : how.kept[1]]
    return resize(cut, how.size, RULE)


@pytest.mark.parametrize(
    ("grid", "stride", "kept", "size"),
    [
        ((16, 24), 4, (64, 96), (333, 517)),
        ((16, 24), 4, (50, 90), (40, 30)),  # cut, and smaller on one side
        ((16, 24), 1, (16, 24), (16, 24)),
        ((8, 8), 4, (31, 27), (5, 3)),
        ((5, 7), 2, (9, 13), (1, 200)),
    ],
)
def test_it_decides_as_whole_maps_do(grid, stride, kept, size) -> None:
    maps = smooth(np.random.default_rng(1), grid)
    how = Enlargement((grid[0] * stride, grid[1] * stride), kept, size, RULE)
    found = LargestMap(maps, OWNERS, how)
    all_maps = whole(maps, how)
    owners = np.unique(OWNERS)
    most = np.stack([all_maps[owner == OWNERS].max(axis=0) for owner in owners])
    two = np.sort(most, axis=0)[-2:]
    clear = two[1] - two[0] > 1e-4
    labels = found.labels()
    assert (labels.shape, labels.dtype) == (size, np.int32)
    np.testing.assert_array_equal(labels[clear], owners[most.argmax(axis=0)][clear])
    assert clear.mean() > 0.99
    for owner in owners:
        others = all_maps[owner != OWNERS].max(axis=0)
        np.testing.assert_allclose(found.margin(int(owner)), most[owners == owner][0] - others, atol=1e-4)


def test_only_tiles_on_outlines_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = np.full((3, 16, 16), -1, dtype=np.float32)
    maps[0, :8], maps[1, 8:], maps[2] = 1, 1, 0.5
    found = LargestMap(maps, np.array([1, 2, 0], np.int32), Enlargement((64, 64), (64, 64), (640, 640), RULE))
    computed: list[tuple[int, int]] = []
    most = found._most

    def counted(rows, i, j, floor):
        computed.append((int(rows[0]), len(i)))
        return most(rows, i, j, floor)

    monkeypatch.setattr(found, "_most", counted)
    labels = found.labels()
    assert set(np.unique(labels)) == {0, 1, 2}  # between the halves both fall below the third
    assert sum(count for row, count in computed if row == 0) < 0.3 * 20 * 10  # of 20 x 10 tiles


def test_ties_and_a_single_owner() -> None:
    how = Enlargement((16, 16), (16, 16), (50, 50), RULE)
    equal = np.ones((3, 4, 4), dtype=np.float32)
    assert (LargestMap(equal, np.array([7, 3, 0], np.int32), how).labels() == 3).all()
    assert (LargestMap(equal[:1], np.array([7], np.int32), how).labels() == 7).all()
    assert np.isposinf(LargestMap(equal[:1], np.array([7], np.int32), how).margin(7)).all()
