"""The deepest pixel, found by bits, against SciPy's exact distance transform of every pixel."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import distance_transform_edt, gaussian_filter

from mmms_deploy.evaluation import depth
from mmms_deploy.evaluation.annotator import SimulatedClick, next_click
from mmms_deploy.evaluation.depth import across, and_down, bounds, deepest, pack, unpack

COLUMNS = -1
LIMITS = pytest.mark.parametrize("limit", [0, COLUMNS, 72, 10**6], ids=["transform", "columns", "both", "disks"])


def take(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take disks up to a radius; beyond it OpenCV's transform, or columns, as where OpenCV is missing."""
    monkeypatch.setattr(depth, "DISK_LIMIT", max(limit, 0))
    if limit == COLUMNS:
        monkeypatch.setattr(depth, "_has_opencv", lambda: False)
        monkeypatch.setitem(sys.modules, "cv2", None)


def squared_depths(region: np.ndarray) -> np.ndarray:
    return np.rint(distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1] ** 2).astype(int)


def expected_click(truth, guess, clicked, void) -> SimulatedClick | None:
    best = []
    for region in (truth & ~guess & ~void, guess & ~truth & ~void):
        squared = np.where(clicked, 0, squared_depths(region))
        best.append((squared.max(), int(squared.argmax())))
    positive = best[0][0] > best[1][0]
    squared, index = best[0] if positive else best[1]
    y, x = divmod(index, truth.shape[1])
    return SimulatedClick(x=x, y=y, positive=bool(positive)) if squared else None


def patterns(shape: tuple[int, int], seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    blobs = [gaussian_filter(rng.standard_normal(shape), sigma) > 0 for sigma in (1.5, 4, 12)]
    noise = [rng.random(shape) < share for share in (0.02, 0.5, 0.97)]
    boards = [(xx // cell + yy // cell) % 2 == 0 for cell in (1, 2, 7, 40)]
    ellipse = ((xx - shape[1] / 2) / shape[1] * 2.4) ** 2 + ((yy - shape[0] / 2) / shape[0] * 2.4) ** 2 < 1
    return [*blobs, *noise, *boards, ellipse, ellipse ^ noise[0], np.ones(shape, bool), np.zeros(shape, bool)]


# --- bits -------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(bool, st.tuples(st.integers(1, 5), st.integers(1, 200))), st.integers(-210, 210))
def test_bits_hold_the_mask_and_shift_it(mask: np.ndarray, by: int) -> None:
    bits, width = pack(mask), mask.shape[1]
    np.testing.assert_array_equal(unpack(bits)[:, :width], mask)
    assert not unpack(bits)[:, width:].any()
    wide = np.zeros((mask.shape[0], 1000), bool)
    wide[:, 400 : 400 + width] = mask
    np.testing.assert_array_equal(unpack(across(bits, by))[:, :width], wide[:, 400 + by : 400 + by + width])


@pytest.mark.parametrize("by", [-4, -3, -1, 0, 1, 3, 4])
def test_rows_above_and_below_the_image_are_outside(by: int) -> None:
    mask = np.random.default_rng(0).random((4, 70)) < 0.7
    target = pack(np.ones_like(mask))
    and_down(target, pack(mask), by)
    tall = np.zeros((24, 70), bool)
    tall[10:14] = mask
    np.testing.assert_array_equal(unpack(target)[:, :70], tall[10 + by : 14 + by])


# --- the deepest pixel ------------------------------------------------------------------------------------------------


@LIMITS
@pytest.mark.parametrize("shape", [(97, 130), (64, 128), (1, 200), (130, 1)], ids=str)
def test_deepest_is_the_first_greatest_distance(shape, limit, monkeypatch) -> None:
    take(limit, monkeypatch)
    for region in patterns(shape, 1):
        squared = squared_depths(region)
        bits = pack(region)
        found = bounds(bits)
        assert found.low <= squared.max() <= found.high
        y, x = divmod(int(squared.argmax()), shape[1])
        expected = (squared.max(), x, y) if region.any() else (0, 0, 0)
        assert deepest(bits, None, found) == expected


@LIMITS
def test_depths_below_the_least_are_not_searched_for(limit, monkeypatch) -> None:
    take(limit, monkeypatch)
    for region in patterns((80, 90), 2):
        bits, squared = pack(region), squared_depths(region)
        best, found = int(squared.max()), bounds(bits)
        assert deepest(bits, None, found, best + 1) == (0, 0, 0)
        if best:
            assert deepest(bits, None, found, best)[0] == best


@LIMITS
def test_groups_that_lie_apart_are_compared(limit, monkeypatch) -> None:
    """Squares in the corners, of which the last is the deepest; then one of the same depth comes before it."""
    take(limit, monkeypatch)
    region = np.zeros((700, 900), bool)
    region[:21, :21] = region[:21, -22:] = region[-21:, :21] = region[-23:, -23:] = True
    bits = pack(region)
    assert deepest(bits, None, bounds(bits)) == (144, 888, 688)
    region[100:123, 400:423] = True
    bits = pack(region)
    assert deepest(bits, None, bounds(bits)) == (144, 411, 111)


@LIMITS
def test_clicks_equal_those_by_distances_of_all_pixels(limit, monkeypatch) -> None:
    take(limit, monkeypatch)
    shape, rng = (90, 140), np.random.default_rng(3)
    masks = patterns(shape, 4)
    for truth in masks:
        for guess in (*masks[::3], ~truth):
            void = rng.random(shape) < rng.choice([0, 0.002])
            clicked = rng.random(shape) < rng.choice([0, 0.01, 0.3])
            for _ in range(2):
                click = next_click(truth, guess, clicked, void)
                assert click == expected_click(truth, guess, clicked, void)
                if click is not None:
                    clicked[click.y, click.x] = True


def test_a_full_hd_frame_of_noise_and_one_checkerboard() -> None:
    rng = np.random.default_rng(5)
    shape = (1080, 1920)
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    board = (xx // 64 + yy // 64) % 2 == 0
    noise = rng.random(shape) < 0.9
    nothing = np.zeros(shape, bool)
    for truth, guess in ((board, ~board), (noise, nothing), (noise, board)):
        assert next_click(truth, guess) == expected_click(truth, guess, nothing, nothing)
