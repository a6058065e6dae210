from __future__ import annotations

import numpy as np
import pytest

from mmms_deploy.contract import ImageSpec, ModalitySpec, ResizeRule
from mmms_deploy.errors import ModalityError
from mmms_deploy.preprocess import load_modalities, prepare

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


def test_modality_scaling() -> None:
    spec = ModalitySpec(name="depth", scale=0.001, mean=(2.0,), std=(4.0,))
    depth = np.full((30, 40, 1), 10000, dtype=np.uint16)
    np.testing.assert_allclose(prepare(depth, spec, (64, 96)), 2.0, atol=1e-6)


def test_modalities_are_loaded_in_the_order_of_the_bundle() -> None:
    given = {"event": np.zeros((30, 40, 3)), "depth": np.zeros((30, 40))}
    loaded = load_modalities(given, (DEPTH, EVENT), IMAGE)
    assert {name: array.shape for name, array in loaded.items()} == {"depth": (30, 40, 1), "event": (30, 40, 3)}
    assert list(loaded) == ["depth", "event"]


def test_missing_and_surplus_lists_both_sides() -> None:
    with pytest.raises(ModalityError) as caught:
        load_modalities({"thermal": IMAGE, "depth": IMAGE}, (DEPTH, EVENT), IMAGE)
    message = str(caught.value)
    assert "given: thermal, depth" in message
    assert "missing: event" in message
    assert "surplus: thermal" in message
    assert "depth, event" in str(caught.value.expected)
    assert "set_image(rgb, depth=..., event=...)" in str(caught.value.fix)


def test_surplus_for_an_rgb_bundle() -> None:
    with pytest.raises(ModalityError, match=r"takes RGB alone"):
        load_modalities({"depth": IMAGE}, (), IMAGE)


def test_other_size() -> None:
    with pytest.raises(ModalityError, match=r"31 rows and 40 columns\n  expected: 30 rows and 40 columns"):
        load_modalities({"depth": np.zeros((31, 40))}, (DEPTH,), IMAGE)
