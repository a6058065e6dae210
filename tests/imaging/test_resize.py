from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmms_deploy.bundle.contract import ResizeRule
from mmms_deploy.imaging import mask_resize
from mmms_deploy.imaging.resize import _bands, resize, resize_above, resize_image, through_image

RULES = (ResizeRule(), ResizeRule(align_corners=True), ResizeRule(antialias=True))
SIZES = ((1, 1), (2, 3), (7, 5), (448, 448), (333, 517), (3, 1000), (97, 1))
TARGETS = ((1, 1), (2, 3), (64, 96), (448, 448), (1080, 33), (5, 700))


def interpolate(array: np.ndarray, size: tuple[int, int], rule: ResizeRule) -> np.ndarray:
    torch = pytest.importorskip("torch")
    result = torch.nn.functional.interpolate(
        torch.from_numpy(array)[None],
        size,
        mode=str(rule.interpolation),
        align_corners=rule.align_corners,
        antialias=rule.antialias,
    )
    return result[0].numpy()


@pytest.mark.parametrize("rule", RULES, ids=["half_pixel", "align_corners", "antialias"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_torch(size: tuple[int, int], rule: ResizeRule) -> None:
    array = np.random.default_rng(0).random((2, *size))
    for target in TARGETS:
        ours = resize(array, target, rule)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, interpolate(array, target, rule), atol=1e-6)


@pytest.mark.parametrize("rule", RULES, ids=["half_pixel", "align_corners", "antialias"])
def test_equals_float32_torch_on_smooth_images(rule: ResizeRule) -> None:
    # On noise, float32 torch is itself up to 5e-5 away from exact, because it rounds source coordinates to float32.
    rows, columns = np.mgrid[:480, :854].astype(np.float32)
    array = (np.sin(columns / 25) + np.cos(rows / 31))[None].astype(np.float32)
    ours, theirs = resize(array, (448, 448), rule), interpolate(array, (448, 448), rule)
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.ptp(array))


@pytest.mark.parametrize("down", RULES, ids=["half_pixel", "align_corners", "antialias"])
@pytest.mark.parametrize("up", RULES[:2], ids=["half_pixel", "align_corners"])
def test_through_an_image_equals_two_resizes_by_torch(up: ResizeRule, down: ResizeRule) -> None:
    rng = np.random.default_rng(2)
    for size in ((64, 96), (7, 5), (33, 21)):
        array = rng.random(size, dtype=np.float32)
        for image in ((480, 854), (64, 96), (50, 70), (33, 700), (3, 2), (1, 1), (64, 200)):
            got = through_image(array, image, up, down)
            assert (got.dtype, got.shape) == (np.float32, size)
            there = interpolate(array[None].astype(np.float64), image, up)  # in float32, torch's places are rounded
            np.testing.assert_allclose(got, interpolate(there, size, down)[0], atol=2e-6)


def test_through_an_image_never_holds_the_enlarged_map() -> None:
    array = np.zeros((448, 448), dtype=np.float32)
    rule = ResizeRule(align_corners=True)
    through_image(array, (3000, 4000), rule, rule)
    tracemalloc.start()
    try:
        through_image(array, (3000, 4000), rule, rule)
        assert tracemalloc.get_traced_memory()[1] < 4 * array.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("rule", RULES, ids=["half_pixel", "align_corners", "antialias"])
def test_the_three_forms_agree(rule: ResizeRule) -> None:
    rng = np.random.default_rng(1)
    for size, target in itertools.product(SIZES, TARGETS):
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        planes = resize(image.transpose(2, 0, 1), target, rule)
        np.testing.assert_allclose(resize_image(image, target, rule), planes, atol=2e-4)
        above = resize_above(image[:, :, 0], target, rule, 100.0)
        np.testing.assert_array_equal(above, planes[0] > np.float32(100.0))


@given(
    sizes=st.tuples(*[st.integers(1, 60)] * 4),
    rule=st.sampled_from(RULES),
    value=st.floats(-1e3, 1e3, width=32),
)
@settings(max_examples=60, deadline=None)
def test_a_constant_stays_and_nothing_leaves_the_range(
    sizes: tuple[int, int, int, int], rule: ResizeRule, value: float
) -> None:
    size, target = sizes[:2], sizes[2:]
    np.testing.assert_allclose(resize(np.full(size, value), target, rule), value, rtol=1e-5, atol=1e-5)
    out = resize(np.random.default_rng(0).random(size), target, rule)
    assert out.min() >= -1e-6
    assert out.max() <= 1 + 1e-6


