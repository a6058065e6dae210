"""SimpleClick against the numbers of the official software."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mmms_deploy.export.reference import TorchReference
from mmms_deploy.models.config import SimpleClickConfig, ViTConfig
from mmms_deploy.models.simpleclick import SimpleClick
from tests.support.families import GoldenFile, probe

CONFIGS = {
    "simpleclick-xtiny": SimpleClickConfig(
        vit=ViTConfig(dim=160, depth=8, heads=4), neck_widths=(96, 192, 288, 384), head_width=128
    ),
    "simpleclick-base": SimpleClickConfig(),
}
TOLERANCE = 2e-4


@pytest.mark.parametrize("name", ["simpleclick-xtiny", pytest.param("simpleclick-base", marks=pytest.mark.slow)])
def test_official_numbers(name: str) -> None:
    golden = GoldenFile(name)
    network = SimpleClick(CONFIGS[name]).eval()
    weights = {key: torch.from_numpy(value) for key, value in golden.weights().items()}
    network.load_state_dict({key: weights[key] for key in network.state_dict()})
    reference = TorchReference(network)
    reference.set_image(golden.image(), {})
    low: list[Any] = []
    network.head.register_forward_hook(lambda *call: low.append(call[2].numpy()))
    for number, (y, x, positive) in enumerate(golden.meta["clicks"]):
        answer = reference.click(x, y, bool(positive))
        expected = golden.arrays[f"logits_low{number}"]
        np.testing.assert_allclose(low[-1].reshape(expected.shape), expected, rtol=0, atol=TOLERANCE)
        expected = golden.arrays[f"logits.probe{number}"]
        np.testing.assert_allclose(probe(answer.logits.numpy(), expected.size), expected, rtol=0, atol=TOLERANCE)
        mask = np.unpackbits(golden.arrays[f"mask{number}"], count=answer.mask.size).reshape(answer.mask.shape)
        assert (answer.mask != mask).sum() <= 2
