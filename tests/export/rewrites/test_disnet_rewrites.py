"""The rewrites of DISNet against the network in the paper's form."""

from __future__ import annotations

import pytest
import torch

from mmms_deploy.export.rewrites import EVERY, NAMES, names_for
from mmms_deploy.export.rewrites.deploy import deploy_form
from mmms_deploy.export.rewrites.disnet import FoldedClickAttention, GatheredClicks
from mmms_deploy.models.disnet_refinement import ClickSampling, MaskedClickAttention
from mmms_deploy.models.masked_attention import Attention
from tests.support.disnet import click_list, random_disnet, tiny_disnet

OWN = ("pixel_shuffle", "fold_click_attention", "gather_clicks", "fold_vit_attention", "fold_normalisation")
CLICKS = click_list((40.25, 30.5, 1), (70.0, 12.0, 0), (20.0, 50.0, 1), rows=5)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def network():
    return random_disnet(tiny_disnet())


def test_these_are_its_rewrites() -> None:
    assert names_for("disnet") == OWN


@pytest.mark.parametrize("skip", [*({name} for name in OWN), *(set(NAMES) - {name} for name in OWN), set(), {EVERY}])
def test_the_answers_are_the_same(network, skip) -> None:
    deployed, applied = deploy_form(network, skip)
    assert set(applied) == set(OWN) - skip - (set(OWN) if EVERY in skip else set())
    pixels = 255 * torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    answers = []
    for form in (deployed, network):
        spec = form.config.image
        mean, std = (torch.tensor(numbers).reshape(1, 3, 1, 1) for numbers in (spec.mean, spec.std))
        patches = form.encode((spec.scale * pixels - mean) / std)[0]
        proposals = form.propose(patches, CLICKS[:, 0])
        refined = form.answer(proposals.tokens[:, 3], proposals.features, proposals.masks[:, 3:4].sigmoid(), CLICKS)
        answers.append([*proposals, refined])
    for ours, theirs in zip(*answers, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_the_click_attention_is_folded_exactly(bias) -> None:
    torch.manual_seed(0)
    attention = MaskedClickAttention(8, 2, bias=bias).double()
    token, features = torch.randn(1, 1, 8).double(), torch.randn(1, 8, 12).double()
    decay, logs = torch.rand(2, 1, 2, 12).double().unbind(0)
    folded = FoldedClickAttention(attention)
    torch.testing.assert_close(
        folded(token, features, decay, logs.log()), attention(token, features, decay, logs.log())
    )


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_clicks_are_gathered_exactly(mode) -> None:
    """Between cells, on them, at the corners, on the edges and beyond."""
    features = torch.randn(1, 3, 4 * 6, generator=torch.Generator().manual_seed(0))
    places = torch.rand(1, 200, 2, generator=torch.Generator().manual_seed(1)) * 2.4 - 1.2
    places[0, :4] = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0], [1 / 6, 0.25]])
    sampling = ClickSampling(mode)
    torch.testing.assert_close(GatheredClicks(sampling)(features, (4, 6), places), sampling(features, (4, 6), places))


def test_weights_that_no_rewrite_changes_are_shared(network) -> None:
    deployed, _ = deploy_form(network)
    assert deployed.refine.layers[0].fc1.weight is network.refine.layers[0].fc1.weight
    assert isinstance(deployed.refine.layers[0].relation, Attention)
    assert isinstance(network.refine.layers[0].mca, MaskedClickAttention)
