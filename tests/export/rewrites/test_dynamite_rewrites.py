"""The rewrites of DynaMITe against the network in the paper's form."""

from __future__ import annotations

import pytest
import torch

from mmms_deploy.bundle import Precision
from mmms_deploy.export.half.gate import cosine
from mmms_deploy.export.half.network import half_network
from mmms_deploy.export.listed import ListedNetwork
from mmms_deploy.export.rewrites import EVERY, NAMES, names_for
from mmms_deploy.export.rewrites.deploy import deploy_form
from mmms_deploy.models.masked_attention import Attention, FoldedAttention, FoldedValues
from tests.support.dynamite import Click, click_list, random_dynamite

OWN = {
    "swin": ("fold_swin_attention", "fold_pixel_attention"),
    "mit": ("plain_attention", "fold_attention", "split_queries", "ffn_as_convs", "fold_pixel_attention"),
}
CLICKS: list[Click] = [(30.5, 20.25, 0, 1), (5.0, 3.0, 1, 0), (50.0, 30.0, 2, 2)]


def picture() -> torch.Tensor:
    return torch.randn(1, 3, 40, 60, generator=torch.Generator().manual_seed(0))


def test_these_are_its_rewrites() -> None:
    assert set(names_for("dynamite")) == {name for names in OWN.values() for name in names}


@pytest.mark.parametrize("kind", OWN)
@pytest.mark.parametrize("left_out", [None, "fold_pixel_attention", EVERY])
@torch.no_grad()
def test_the_answers_are_the_same(kind, left_out) -> None:
    """For a list that is folded, and for one with too many rows."""
    network = random_dynamite(kind, heads=2)
    skip = set() if left_out is None else {left_out}
    deployed, applied = deploy_form(network, skip)
    assert applied == tuple(name for name in OWN[kind] if left_out != EVERY and name not in skip)
    for rows in (None, 40):
        clicks = click_list(CLICKS, rows)
        found, expected = deployed(picture(), clicks), network(picture(), clicks)
        told = [*range(len(CLICKS)), -2, -1]
        torch.testing.assert_close(found[:, told], expected[:, told], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", OWN["mit"])
def test_each_alone_finds_something(name) -> None:
    needs = {"fold_attention": "plain_attention", "split_queries": "plain_attention"}
    _, applied = deploy_form(random_dynamite("mit"), set(NAMES) - {name, needs.get(name)})
    assert name in applied


def test_which_lists_are_folded() -> None:
    """Up to 31 keys with 2 heads and 32 channels; weights are shared by both forms."""
    deployed, _ = deploy_form(random_dynamite("mit", heads=2))
    first, *rest = deployed.sem_seg_head.interactive_transformer.decoder.cross_attention_layers
    for layer, form in ((first, FoldedValues), *((layer, FoldedAttention) for layer in rest)):
        assert type(layer.multihead_attn.form(31)) is form
        assert type(layer.multihead_attn.form(32)) is Attention


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
@torch.no_grad()
def test_half_precision_keeps_places(precision) -> None:
    """Maps that are sampled, and the list, are float32; logits leave as float32, and are close."""
    paper = random_dynamite("mit", heads=2)
    half = half_network(deploy_form(paper)[0], paper, precision, ())
    assert isinstance(half, ListedNetwork)
    assert half.rates().keys() == {"rgb", "click_list"}
    features = half.network.features(picture())
    types = dict(zip(half.network.feature_names, (feature.dtype for feature in features), strict=True))
    assert {name for name, dtype in types.items() if dtype is torch.float32} == {"level_32", "level_16", "level_8"}
    (found,) = half.answered(features, {"click_list": click_list(CLICKS)})
    expected = paper.coarse_logits(paper.features(picture()), click_list(CLICKS))
    assert found.dtype is torch.float32
    assert cosine(found.numpy(), expected.numpy()) > 0.995
