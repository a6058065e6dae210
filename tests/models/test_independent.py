"""Backbones, MiT and the all-MLP head against transformers' own, with the same weights.

The quick tests are narrow and in float64, where two orders of summing differ by 1e-13 and any other epsilon, kernel or
index shows. The slow ones are of full size in float32, and print the differences.
"""

from __future__ import annotations

import gc
import math
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmms_deploy.models import MMMS, EncoderConfig
from mmms_deploy.models.backbone import Backbone
from mmms_deploy.models.checkpoint import load_weights, read_checkpoint_file, release_state
from mmms_deploy.models.segformer import MixVisionTransformer, SegFormerHead
from tests.support.independent import renamed, split_qkv, transformers_maps
from tests.support.releases import FULL, TINY, Size, Weights, release_file, weights_of
from tests.support.tiny import tiny_config

transformers = pytest.importorskip("transformers", minversion="5.23")

NAMES = list(TINY)
EXACT = 1e-9
"""On values of about 1, in float64."""
FLOAT32 = 1e-4
"""Largest difference over largest value, in float32."""


def loaded(name: str, size: Size, image: tuple[int, int], folder) -> Backbone:
    """A backbone from its official file, as ``--backbone-ckpt`` would load it."""
    config = tiny_config(backbone=size.config(name), size=image)
    network = MMMS(config).eval()
    rest = {n: t for n, t in release_state(network).items() if not n.startswith("backbone.")}
    torch.save(rest, folder / "rest.pt")
    torch.save(release_file(name, size), folder / "release.pth")
    load_weights(network, read_checkpoint_file(folder / "rest.pt"), read_checkpoint_file(folder / "release.pth"))
    return network.backbone


