"""Every rewrite, and all of them, against the network in the paper's form."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import nn

from mmms_deploy.bundle.contract import ImageSpec, ModalitySpec
from mmms_deploy.export.rewrites import EVERY, NAMES, REWRITES, names_for, remaining
from mmms_deploy.export.rewrites.deploy import FUNCTIONS, deploy_form
from mmms_deploy.models import MMMS, BackboneConfig, EncoderConfig, FuserConfig, MMMSConfig
from mmms_deploy.models.checkpoint import random_network
from tests.support.paths import ROOT
from tests.support.prepared import logits, pixels
from tests.support.tiny import DEPTH, EVENT, HIERA, tiny_config

MINE = names_for("mmms")
LIMIT = 2e-5
"""On logits of about +-5."""


def eventful(config: MMMSConfig, seed: int = 0) -> MMMS:
    """A random network whose norms, biases and statistics are far from the identity, and no two alike."""
    network = random_network(config, seed)
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.copy_(uniform(module.running_mean, -1, 1))
                module.running_var.copy_(uniform(module.running_var, 0.3, 3))
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm):
                module.weight.copy_(uniform(module.weight, 0.5, 1.5))
            if isinstance(getattr(module, "bias", None), nn.Parameter):
                module.bias.copy_(uniform(module.bias, -0.5, 0.5))
            if hasattr(module, "gamma"):
                module.gamma.copy_(uniform(module.gamma, 0.2, 2))
    return network


def only(name: str) -> set[str]:
    """Everything to skip so that one rewrite is left, with what it needs."""
    needs = {rewrite.name: rewrite.needs for rewrite in REWRITES}
    return set(NAMES) - {name, needs[name]}


SCALED = {"patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2, "init_values": 0.5}
SAM = {"patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2, "img_size": 64, "window_size": 3}
CONFIGS = {
    "modalities": tiny_config(DEPTH, EVENT),
    "rgb": tiny_config(),
    # Patches of 16: the pyramid's third map has its size already. Several heads in stage 1, one in the last.
    "scaled": tiny_config(
        backbone=BackboneConfig(name="timm:vit_tiny_patch16_224", overrides={**SCALED, "patch_size": 16}),
        csnet=EncoderConfig(heads=(2, 1, 1, 1), depths=(1, 2, 1, 1)),
        size=(64, 32),
    ),
    # Nothing to fold: no LayerScale, no attention in the fuser, pixels already as they come, no bias in the qkv linear.
    "bare": tiny_config(
        ModalitySpec(name="depth", channels=1),
        fuser=FuserConfig(encoder=EncoderConfig(heads=(1, 2, 2, 2), depths=(1, 1, 1, 1)), effca=False, mlp=False),
        backbone=BackboneConfig(name="timm:vit_tiny_patch16_224", overrides={**SCALED, "qkv_bias": False}),
        image=ImageSpec(scale=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    ),
    # A backbone whose attention normalises queries and keys is not of the kind that is folded.
    "normed": tiny_config(
        backbone=BackboneConfig(name="timm:vit_tiny_patch16_224", overrides={**SCALED, "qk_norm": True}),
    ),
    # Runs at 64 x 64 whatever the network's size: 8 x 8 tokens, padded to 9 x 9 for windows of 3 x 3; one global block.
    "sam": tiny_config(backbone=BackboneConfig(name="sam_b16", overrides=SAM)),
    # A pyramid: no ViT's blocks, no ParallelFPN, a padded patch embedding, a position map made of two tables.
    "hiera": tiny_config(DEPTH, backbone=HIERA),
}


@pytest.fixture(scope="module", params=list(CONFIGS))
def case(request):
    network = eventful(CONFIGS[request.param])
    inputs = pixels(network.config)
    expected = logits(network, inputs)
    assert expected.std() > 0.1
    return request.param, network, inputs, expected


class TestExactness:
    @pytest.mark.parametrize("name", MINE)
    def test_one_rewrite(self, case, name) -> None:
        label, network, inputs, expected = case
        deployed, applied = deploy_form(network, only(name))
        inapplicable = {
            "fold_layer_scale": {"modalities", "rgb", "sam", "hiera"},
            "fold_normalisation": {"bare", "hiera"},
            "fold_vit_attention": {"normed", "hiera"},
            "small_convolutions": {"hiera"},
            "fold_positions": set(CONFIGS) - {"hiera"},
        }
        assert (name in applied) == (label not in inapplicable.get(name, ()))
        torch.testing.assert_close(logits(deployed, inputs), expected, rtol=0, atol=LIMIT)

    def test_all_rewrites(self, case) -> None:
        _, network, inputs, expected = case
        deployed, applied = deploy_form(network)
        assert len(applied) >= len(MINE) - 4
        torch.testing.assert_close(logits(deployed, inputs), expected, rtol=0, atol=LIMIT)

    @pytest.mark.parametrize("name", MINE)
    def test_all_but_one(self, case, name) -> None:
        _, network, inputs, expected = case
        deployed, applied = deploy_form(network, {name})
        assert name not in applied
        torch.testing.assert_close(logits(deployed, inputs), expected, rtol=0, atol=LIMIT)

    def test_none(self, case) -> None:
        _, network, inputs, expected = case
        deployed, applied = deploy_form(network, {EVERY})
        assert applied == ()
        assert torch.equal(logits(deployed, inputs), expected)


def test_the_paper_form_is_left_as_it_was() -> None:
    network = eventful(tiny_config(DEPTH))
    before = copy.deepcopy(network.state_dict())
    config, structure = network.config, str(network)
    deploy_form(network)
    assert (network.config, str(network)) == (config, structure)
    assert before.keys() == network.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_weights_that_no_rewrite_changes_are_shared() -> None:
    """A copy of a backbone would be half a gigabyte."""
    network = eventful(tiny_config(DEPTH))
    own = {parameter.data_ptr() for parameter in network.parameters()}
    deployed, _ = deploy_form(network)
    new = [parameter for parameter in deployed.parameters() if parameter.data_ptr() not in own]
    assert sum(p.numel() for p in new) < 0.7 * sum(p.numel() for p in network.parameters())
    untouched, _ = deploy_form(network, {EVERY})
    assert all(parameter.data_ptr() in own for parameter in untouched.parameters())


def test_every_size_that_is_no_square_and_every_batch() -> None:
    network = eventful(tiny_config(DEPTH, size=(32, 96)))
    rgb, modalities, interaction = pixels(network.config)
    inputs = (
        torch.cat([rgb, rgb.flip(3)]),
        {name: torch.cat([x, x.flip(3)]) for name, x in modalities.items()},
        torch.cat([interaction, interaction.flip(2)]),
    )
    deployed, _ = deploy_form(network)
    torch.testing.assert_close(logits(deployed, inputs), logits(network, inputs), rtol=0, atol=LIMIT)


class TestNames:
    def test_each_has_a_function(self) -> None:
        assert tuple(FUNCTIONS) == NAMES

    def test_what_needs_a_skipped_one_is_skipped(self) -> None:
        left = remaining({"plain_attention"})
        assert not {"plain_attention", "fold_attention", "split_queries"} & set(left)
        assert len(left) == len(NAMES) - 3

    def test_all(self) -> None:
        assert remaining(()) == NAMES
        assert remaining({EVERY}) == ()

    def test_the_documentation_has_them_in_order(self) -> None:
        text = (ROOT / "docs" / "export.md").read_text().partition("\n| rewrite |")[2]
        assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(NAMES)

    def test_an_unknown_one(self) -> None:
        with pytest.raises(ValueError, match="no rewrite is named fold_heads; there are fold_head, matrix_resize"):
            remaining({"fold_heads"})


@pytest.mark.slow
@pytest.mark.parametrize("modalities", [(), (ModalitySpec(name="depth", channels=3),)], ids=["rgb", "rgb+depth"])
def test_full_size(modalities) -> None:
    """DINOv2-B14 with registers at 448 x 448."""
    network = eventful(MMMSConfig(modalities=modalities))
    inputs = pixels(network.config)
    expected = logits(network, inputs)
    for skip in ((), *map(only, MINE)):
        deployed, applied = deploy_form(network, skip)
        worst = (logits(deployed, inputs) - expected).abs().max().item()
        name = "all" if not skip else applied[-1] if applied else "none"
        print(f"{name}: {worst:.1e} on logits up to {expected.abs().max():.1f}")
        assert worst <= 1e-4
