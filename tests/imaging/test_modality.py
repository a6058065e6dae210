from __future__ import annotations

import numpy as np
import pytest

from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.errors import ModalityError
from mmms_deploy.imaging.io import load_modality
from mmms_deploy.imaging.modality import measure
from mmms_deploy.imaging.preprocess import prepare

DEPTH = ModalitySpec(name="depth", scale={"uint16": 0.001, "float32": 1.0}, invalid=(0, "nan", "inf"), fill=3.0)


def one(*values: float, dtype: str) -> np.ndarray:
    return np.array([values], dtype=dtype)[:, :, None]


def test_millimetres_and_metres_are_the_same_measurement() -> None:
    millimetres = measure(one(500, 0, 1234, dtype="uint16"), DEPTH)
    metres = measure(one(0.5, np.nan, 1.234, dtype="float32"), DEPTH)
    np.testing.assert_allclose(millimetres, one(0.5, 3.0, 1.234, dtype="float32"), rtol=1e-6)
    np.testing.assert_allclose(metres, millimetres, rtol=1e-6)
    assert millimetres.dtype == metres.dtype == np.float32


def test_dtypes_of_unknown_unit_are_refused() -> None:
    with pytest.raises(ModalityError, match=r"has dtype uint8\n  expected: uint16, float32"):
        measure(one(1, dtype="uint8"), DEPTH)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float16", "float32", "float64"])
def test_one_scale_takes_every_dtype(dtype) -> None:
    spec = ModalitySpec(name="thermal", scale=0.5)
    np.testing.assert_array_equal(measure(one(2, 200, dtype=dtype), spec), one(1, 100, dtype="float32"))


def test_invalid_values_are_found_as_stored_and_filled_in_the_unit() -> None:
    spec = ModalitySpec(name="depth", scale=0.1, invalid=(65535,), fill=-1.0, clip=(0.0, 100.0))
    np.testing.assert_allclose(measure(one(10, 65535, 2000, dtype="uint16"), spec), one(1, -1, 100, dtype="float32"))


def test_both_infinities_are_invalid_where_inf_is_declared() -> None:
    spec = ModalitySpec(name="depth", invalid=("inf",), fill=7.0)
    np.testing.assert_array_equal(
        measure(one(np.inf, 1, -np.inf, dtype="float32"), spec), one(7, 1, 7, dtype="float32")
    )
    with pytest.raises(ModalityError, match="not finite"):
        measure(one(np.nan, 1, dtype="float32"), spec)


def test_the_stored_numbers_are_not_written_to() -> None:
    stored = one(0, 5, dtype="float32")
    stored.setflags(write=False)
    assert measure(stored, DEPTH)[0, 0, 0] == 3.0


def test_not_finite_says_how_many_and_where() -> None:
    depth = np.ones((4, 5, 1), dtype=np.float32)
    depth[2, 3] = np.nan
    depth[3, 0] = np.inf
    spec = ModalitySpec(name="depth")
    with pytest.raises(ModalityError, match=r"2 of 20 values .* the first \(nan\) at x=3, y=2, channel 0"):
        measure(depth, spec)
    with pytest.raises(ModalityError, match="1 of 1 values"):
        measure(np.array([[[1e300]]]), spec)
    with pytest.raises(ModalityError, match=r"1 of 2 values .* are scaled, the first \(3\.0.*e\+38\) at x=1"):
        measure(one(1, 3e38, dtype="float32"), ModalitySpec(name="depth", scale=10.0))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float16", "float32", "float64", "longdouble"])
def test_numbers_that_scaling_makes_infinite_are_refused_for_every_dtype(dtype) -> None:
    with pytest.raises(ModalityError, match="1 of 2 values that float32 cannot hold when they are scaled"):
        measure(one(0, 100, dtype=dtype), ModalitySpec(name="depth", scale=1e37))


def test_bounds_are_applied_before_a_number_is_called_too_large() -> None:
    spec = ModalitySpec(name="depth", scale=10.0, clip=(0.0, 80.0))
    np.testing.assert_array_equal(
        measure(one(1, 1e300, -1e300, dtype="float64"), spec), one(10, 80, 0, dtype="float32")
    )
    with pytest.raises(ModalityError, match="not finite"):
        measure(one(1, np.inf, dtype="float64"), spec)


