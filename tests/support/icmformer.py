"""Narrow iCMFormers, their official files, and the networks computed with all the work that the released code does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmms_deploy.models.config import SwinConfig, ViTConfig
from mmms_deploy.models.cross_modality import CrossAttention, CrossBlock
from mmms_deploy.models.icmformer import ICMFormer
from mmms_deploy.models.icmformer_config import ICMFormerConfig
from mmms_deploy.models.icmformer_swin import ICMFormerSwin
from mmms_deploy.models.icmformer_vit import ICMFormerViT
from mmms_deploy.models.segformer import as_map
from mmms_deploy.models.swin import relative_position_index
from tests.support.official import head_params, vit_params

NARROW_SWIN = SwinConfig(width=8, depths=(2, 2, 2, 1), heads=(1, 2, 4, 8), window=4)
NARROW_VIT = ViTConfig(dim=24, depth=8, heads=3)


def tiny_icmformer(kind: str, **fields: Any) -> ICMFormerConfig:
    """A narrow network: ``swin`` at 72 x 104, whose maps fit no window, or ``vit`` at 64 x 96."""
    settings: dict[str, Any] = {"head_width": 8}
    if kind == "swin":
        settings |= {"size": (72, 104), "swin": NARROW_SWIN, "cross_depth": 2}
    else:
        settings |= {"size": (64, 96), "vit": NARROW_VIT, "neck_widths": (8, 8, 16, 16)}
    return ICMFormerConfig(**(settings | fields))


def unread_state(network: ICMFormer, seed: int = 0) -> dict[str, Tensor]:
    """What an official file holds beside the weights that run: layers without effect, and a Swin's indices."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return 0.1 * torch.randn(*shape, generator=generator)

    state: dict[str, Tensor] = {}
    width = network.config.head_width
    for name in ("up_conv1", "up_conv2"):
        out = width // 2
        state |= {f"head.{name}.0.weight": random(width, out, 2, 2), f"head.{name}.2.weight": random(out, out, 1, 1)}
        state |= {f"head.{name}.{n}.{kind}": random(out) for n in (1, 3) for kind in ("weight", "bias")}
        state |= {f"head.{name}.{n}.bias": random(out) for n in (0, 2)}
        width = out
    if isinstance(network, ICMFormerSwin):
        swin = network.config.swin or SwinConfig()
        embed = {n: t.clone() for n, t in network.backbone.patch_embed.state_dict().items()}
        state |= {f"backbone.patch_embed_coords.{name}": tensor for name, tensor in embed.items()}
        for stage, depth in enumerate(swin.depths):
            for block in range(depth):
                index = relative_position_index(swin.window)
                state[f"backbone.layers.{stage}.blocks.{block}.attn.relative_position_index"] = index
        return state
    dim = (network.config.vit or ViTConfig()).dim
    state |= {"backbone.cls_token": random(1, 1, dim), "backbone.head.weight": random(10, dim)}
    state |= {name: random(dim) for name in ("backbone.fc_norm.weight", "backbone.fc_norm.bias")}
    return state | {"backbone.head.bias": random(10)}


def official_values(config: ICMFormerConfig, loss: object = None) -> dict[str, Any]:
    """The parameters that the official software stores beside the weights."""
    values: dict[str, Any] = {"use_disks": True, "norm_radius": 5, "with_prev_mask": True}
    widths = config.neck_widths if config.swin is None else [config.swin.width << number for number in range(4)]
    values["head_params"] = head_params(widths, config.head_width, loss)
    if config.swin is not None:
        values["backbone_params"] = {
            "pretrain_img_size": config.size[0],
            "patch_size": 4,
            "in_chans": 3,
            "in_coord_chans": 3,
            "embed_dim": config.swin.width,
            "depths": list(config.swin.depths),
            "num_heads": list(config.swin.heads),
            "window_size": config.swin.window,
            "mlp_ratio": config.swin.mlp_ratio,
            "qkv_bias": True,
        }
        return values
    vit = config.vit or ViTConfig()
    values["backbone_params"] = vit_params(
        config.size, dim=vit.dim, depth=vit.depth, heads=vit.heads, patch=vit.patch, ratio=int(vit.mlp_ratio)
    )
    values["neck_params"] = {"in_dim": vit.dim, "out_dims": list(config.neck_widths)}
    return values | {"random_split": False}


