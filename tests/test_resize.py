from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmms_deploy.contract import ResizeRule
from mmms_deploy.resize import _bands, resize, resize_above, resize_image

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
    first = _bands(448, 1080, False, False)
    assert first is _bands(448, 1080, False, False)
    assert not any(band.weights.flags.writeable for band in first)


def test_fast_enough_for_a_click() -> None:
    """Two milliseconds on one core; the bound is loose for busy machines, and catches full-size temporaries."""
    probability = np.random.default_rng(0).random((448, 448), dtype=np.float32)
    photo = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), dtype=np.uint8)

    def best(function: object, *args: object) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            function(*args)  # type: ignore[operator]
            times.append(time.perf_counter() - start)
        return min(times)

    assert best(resize_above, probability, (1080, 1920), ResizeRule(), 0.5) < 0.02
    assert best(resize_image, photo, (448, 448), ResizeRule(antialias=True)) < 0.5