@pytest.mark.parametrize("value", [1e20, 3.4e38])
def test_numbers_whose_square_overflows_are_refused_when_they_are_normalised(value) -> None:
    spec = ModalitySpec(name="depth", mean=(1.0,), std=(0.001,))
    map_ = np.full((8, 9, 1), 2.0, dtype=np.float32)
    assert prepare(measure(map_, spec), spec, (4, 4)).max() == pytest.approx(1000)
    map_[3:6, 3:6] = value
    with pytest.raises(ModalityError, match="standard deviations from the mean"):
        prepare(measure(map_, spec), spec, (4, 4))


def hiding(*values: float, dtype: str = "float32") -> np.ma.MaskedArray:
    """Return one row of numbers, of which the first is hidden."""
    return np.ma.MaskedArray(one(*values, dtype=dtype), mask=np.arange(len(values))[None, :, None] == 0)


@pytest.mark.parametrize("number", [np.nan, np.inf, 5.0, 1e38])
def test_what_a_masked_array_hides_is_filled_as_the_bundle_says(number) -> None:
    stored = load_modality(hiding(number, 1, 0), "depth")
    measured = measure(stored, DEPTH)
    assert type(measured) is np.ndarray
    np.testing.assert_array_equal(measured, one(3, 1, 3, dtype="float32"))
    with pytest.raises(ModalityError, match=r"masked array that hides 1 of 3 values[\s\S]*no value invalid"):
        measure(stored, ModalitySpec(name="depth"))


def test_a_masked_array_that_hides_nothing_is_an_array() -> None:
    for mask in (False, np.zeros((1, 3, 1), bool)):
        measured = measure(np.ma.MaskedArray(one(1, 2, 3, dtype="float32"), mask=mask), ModalitySpec(name="depth"))
        assert type(measured) is np.ndarray
        np.testing.assert_array_equal(measured, one(1, 2, 3, dtype="float32"))
    with pytest.raises(ModalityError, match="not finite"):
        measure(np.ma.MaskedArray(one(1, np.nan, dtype="float32")), ModalitySpec(name="depth"))


def test_hidden_numbers_follow_the_channels() -> None:
    repeated = measure(hiding(5, 1), ModalitySpec(name="depth", channels=3, repeat=True, invalid=(0,), fill=9.0))
    np.testing.assert_array_equal(repeated, np.repeat(one(9, 1, dtype="float32"), 3, axis=2))
    colour = np.ma.MaskedArray(np.repeat(one(5, 1, dtype="float32"), 3, axis=2), mask=False)
    colour[0, 0, 1] = 77
    colour[0, 0, 1] = np.ma.masked
    single = measure(colour, ModalitySpec(name="depth", invalid=(0,), fill=9.0))
    np.testing.assert_array_equal(single, one(9, 1, dtype="float32"))


def test_a_grey_picture_in_colour_is_one_channel() -> None:
    grey = np.random.default_rng(0).random((3, 4, 1)).astype(np.float32)
    grey[0, 0] = np.nan
    spec = ModalitySpec(name="depth", invalid=("nan",))
    np.testing.assert_array_equal(measure(np.repeat(grey, 3, axis=2), spec), measure(grey, spec))
    colour = np.repeat(grey, 3, axis=2)
    colour[1, 1, 2] += 1
    with pytest.raises(ModalityError, match="has 3 channels"):
        measure(colour, spec)


def test_one_channel_is_repeated_where_the_checkpoint_says_so() -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    repeated = measure(grey, ModalitySpec(name="depth", channels=3, repeat=True))
    np.testing.assert_array_equal(repeated, np.repeat(grey, 3, axis=2))
    with pytest.raises(ModalityError, match="has 1 channel ") as caught:
        measure(grey, ModalitySpec(name="depth", channels=3))
    assert "np.repeat" in str(caught.value.fix)


def test_channels_first_says_so() -> None:
    with pytest.raises(ModalityError) as caught:
        measure(np.zeros((3, 8, 9)), ModalitySpec(name="lidar", channels=3))
    assert "channels last" in str(caught.value.fix)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": 0.0},
        {"scale": float("nan")},
        {"scale": {"uint64": 1.0}},
        {"scale": {}},
        {"fill": float("inf")},
        {"invalid": (float("nan"),)},
        {"clip": (1.0, 1.0)},
        {"name": "present"},
    ],
)
def test_impossible_specs(wrong) -> None:
    with pytest.raises(ValueError, match="modality"):
        ModalitySpec(**{"name": "depth", **wrong})
