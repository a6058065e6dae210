from __future__ import annotations

import numpy as np
import pytest

from mmms_deploy.bundle.contract import ImageSpec, ModalitySpec, ResizeRule
from mmms_deploy.errors import ModalityError
from mmms_deploy.imaging.preprocess import load_modalities, prepare

IMAGE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
DEPTH = ModalitySpec(name="depth")
EVENT = ModalitySpec(name="event", channels=3)


@pytest.mark.parametrize("rule", [ResizeRule(), ResizeRule(antialias=True), ResizeRule(align_corners=True)])
def test_equals_torch(rule: ResizeRule) -> None:
    torch = pytest.importorskip("torch")
    spec = ImageSpec(resize=rule)
    tensor = torch.from_numpy(IMAGE).permute(2, 0, 1)[None].double()
    resized = torch.nn.functional.interpolate(
        tensor, (64, 96), mode="bilinear", align_corners=rule.align_corners, antialias=rule.antialias
    )
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
    expected = ((resized * spec.scale - mean) / std).numpy()
    ours = prepare(IMAGE, spec, (64, 96))
    assert ours.shape == (1, 3, 64, 96)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_modalities_are_normalised_in_their_unit() -> None:
    spec = ModalitySpec(name="depth", scale=0.001, mean=(2.0,), std=(4.0,))
    metres = load_modalities({"depth": np.full((30, 40, 1), 10000, dtype=np.uint16)}, (spec,), (30, 40))["depth"]
    np.testing.assert_allclose(metres, 10.0, rtol=1e-6)
    np.testing.assert_allclose(prepare(metres, spec, (64, 96)), 2.0, atol=1e-6)


def test_invalid_pixels_are_filled_before_the_resize() -> None:
    spec = ModalitySpec(name="depth", invalid=("nan",), fill=2.0)
    depth = np.full((30, 40), 2.0, dtype=np.float32)
    depth[5:9, 5:9] = np.nan
    # A mean of equal numbers is exact only to some float32 roundings: every BLAS kernel adds up a matrix product in its
    # own order, fused or not. A mean of 8 rows, then of 9 columns, with rounded weights, takes fewer than 20 roundings.
    exact = {"rtol": 20 * np.finfo(np.float32).eps / 2}
    np.testing.assert_allclose(
        prepare(load_modalities({"depth": depth}, (spec,), (30, 40))["depth"], spec, (8, 8)), 2, **exact
    )
    # Where the fill differs from the rest of the map, the two mix at the hole; a fill after the resize cannot mix them.
    filled = np.where(np.isnan(depth), 2.0, 1.0)[:, :, None]
    mixed = prepare(load_modalities({"depth": depth - 1}, (spec,), (30, 40))["depth"], spec, (8, 8))
    np.testing.assert_allclose(mixed, prepare(filled, spec, (8, 8)), **exact)
    assert ((mixed > 1.01) & (mixed < 1.99)).any()


def test_modalities_are_loaded_in_the_order_of_the_bundle() -> None:
    given = {"event": np.zeros((30, 40, 3)), "depth": np.zeros((30, 40))}
    loaded = load_modalities(given, (DEPTH, EVENT), (30, 40))
    assert {name: array.shape for name, array in loaded.items()} == {"depth": (30, 40, 1), "event": (30, 40, 3)}
    assert list(loaded) == ["depth", "event"]


def test_other_size() -> None:
    with pytest.raises(ModalityError, match=r"31 rows and 40 columns\n  expected: 30 rows and 40 columns"):
        load_modalities({"depth": np.zeros((31, 40))}, (DEPTH,), (30, 40))
