from __future__ import annotations

import numpy as np
import pytest

from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.errors import ModalityError
from mmms_deploy.imaging.modality import measure

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
    with pytest.raises(ModalityError, match=r"1 of 2 values .* when scaled, the first \(3\.0.*e\+38\) at x=1"):
        measure(one(1, 3e38, dtype="float32"), ModalitySpec(name="depth", scale=10.0))


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
