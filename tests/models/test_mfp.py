"""MFP against the numbers of the official software."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mmms_deploy.export.reference import TorchReference
from mmms_deploy.models.config import ViTConfig
from mmms_deploy.models.families import build_network
from mmms_deploy.models.mfp import MFPViT
from mmms_deploy.models.mfp_config import HRNetConfig, MFPConfig
from mmms_deploy.models.mfp_hrnet import MFPHRNet, ObjectContext
from mmms_deploy.models.ritm_checkpoint import without_unread
from tests.support.families import GoldenFile, probe
from tests.support.ritm import tiny_mfp

CONFIGS = {
    "mfp-tiny": MFPConfig(vit=ViTConfig(dim=96, depth=12, heads=3), neck_widths=(48, 96, 192, 384)),
    "mfp-base": MFPConfig(),
    "mfp-hrnet18": MFPConfig(hrnet=HRNetConfig()),
}
TOLERANCE = 2e-4
"""The masks' distance from a threshold moves no more than that; a window's rim adds a few pixels."""


@pytest.mark.parametrize(
    "name", ["mfp-tiny", *(pytest.param(n, marks=pytest.mark.slow) for n in ("mfp-base", "mfp-hrnet18"))]
)
def test_official_numbers(name: str) -> None:
    golden = GoldenFile(name)
    network = build_network(CONFIGS[name]).eval()
    weights = {key: torch.from_numpy(value) for key, value in golden.weights().items()}
    kept = without_unread(weights, None)
    found = network.load_state_dict(kept, strict=False)
    assert not found.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in found.missing_keys)
    reference = TorchReference(network)
    reference.set_image(golden.image(), {})
    last: Any = network.head if isinstance(network, MFPViT) else network.get_submodule("feature_extractor.cls_head")
    low: list[Any] = []
    last.register_forward_hook(lambda *call: low.append(call[2].numpy()))
    for number, (y, x, positive) in enumerate(golden.meta["clicks"]):
        answer = reference.click(x, y, bool(positive))
        assert len(low) == number + 2, "the first click runs the network twice, and later ones once"
        expected = golden.arrays[f"logits_low{number}"]
        np.testing.assert_allclose(low[-1].reshape(expected.shape), expected, rtol=0, atol=TOLERANCE)
        expected = golden.arrays[f"logits.probe{number}"]
        np.testing.assert_allclose(probe(answer.logits.numpy(), expected.size), expected, rtol=0, atol=TOLERANCE)
        mask = np.unpackbits(golden.arrays[f"mask{number}"], count=answer.mask.size).reshape(answer.mask.shape)
        assert (answer.mask != mask).sum() <= 2


def test_the_order_of_channels_is_the_contract_s() -> None:
    """The side branch finds both maps wherever they are."""
    torch.manual_seed(0)
    config = tiny_mfp()
    network = build_network(config).eval()
    clicks = config.clicks
    order = (3, 1, 2, 0)
    shuffled = tiny_mfp(
        clicks=type(clicks)(
            channels=tuple(clicks.channels[n] for n in order),
            previous=clicks.previous,
            modulation=clicks.modulation,
        )
    )
    other = build_network(shuffled).eval()
    state = network.state_dict()
    state["patch_embed_coords.proj.weight"] = state["patch_embed_coords.proj.weight"][:, list(order)]
    other.load_state_dict(state)
    rgb, interaction = torch.randn(1, 3, 64, 96), torch.rand(1, 4, 64, 96)
    with torch.no_grad():
        expected, found = network(rgb, interaction), other(rgb, interaction[:, list(order)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_one_region_is_all_that_pixels_attend_to() -> None:
    """With queries and keys as the official code has them, softmax over one region is 1 everywhere."""
    torch.manual_seed(0)
    context = ObjectContext(8, 4).eval()
    pixels, region = torch.randn(1, 8, 5, 6), torch.randn(1, 8, 1, 1)
    queries, keys = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)
    with torch.no_grad():
        scores = queries(pixels).flatten(2).transpose(1, 2) @ keys(region).flatten(2) / 2
        values = context.f_down(region).flatten(2).transpose(1, 2)
        received = context.f_up((scores.softmax(2) @ values).transpose(1, 2).reshape(1, 4, 5, 6))
        torch.testing.assert_close(context(region).expand_as(pixels), received)


def test_small_and_large_hrnets_have_their_blocks() -> None:
    small, large = (build_network(tiny_mfp("hrnet", hrnet=HRNetConfig(width=4, small=s))) for s in (True, False))
    assert isinstance(small, MFPHRNet)
    assert isinstance(large, MFPHRNet)
    assert (len(small.watched()), len(large.watched())) == (2 + 2 * (2 + 3 * 3 + 2 * 4), 4 + 4 * (2 + 4 * 3 + 3 * 4))