def test_identity_for_the_same_size() -> None:
    array = np.random.default_rng(0).random((1, 13, 17), dtype=np.float32)
    for rule in RULES:
        np.testing.assert_array_equal(resize(array, (13, 17), rule), array)


def test_result_owns_its_memory() -> None:
    array = np.zeros((5, 5), dtype=np.float32)
    resize(array, (5, 5), ResizeRule())[0, 0] = 1
    assert array[0, 0] == 0


def test_views_and_negative_strides() -> None:
    array = np.random.default_rng(0).random((40, 60), dtype=np.float32)
    for view in (array[::-1], array[:, ::-1], array[::2, 1::3], array.T):
        plain = np.ascontiguousarray(view)
        np.testing.assert_allclose(
            resize(view, (33, 44), ResizeRule()), resize(plain, (33, 44), ResizeRule()), atol=1e-6
        )


def test_sides_of_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        resize(np.zeros((0, 5)), (3, 3), ResizeRule())
    with pytest.raises(ValueError, match="at least 1"):
        resize(np.zeros((5, 5)), (3, 0), ResizeRule())


def test_weights_are_read_only_and_cached() -> None:
    first = _bands(1080, 448, ResizeRule())
    assert first is _bands(1080, 448, ResizeRule())
    assert not any(band.weights.flags.writeable for band in first)


@st.composite
def planes(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, int]]:
    """A map with flat parts, edges and noise, and a size that is not smaller."""
    height, width = draw(st.tuples(st.integers(1, 70), st.integers(1, 140)))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    blocks = rng.choice([-2.0, -0.5, 0.0, 0.5, 0.5000001, 1.0], (height // 16 + 1, width // 16 + 1))
    plane = blocks.repeat(16, axis=0).repeat(16, axis=1)[:height, :width].astype(np.float32)
    plane[:, : width // 3] += draw(st.sampled_from([0.0, 1e-7, 0.1])) * rng.standard_normal((height, width // 3))
    return plane, (height + draw(st.integers(0, 200)), width + draw(st.integers(0, 300)))


@given(planes(), st.sampled_from(RULES), st.sampled_from([-1.0, -0.5, 0.0, 0.5, 0.7]))
@settings(max_examples=150, deadline=None)
def test_deciding_tiles_without_computing_them_changes_nothing(
    given: tuple[np.ndarray, tuple[int, int]], rule: ResizeRule, threshold: float
) -> None:
    plane, size = given
    above = resize_above(plane, size, rule, threshold)
    assert above.shape == size
    assert above.flags.c_contiguous
    np.testing.assert_array_equal(above, resize(plane, size, rule) > np.float32(threshold))


def test_only_the_outline_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = 0
    whole = mask_resize._computed

    def counted(*arguments: Any) -> Iterator[Any]:
        nonlocal computed
        for row, column, made in whole(*arguments):
            computed += len(row)
            yield row, column, made

    monkeypatch.setattr(mask_resize, "_computed", counted)
    rows, columns = np.mgrid[:448, :448]
    disk = (np.hypot(rows - 200, columns - 230) < 120).astype(np.float32)
    size = (1080, 1920)
    mask = resize_above(disk, size, ResizeRule(), 0.5)
    assert 0.09 < mask.mean() < 0.5
    every = -(-size[0] // mask_resize.ROWS) * -(-size[1] // mask_resize.COLUMNS)
    assert 0 < computed < every / 6
    computed = 0
    assert resize_above(np.ones((448, 448)), size, ResizeRule(), 0.5).all()
    assert not resize_above(np.zeros((448, 448)), size, ResizeRule(), 0.5).any()
    assert computed == 0


def test_a_mask_at_the_images_size_takes_no_float32_of_that_size() -> None:
    plane = np.random.default_rng(0).random((448, 448), dtype=np.float32)
    size = (2160, 3840)
    resize_above(plane, size, ResizeRule(), 0.5)  # the weights are kept
    tracemalloc.start()
    resize_above(plane, size, ResizeRule(), 0.5)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1.5 * size[0] * size[1]