def picture(image: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(1, 3, *image, generator=torch.Generator().manual_seed(1), dtype=dtype)


@torch.no_grad()
def expected_maps(name: str, size: Size, rgb: torch.Tensor, blocks) -> list[torch.Tensor]:
    """Return the maps of transformers' network, resized for SAM as the paper says."""
    weights = {n: t.to(rgb.dtype) for n, t in weights_of(name, release_file(name, size)).items()}
    if name != "sam_b16":
        return transformers_maps(name, size, weights, rgb, blocks)
    side, grid = size.grid * size.patch, (rgb.shape[2] // size.patch, rgb.shape[3] // size.patch)
    enlarged = F.interpolate(rgb, size=(side, side), mode="bilinear", align_corners=False)
    maps = transformers_maps(name, size, weights, enlarged, blocks)
    return [F.interpolate(x, size=grid, mode="bilinear", align_corners=False) for x in maps]


@torch.no_grad()
@pytest.mark.parametrize("image", [(64, 64), (32, 96)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_backbones(name, image, tmp_path) -> None:
    """From the file to F^(1..4), position tables resampled on the way."""
    backbone = loaded(name, TINY[name], image, tmp_path).double()
    rgb = picture(image, torch.float64)
    wanted = expected_maps(name, TINY[name], rgb, backbone.blocks)
    # Loading resamples tables, and adds DINOv2's class token to its position, in float32.
    limit = EXACT if name == "sam_b16" else 1e-5
    for ours, theirs in zip(backbone(rgb), wanted, strict=True):
        assert ours.std() > 0.1
        torch.testing.assert_close(ours, theirs, rtol=0, atol=limit)


@torch.no_grad()
@pytest.mark.parametrize("name", ["mae_b16", "ijepa_h16"])
def test_backbones_at_their_own_grid(name, tmp_path) -> None:
    """Nothing is resampled, so nothing is rounded."""
    size = Size(grid=8)
    backbone = loaded(name, size, (64, 64), tmp_path).double()
    rgb = picture((64, 64), torch.float64)
    for ours, theirs in zip(backbone(rgb), expected_maps(name, size, rgb, backbone.blocks), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=EXACT)


def random_weights(module: nn.Module, seed: int) -> None:
    """Give every parameter and statistic a random value of a size that keeps activations near 1."""
    weights = Weights(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.ndim > 1:
                tensor.copy_(weights.normal(*tensor.shape, std=tensor[0].numel() ** -0.5))
            elif name.endswith("running_var"):
                tensor.copy_(weights.normal(*tensor.shape).abs() + 0.5)
            elif tensor.is_floating_point():
                one = name.endswith("weight")
                tensor.copy_(weights.normal(*tensor.shape, std=0.2, mean=1.0 if one else 0.0))


MIT = [
    (r"^patch_embed(\d)\.proj\.", r"stages.\1.patch_embeddings.proj."),
    (r"^patch_embed(\d)\.norm\.", r"stages.\1.patch_embeddings.layer_norm."),
    (r"^block(\d)\.", r"stages.\1.blocks."),
    (r"^norm(\d)\.", r"stages.\1.layer_norm."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.sr\.", ".attention.sequence_reduction.sequence_reduction."),
    (r"\.attn\.norm\.", ".attention.sequence_reduction.layer_norm."),
    (r"\.attn\.q\.", ".attention.q_proj."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.attn\.", ".attention."),
]
HEAD = [
    (r"^linear_c(\d)\.proj\.", r"linear_projections.\1.proj."),
    (r"^linear_fuse\.conv\.", "linear_fuse."),
    (r"^linear_fuse\.bn\.", "batch_norm."),
    (r"^linear_pred\.", "classifier."),
]


def from_zero(state: dict[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    """SegFormer counts stages from one, transformers from zero."""
    return {re.sub(rf"^{part}\.(\d)", lambda m: f"{part}.{int(m[1]) - 1}", name): t for name, t in state.items()}


def segformers(widths, config: EncoderConfig, channels: int, head_width: int, dtype: torch.dtype):
    """Encoder and head of ours and of transformers, with the same random weights."""
    encoder, head = MixVisionTransformer(channels, widths, config).eval(), SegFormerHead(widths, head_width).eval()
    random_weights(encoder, 0)
    random_weights(head, 1)
    described = transformers.SegformerConfig(
        num_channels=channels,
        num_labels=1,
        depths=list(config.depths),
        hidden_sizes=list(widths),
        num_attention_heads=list(config.heads),
        sr_ratios=list(config.reductions),
        mlp_ratios=[config.mlp_ratio] * 4,
        decoder_hidden_size=head_width,
    )
    theirs = transformers.SegformerForSemanticSegmentation(described).eval()
    theirs.segformer.load_state_dict(from_zero(renamed(split_qkv(encoder.state_dict()), MIT), "stages"))
    theirs.decode_head.load_state_dict(from_zero(renamed(head.state_dict(), HEAD), "linear_projections"))
    for name, module in theirs.named_modules():
        # The official release's epsilon; transformers leaves torch's there.
        if isinstance(module, nn.LayerNorm) and re.search(r"layernorm_(before|after)$|stages\.\d\.layer_norm$", name):
            module.eps = 1e-6
    return encoder.to(dtype), head.to(dtype), theirs.to(dtype)


@torch.no_grad()
def compare_segformer(widths, config, head_width: int, image: tuple[int, int], channels: int, dtype) -> float:
    """Largest difference of the encoder's maps and the head's logits, over the largest value."""
    encoder, head, theirs = segformers(widths, config, channels, head_width, dtype)
    x = torch.randn(1, channels, *image, generator=torch.Generator().manual_seed(2), dtype=dtype)
    maps, caught = encoder(x), []
    for stage in theirs.segformer.stages:
        stage.layer_norm.register_forward_hook(lambda module, inputs, output: caught.append(output))
    logits = theirs(x).logits
    worst = relative(head(maps), logits)
    assert len(caught) == 4
    for ours, tokens in zip(maps, caught, strict=True):
        shaped = tokens if tokens.ndim == 4 else tokens.transpose(1, 2).reshape(ours.shape)
        worst = max(worst, relative(ours, shaped))
    return worst


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("image", [(64, 96), (128, 64)], ids=str)
def test_mit_and_the_head(image) -> None:
    config = EncoderConfig(depths=(1, 2, 1, 1), heads=(1, 2, 2, 4))
    assert compare_segformer((8, 16, 16, 32), config, 16, image, 2, torch.float64) < EXACT


@pytest.mark.slow
def test_mit_b1_and_the_head_at_full_size() -> None:
    worst = compare_segformer((64, 128, 320, 512), EncoderConfig(), 256, (448, 448), 3, torch.float32)
    print(f"MiT-B1 and head: {worst:.1e}")
    assert worst < FLOAT32


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_backbones_at_full_size(name) -> None:
    """448 x 448; both share the weights' memory, 2.5 GB for I-JEPA."""
    size = FULL[name]
    weights = weights_of(name, release_file(name, size))
    rgb = picture((448, 448), torch.float32)
    with torch.device("meta"):
        backbone = Backbone(size.config(name), rgb.shape[2:]).eval()
    state = backbone.names.clean(dict(weights))
    backbone.vit.load_state_dict(
        backbone.names.to_timm(state, backbone.vit), strict=name == "dinov2_b14_reg", assign=True
    )
    assert not any(parameter.is_meta for parameter in backbone.parameters())
    ours = backbone(rgb)
    del backbone, state
    gc.collect()
    wanted = expected_maps(name, size, rgb, [size.depth * k // 4 - 1 for k in (1, 2, 3, 4)])
    assert [tuple(x.shape) for x in ours] == [(1, size.dim, 448 // size.patch, 448 // size.patch)] * 4
    found = [relative(x, y) for x, y in zip(ours, wanted, strict=True)]
    print(f"{name}: {', '.join(f'{value:.1e}' for value in found)}, at {math.prod(rgb.shape[2:])} pixels")
    assert max(found) < FLOAT32
