"""Masks with outlines everywhere, against the same tiles computed one batch after the other."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from mmms_deploy.bundle.contract import ResizeRule
from mmms_deploy.imaging import mask_resize, scratch
from mmms_deploy.imaging.mask_resize import enlarge, enlarge_above
from mmms_deploy.imaging.tiles import COLUMNS, ROWS, tile_windows

RULES = (ResizeRule(), ResizeRule(align_corners=True), ResizeRule(antialias=True))
HALF = np.float32(0.5)
NEAR = (np.nextafter(HALF, np.float32(0)), HALF, np.nextafter(HALF, np.float32(1)))


def tile_by_tile(plane: np.ndarray, size: tuple[int, int], rule: ResizeRule) -> np.ndarray:
    """Every tile as two products with a transposed view of the weights, 64 tiles at a time."""
    rows, columns = mask_resize._axes(plane, size, rule)
    transposed = columns.weights.transpose(0, 2, 1)
    windows = sliding_window_view(plane, (rows.reach, columns.reach))
    out = np.empty(size, dtype=np.float32)
    target = tile_windows(out, rows, columns)
    row, column = np.indices((len(rows.source), len(columns.source))).reshape(2, -1)
    for start in range(0, len(row), 64):
        i, j = row[start : start + 64], column[start : start + 64]
        tiles = rows.weights[i] @ (windows[rows.source[i], columns.source[j]] @ transposed[j])
        target[rows.target[i], columns.target[j]] = tiles
    return out


@st.composite
def maps(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, int]]:
    """Noise, numbers within one unit of the threshold, stripes and flat parts; and a size that is not smaller."""
    height, width = draw(st.tuples(st.integers(1, 90), st.integers(1, 90)))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    kind = draw(st.sampled_from(["noise", "near", "stripes", "flat", "large"]))
    if kind == "near":
        plane = rng.choice(NEAR, (height, width))
    elif kind == "stripes":
        plane = np.indices((height, width))[draw(st.integers(0, 1))] % 2
    elif kind == "flat":
        plane = rng.choice([0.0, 0.5, 1.0], (height // 8 + 1, width // 8 + 1)).repeat(8, 0).repeat(8, 1)
    else:
        plane = rng.normal(0.5, 1e30 if kind == "large" else 1.0, (height, width))
    size = (height + draw(st.integers(0, 300)), width + draw(st.integers(0, 300)))
    return plane[:height, :width].astype(np.float32), size


@given(maps(), st.sampled_from(RULES), st.sampled_from([0.0, 0.5, 0.7]), st.sampled_from([1, 1 << 14, 1 << 18]))
@settings(max_examples=120, deadline=None)
def test_masks_are_the_same_bit_for_bit(
    given: tuple[np.ndarray, tuple[int, int]], rule: ResizeRule, threshold: float, numbers: int
) -> None:
    plane, size = given
    expected = tile_by_tile(plane, size, rule)
    above = expected > np.float32(threshold)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_resize, "_NUMBERS", numbers)
        for share in (0.0, 0.6):  # whole tile rows everywhere; where most tiles are undecided
            patch.setattr(mask_resize, "_FULL", share)
            for threads in (1, 2):
                np.testing.assert_array_equal(enlarge_above(plane, size, rule, threshold, threads), above)
    out = np.empty(size, dtype=np.float32)
    enlarge(plane, size, rule, out)
    np.testing.assert_array_equal(out.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("size", [(480, 854), (1080, 1920), (1079, 1917), (2160, 3840), (448, 449)], ids=str)
def test_photographs(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    noise = rng.random((448, 448), dtype=np.float32)
    half = noise.copy()
    half[200:] = 0.9  # the lower tile rows are decided
    for plane in (noise, half, rng.choice(NEAR, (448, 448))):
        expected = tile_by_tile(plane, size, RULES[0]) > HALF
        for threads in (None, 1, 2, 5):
            np.testing.assert_array_equal(enlarge_above(plane, size, RULES[0], 0.5, threads), expected)


@pytest.mark.parametrize("rule", RULES, ids=["half_pixel", "align_corners", "antialias"])
def test_the_order_of_weights_in_memory_changes_no_bit(rule: ResizeRule) -> None:
    # With some kernels, a fifth of such sizes round otherwise when the order is not checked.
    rng = np.random.default_rng(1)
    for _ in range(40):
        (height, width), more = rng.integers(1, 300, 2), rng.integers(0, 900, 2)
        sizes = (int(height), int(width), int(height + more[0]), int(width + more[1]))
        turned = mask_resize._turned(*sizes, rule)
        rows = mask_resize._axis(sizes[0], sizes[2], ROWS, rule)
        view = mask_resize._axis(sizes[1], sizes[3], COLUMNS, rule).weights.transpose(0, 2, 1)
        np.testing.assert_array_equal(turned, view)
        read = rng.standard_normal((len(view), rows.reach, view.shape[1])).astype(np.float32)
        every = np.arange(len(view))
        np.testing.assert_array_equal(read @ turned[every], read @ view[every])


def test_outlines_everywhere_are_computed_in_whole_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    single = 0
    computed = mask_resize._computed

    def counted(*arguments: Any) -> Iterator[Any]:
        nonlocal single
        for row, column, tiles in computed(*arguments):
            single += len(row)
            yield row, column, tiles

    parts: list[Any] = []
    strips = mask_resize.strips_above

    def seen(*arguments: Any) -> None:
        parts.extend(arguments[5])
        strips(*arguments)

    monkeypatch.setattr(mask_resize, "_computed", counted)
    monkeypatch.setattr(mask_resize, "strips_above", seen)
    noise = np.random.default_rng(2).random((448, 448), dtype=np.float32)
    enlarge_above(noise, (1080, 1920), RULES[0], 0.5)
    assert (single, parts[0].start, parts[-1].stop) == (0, 0, 34)
    parts.clear()
    rows, columns = np.mgrid[:448, :448]
    disk = (np.hypot(rows - 200, columns - 230) < 120).astype(np.float32)
    enlarge_above(disk, (1080, 1920), RULES[0], 0.5)
    assert single > 0
    assert not parts


@given(st.integers(1, 80), st.integers(1, 8000), st.integers(1, 4), st.integers(0, 100))
@settings(deadline=None)
def test_parts_are_disjoint_and_the_last_two_tile_rows_are_in_one(
    count: int, width: int, threads: int, seed: int
) -> None:
    across = -(-width // COLUMNS)
    undecided = np.random.default_rng(seed).random((count, 1)) < 0.5
    undecided = undecided.repeat(across, axis=1)
    parts = mask_resize._strips(undecided, width, threads)
    assert all(before.stop <= after.start for before, after in pairwise(parts))
    assert all(part.start < part.stop <= count for part in parts)
    assert not any(part.start == count - 1 > 0 for part in parts)
    assert not any(part.stop == count - 1 for part in mask_resize._strips(np.ones_like(undecided), width, threads))


def test_many_callers_at_once() -> None:
    rng = np.random.default_rng(3)
    planes = [rng.random((448, 448), dtype=np.float32) for _ in range(3)]
    expected = [enlarge_above(plane, (1080, 1920), RULES[0], 0.5, 1) for plane in planes]
    wrong = []

    def call(index: int) -> None:
        for _ in range(4):
            if not np.array_equal(enlarge_above(planes[index], (1080, 1920), RULES[0], 0.5, 2), expected[index]):
                wrong.append(index)

    callers = [threading.Thread(target=call, args=(index,)) for index in range(len(planes))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_memory_is_that_of_parts() -> None:
    plane = np.random.default_rng(4).random((448, 448), dtype=np.float32)
    for size in ((2160, 3840), (4000, 6000)):
        enlarge_above(plane, size, RULES[0], 0.5, 2)  # the weights are kept
        scratch._spare.clear()
        tracemalloc.start()
        try:
            enlarge_above(plane, size, RULES[0], 0.5, 2)
            assert tracemalloc.get_traced_memory()[1] < size[0] * size[1] + 8e6
        finally:
            tracemalloc.stop()
