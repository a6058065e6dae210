"""The network's parts against the paper's text, worked out independently."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mmms_deploy import models
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.errors import DescriptionError, SizeError
from mmms_deploy.models import MMMS, BackboneConfig, FuserConfig
from mmms_deploy.models.checkpoint import random_network
from mmms_deploy.models.segformer import EfficientAttention
from tests.support.tiny import DEPTH, ENCODER, EVENT, tiny_config


@torch.no_grad()
def test_pyramid_shapes_and_logits() -> None:
    network = random_network(tiny_config(DEPTH, EVENT), 0)
    images = {"depth": torch.rand(2, 1, 64, 96), "event": torch.rand(2, 3, 64, 96)}
    features = network.features(torch.rand(2, 3, 64, 96), images)
    assert [tuple(f.shape) for f in features] == [(2, 8, 16, 24), (2, 16, 8, 12), (2, 16, 4, 6), (2, 32, 2, 3)]
    assert network.respond(features, torch.zeros(2, 3, 64, 96)).shape == (2, 1, 64, 96)


@torch.no_grad()
def test_backbone_returns_raw_block_outputs_without_prefix_tokens() -> None:
    config = tiny_config(
        backbone=BackboneConfig(
            name="timm:vit_base_patch14_reg4_dinov2",
            overrides={"patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2},
        )
    )
    backbone = random_network(config, 1).backbone
    rgb = torch.rand(1, 3, 64, 96)
    vit = backbone.vit
    x = vit._pos_embed(vit.patch_embed(rgb))
    assert x.shape[1] == 5 + 8 * 12  # class token, four registers, patches
    expected = []
    for block in vit.blocks:
        x = block(x)
        expected.append(x[:, 5:].transpose(1, 2).reshape(1, 24, 8, 12))
    for value, wanted in zip(backbone(rgb), expected, strict=True):
        torch.testing.assert_close(value, wanted)


def test_blocks_default_to_quarters_of_the_depth() -> None:
    overrides = {"patch_size": 8, "embed_dim": 24, "depth": 8, "num_heads": 2}
    config = tiny_config(backbone=BackboneConfig(name="timm:vit_tiny_patch16_224", overrides=overrides))
    assert MMMS(config).backbone.blocks == (1, 3, 5, 7)  # zero-based 2, 4, 6, 8


@torch.no_grad()
def test_with_effca_and_mlp_off_features_are_added() -> None:
    config = tiny_config(DEPTH, EVENT, fuser=FuserConfig(encoder=ENCODER, effca=False, mlp=False))
    network = random_network(config, 2)
    rgb, depth, event = torch.rand(1, 3, 64, 96), torch.rand(1, 1, 64, 96), torch.rand(1, 3, 64, 96)
    pyramid = network.fpn(network.backbone(rgb))
    encoders = network.fuser.encoders
    expected = [f + d + e for f, d, e in zip(pyramid, encoders["depth"](depth), encoders["event"](event), strict=True)]
    for value, wanted in zip(network.features(rgb, {"depth": depth, "event": event}), expected, strict=True):
        torch.testing.assert_close(value, wanted)


@torch.no_grad()
def test_effca_is_softmax_attention_on_reduced_tokens() -> None:
    torch.manual_seed(0)
    attention = EfficientAttention(dim=8, heads=2, reduction=2)
    query, source = torch.randn(1, 4 * 6, 8), torch.randn(1, 4 * 6, 8)
    reduced = attention.norm(attention.sr(source.transpose(1, 2).reshape(1, 8, 4, 6)).flatten(2).transpose(1, 2))
    assert reduced.shape == (1, 6, 8)
    q, (k, v) = attention.q(query), attention.kv(reduced).split(8, dim=2)
    heads = []
    for h in (slice(0, 4), slice(4, 8)):
        weights = torch.softmax(q[..., h] @ k[..., h].transpose(1, 2) / 4**0.5, dim=2)
        heads.append(weights @ v[..., h])
    torch.testing.assert_close(attention(query, source, 4, 6), attention.proj(torch.cat(heads, dim=2)))


@torch.no_grad()
def test_head_follows_segformer() -> None:
    network = random_network(tiny_config(), 3)
    head = network.csnet.decode_head
    sizes = ((16, 24), (8, 12), (4, 6), (2, 3))
    maps = tuple(torch.randn(1, c, *s) for c, s in zip((8, 16, 16, 32), sizes, strict=True))
    scaled = []
    for linear, x in zip((head.linear_c1, head.linear_c2, head.linear_c3, head.linear_c4), maps, strict=True):
        y = torch.einsum("bchw,dc->bdhw", x, linear.proj.weight) + linear.proj.bias[None, :, None, None]
        scaled.append(F.interpolate(y, size=(16, 24), mode="bilinear"))
    fused = F.relu(head.linear_fuse.bn(head.linear_fuse.conv(torch.cat(scaled[::-1], 1))))
    torch.testing.assert_close(head(maps), head.linear_pred(fused))


@pytest.mark.parametrize("size", [(60, 96), (64, 100), (0, 64), (-64, 64)])
def test_sizes_that_do_not_fit_name_the_next_ones(size) -> None:
    with pytest.raises(SizeError, match="multiple of the patch size 8 and of 32"):
        MMMS(tiny_config(size=size))


def test_dinov2_at_a_size_that_fits_32_but_not_14() -> None:
    config = tiny_config(size=(64, 64), backbone=BackboneConfig())
    with pytest.raises(SizeError, match="multiple of the patch size 14"):
        MMMS(config)


@pytest.mark.parametrize("name", ["dinov2", "timm:no_such_vit", "timm:mixer_s16_224"])
def test_unknown_backbones(name) -> None:
    with pytest.raises(DescriptionError, match="backbone"):
        MMMS(tiny_config(backbone=BackboneConfig(name=name)))


@pytest.mark.parametrize("blocks", [(1, 2, 3, 5), (0, 1, 2, 3), (2, 1, 3, 4), (1, 1, 2, 3)])
def test_impossible_blocks(blocks) -> None:
    backbone = BackboneConfig(
        name="timm:vit_tiny_patch16_224",
        blocks=blocks,
        overrides={"patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2},
    )
    with pytest.raises(DescriptionError, match="blocks"):
        MMMS(tiny_config(backbone=backbone))


@torch.no_grad()
def test_without_its_optional_modalities_the_fuser_is_bypassed() -> None:
    specs = (ModalitySpec(name="depth", optional=True), ModalitySpec(name="event", channels=3, optional=True))
    network = random_network(tiny_config(modalities=specs), 1)
    rgb, depth = torch.randn(1, 3, 64, 96), torch.randn(1, 1, 64, 96)
    pyramid = network.fpn(network.encode(rgb))
    for bypassed, image in zip(network.features(rgb, {}), pyramid, strict=True):
        torch.testing.assert_close(bypassed, image, rtol=0, atol=0)
    # One of two: the sum goes over what is there, as if the network had been built for depth alone.
    alone = network.features(rgb, {"depth": depth})
    flags = {"depth": torch.tensor(True), "event": torch.tensor(False)}
    masked = network.mix(network.encode(rgb), {"depth": depth, "event": torch.randn(1, 3, 64, 96)}, flags)
    for a, b, image in zip(alone, masked, pyramid, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
        assert not torch.equal(a, image)


@torch.no_grad()
def test_a_required_modality_cannot_be_left_out() -> None:
    specs = (ModalitySpec(name="depth"), ModalitySpec(name="event", channels=3, optional=True))
    network = random_network(tiny_config(modalities=specs), 1)
    with pytest.raises(KeyError, match="depth"):
        network.features(torch.randn(1, 3, 64, 96), {})


def test_the_room_gives_its_names() -> None:
    for name in models.__all__:
        assert getattr(models, name).__name__ == name