# --- as the released code computes it ---------------------------------------------------------------------------------


def written_attention(weights: Any, query: Tensor, source: Tensor) -> Tensor:
    """Attention that computes queries, keys and values of both arguments, and throws half of them away."""
    heads = weights.heads if isinstance(weights, CrossAttention) else weights.num_heads
    own, other = (F.linear(x, weights.qkv.weight, weights.qkv.bias).chunk(3, dim=2) for x in (query, source))
    q, k, v = (y.unflatten(2, (heads, -1)).transpose(1, 2) for y in (own[0], other[1], other[2]))
    scores = torch.softmax(q * q.shape[3] ** -0.5 @ k.transpose(2, 3), dim=3)
    out: Tensor = weights.proj((scores @ v).transpose(1, 2).flatten(2))
    return out


def written_block(block: CrossBlock, clicks: Tensor, image: Tensor) -> Tensor:
    """A cross-modality block whose self-attention takes the clicks as query and as source."""
    clicks = clicks + written_attention(block.attn1, block.norm1(clicks), block.norm1(clicks))
    clicks = clicks + written_attention(block.attn2, block.norm2(clicks), block.norm2(image))
    out: Tensor = clicks + block.mlp(block.norm3(clicks))
    return out


def as_written(network: ICMFormer, rgb: Tensor, interaction: Tensor) -> Tensor:
    """Logits of a click, with image and clicks through everything at every click; (B, 1, H, W)."""
    if isinstance(network, ICMFormerSwin):
        return network.enlarge_logits(_written_swin(network, rgb, interaction))
    assert isinstance(network, ICMFormerViT)
    return network.enlarge_logits(_written_vit(network, rgb, interaction))


def _written_vit(network: ICMFormerViT, rgb: Tensor, interaction: Tensor) -> Tensor:
    vit = network.backbone
    x = vit.patch_embed(rgb) + vit.pos_embed[:, 1:]
    y = network.patch_embed_coords(interaction) + vit.pos_embed[:, 1:]
    half, period = len(vit.blocks) // 2, vit.period

    def run(block: Any, number: int, *streams: Tensor) -> list[Tensor]:
        inside = number % period != 0
        grouped = [vit.into_windows(z) if inside else z for z in streams]
        return [vit.out_of_windows(z) if inside else z for z in block(*grouped)]

    for number, block in enumerate(vit.blocks[:half], start=1):
        x, y = run(lambda a, b, block=block: (block(a), block(b)), number, x, y)
    for number, block in enumerate(network.cross_blocks(), start=1):
        x, y = run(lambda a, b, block=block: (a, written_block(block, b, a)), number, x, y)
    x = x + y
    for number, block in enumerate(vit.blocks[half:], start=half + 1):
        (x,) = run(lambda a, block=block: (block(a),), number, x)
    logits: Tensor = network.head(network.neck(as_map(x, *vit.grid), ()))
    return logits


def _written_swin(network: ICMFormerSwin, rgb: Tensor, interaction: Tensor) -> Tensor:
    swin = network.backbone
    x, y = swin.patch_embed(rgb), swin.patch_embed(interaction)
    z, maps = x + y, []
    for number in range(2):
        x, y, z = (swin.stage(number)(stream) for stream in (x, y, z))
        maps.append(swin.output(number, z))
        x, y, z = (swin.merged(number, stream) for stream in (x, y, z))
    shape = x.shape
    image, clicks = x.flatten(1, 2), y.flatten(1, 2)
    for block in network.cross_blocks():
        clicks = written_block(block, clicks, image)
    x = (image + clicks).reshape(shape)
    for number in range(2, 4):
        x = swin.stage(number)(x)
        maps.append(swin.output(number, x))
        x = swin.merged(number, x)
    logits: Tensor = network.head(tuple(maps))
    return logits
