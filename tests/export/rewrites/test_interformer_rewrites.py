"""The rewrites of InterFormer against the network in the paper's form."""

from __future__ import annotations

import pytest
import torch

from mmms_deploy.export.rewrites import EVERY, NAMES, names_for
from mmms_deploy.export.rewrites.deploy import deploy_form
from mmms_deploy.export.rewrites.interformer import LabelPlanes
from mmms_deploy.models import InterFormer
from mmms_deploy.models.checkpoint import random_network
from tests.support.interformer import tiny_interformer

OWN = ("matrix_resize", "keys_once", "label_planes")


@pytest.fixture(scope="module")
def network() -> InterFormer:
    made = random_network(tiny_interformer(refine_depths=(1, 0, 1, 0)), 0)
    assert isinstance(made, InterFormer)
    return made


def drawn(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rgb = torch.randn(1, 3, 64, 96, generator=generator)
    return rgb, torch.randint(0, 5, (1, 1, 64, 96), generator=generator).float()


def test_these_are_its_rewrites() -> None:
    assert names_for("interformer") == OWN


@pytest.mark.parametrize("skip", [*({name} for name in OWN), *(set(NAMES) - {name} for name in OWN), set(), {EVERY}])
def test_the_answers_are_the_same(network, skip) -> None:
    rgb, labels = drawn()
    deployed, applied = deploy_form(network, skip)
    assert set(applied) == set(OWN) - skip - (set(OWN) if EVERY in skip else set())
    with torch.no_grad():
        torch.testing.assert_close(deployed(rgb, labels), network(rgb, labels), atol=2e-5, rtol=1e-5)


def test_what_is_a_feature(network) -> None:
    """With the keys once an image, the pyramid's coarser maps are none."""
    rgb, _ = drawn()
    deployed, _ = deploy_form(network)
    with torch.no_grad():
        features = dict(zip(deployed.feature_names, deployed.features(rgb), strict=True))
    assert tuple(features) == ("f_4", *(f"{kind}_{scale}" for scale in (4, 8, 16, 32) for kind in ("keys", "values")))
    assert features["f_4"].shape == (1, 8, 16, 24)
    for scale, heads, width in ((4, 1, 8), (8, 2, 8), (16, 4, 4), (32, 8, 4)):
        keys, values = features[f"keys_{scale}"], features[f"values_{scale}"]
        assert keys.shape[1:3] == (heads, width)
        assert values.shape == (1, heads, keys.shape[3], width)


def test_labels_are_embedded_exactly(network) -> None:
    _, labels = drawn(1)
    planes = LabelPlanes(network.neck.patch_embed)
    with torch.no_grad():
        torch.testing.assert_close(planes(labels), network.neck.embed(labels))


def test_weights_that_no_rewrite_changes_are_shared(network) -> None:
    deployed, _ = deploy_form(network)
    assert deployed.backbone.vit.layers[0].attn.qkv.weight is network.backbone.vit.layers[0].attn.qkv.weight
    assert network.neck.embedding is None
