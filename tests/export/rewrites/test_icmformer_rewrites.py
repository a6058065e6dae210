"""The rewrites of iCMFormer and of Swin Transformers against the network in the paper's form."""

from __future__ import annotations

import pytest
import torch

from mmms_deploy.export.rewrites import EVERY, names_for
from mmms_deploy.export.rewrites.deploy import deploy_form
from mmms_deploy.models.checkpoint import random_network
from mmms_deploy.models.network import InteractiveNetwork
from tests.support.icmformer import tiny_icmformer
from tests.support.prepared import logits, pixels

MINE = names_for("icmformer")
LIMIT = 1e-5
WORKING = {
    "swin": {"matrix_resize", "split_fusion", "fold_cross_attention", "fold_swin_attention", "fold_vit_attention"},
    "vit": {
        *("matrix_resize", "split_fusion", "pixel_shuffle", "fold_cross_attention", "fold_vit_attention"),
        "fold_normalisation",
    },
}
"""What finds something to do."""


def eventful(kind: str) -> InteractiveNetwork:
    """A random network whose norms, biases and tables are far from the identity, and no two alike."""
    network = random_network(tiny_icmformer(kind), 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1 or name.endswith("bias_table"):
                low, high = (0.5, 1.0) if name.endswith("weight") else (-0.3, 0.3)
                parameter.add_(low + (high - low) * torch.rand(parameter.shape, generator=generator))
    return network


@pytest.fixture(scope="module", params=list(WORKING))
def case(request):
    network = eventful(request.param)
    inputs = pixels(network.config, batch=2)
    expected = logits(network, inputs)
    assert expected.std() > 0.05
    return request.param, network, inputs, expected


@pytest.mark.parametrize("name", MINE)
def test_one_rewrite(case, name) -> None:
    kind, network, inputs, expected = case
    deployed, applied = deploy_form(network, set(MINE) - {name})
    assert (name in applied) == (name in WORKING[kind])
    torch.testing.assert_close(logits(deployed, inputs), expected, rtol=0, atol=LIMIT)


@pytest.mark.parametrize("name", MINE)
def test_all_but_one(case, name) -> None:
    _, network, inputs, expected = case
    deployed, applied = deploy_form(network, {name})
    assert name not in applied
    torch.testing.assert_close(logits(deployed, inputs), expected, rtol=0, atol=LIMIT)


def test_all(case) -> None:
    kind, network, inputs, expected = case
    deployed, applied = deploy_form(network)
    assert set(applied) == WORKING[kind]
    torch.testing.assert_close(logits(deployed, inputs), expected, rtol=0, atol=LIMIT)


def test_none(case) -> None:
    _, network, inputs, expected = case
    deployed, applied = deploy_form(network, {EVERY})
    assert applied == ()
    assert torch.equal(logits(deployed, inputs), expected)
