"""Rewrites of the backbone: factors, biases, LayerScale and the image's normalisation, folded into weights.

They change only modules of the classes of timm's plain ViT and SAM that are named here, and leave all others alone.
"""

from __future__ import annotations

from typing import Any

import msgspec
import torch
from timm.models.vision_transformer import Attention, Block, LayerScale, PatchEmbed
from timm.models.vision_transformer_sam import Attention as SAMAttention
from torch import Tensor, nn

from mmms_deploy.bundle.contract import ImageSpec
from mmms_deploy.export.rewrites.deployed import Deployed, linear_of, replace_modules
from mmms_deploy.models.hiera import HieraEncoder
from mmms_deploy.models.windowed_vit import PatchEmbedding


class PlainViTAttention(nn.Module):
    """A ViT's self-attention with everything between its linears and its matrix products folded into the linears.

    As in :func:`~mmms_deploy.export.rewrites.attention.fold_attention`: the factor on the scores goes into the queries'
    rows, the keys' bias is left out because softmax ignores it, the values' bias is added to the projection's.

    Args:
        attention: timm's attention, without norms and gate.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.heads: int = attention.num_heads
        self.qkv, self.proj = folded_linears(attention)

    def forward(self, x: Tensor, attn_mask: None = None, is_causal: bool = False) -> Tensor:
        """(B, N, C) -> (B, N, C); the backbone never masks."""
        q, k, v = (y.unflatten(2, (self.heads, -1)).transpose(1, 2) for y in self.qkv(x).chunk(3, dim=2))
        mixed = torch.softmax(q @ k.transpose(2, 3), dim=3) @ v
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


SCORES = 2**27
"""Bytes of float32 scores that SAM's attention computes at a time for one image or window."""


class PlainSAMAttention(nn.Module):
    """SAM's attention, folded like :class:`PlainViTAttention`, with its relative positions as constants.

    SAM adds q_ij . (R_(i - k) + C_(j - l)) to the score of the query at row i, column j and the key at row k, column l.
    Which row of the tables R and C belongs to which pair is known beforehand, so the gathered tables are constants
    here, (H, c, H) and (W, c, W), and each of the two terms is one matrix product per row or column of queries:
    1 / H + 1 / W of the multiplications of the scores. The queries here already contain the scores' factor, but SAM's
    relative positions do not use it, so the constants are divided by it (a power of two where heads are 64 wide).

    Each query's result is independent of the others, so the queries run in groups. All 4096 of them at once make 805 MB
    of scores, and engines hold several tensors of that size at a time.

    The folding stays exact where a window is padded. Padding comes after the norm, so a padded token is zero, and its
    key and value are the biases. The key's bias shifts all scores of a query by the same amount, as for every other
    key, and softmax's weights, those of padded values included, sum to one.

    Args:
        attention: timm's attention of a SAM, without norms, with relative positions.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.heads: int = attention.num_heads
        self.qkv, self.proj = folded_linears(attention)
        self.register_buffer("rows", _gathered(attention.rel_pos_h) / attention.scale)
        self.register_buffer("columns", _gathered(attention.rel_pos_w) / attention.scale)
        height, width = len(self.get_buffer("rows")), len(self.get_buffer("columns"))
        scores = 4 * self.heads * (height * width) ** 2
        self.groups: int = next(
            n for n in range(1, height + 1) if height % n == 0 and (scores <= n * SCORES or n == height)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C); B counts windows where there are some."""
        height, width = x.shape[1:3]
        q, k, v = (y.unflatten(2, (self.heads, -1)).transpose(1, 2) for y in self.qkv(x.flatten(1, 2)).chunk(3, dim=2))
        grid = q.unflatten(2, (height, width))
        by_row = (grid @ self.get_buffer("rows")).flatten(2, 3)
        by_column = (grid.transpose(2, 3) @ self.get_buffer("columns")).transpose(2, 3).flatten(2, 3)
        keys = k.transpose(2, 3)
        groups = zip(*(y.chunk(self.groups, dim=2) for y in (q, by_row, by_column)), strict=True)
        mixed = [
            torch.softmax(queries @ keys + (up.unsqueeze(4) + across.unsqueeze(3)).flatten(3), dim=3) @ v
            for queries, up, across in groups
        ]
        out: Tensor = self.proj(torch.cat(mixed, dim=2).transpose(1, 2).flatten(2)).unflatten(1, (height, width))
        return out


def folded_linears(attention: Any) -> tuple[nn.Linear, nn.Linear]:
    """Return the linear of queries, keys and values, and the projection, with the attention's factor and biases.

    Args:
        attention: A module with ``qkv``, ``proj`` and ``scale``; see :class:`PlainViTAttention` for what is folded.
    """
    q, k, v = attention.qkv.weight.chunk(3)
    weight, bias = torch.cat([q * attention.scale, k, v]), None
    projected = attention.proj.bias
    if attention.qkv.bias is not None:
        query, _, value = attention.qkv.bias.chunk(3)
        bias = torch.cat([query * attention.scale, 0 * query, 0 * query])
        passed = attention.proj.weight @ value
        projected = passed if projected is None else projected + passed
    return linear_of(weight, bias), linear_of(attention.proj.weight, projected)


def _gathered(table: Tensor) -> Tensor:
    """Return a table of relative positions (2 L - 1, c) by query and key, (L, c, L)."""
    places = torch.arange((len(table) + 1) // 2)
    return table[places[:, None] - places[None, :] + len(places) - 1].transpose(1, 2).contiguous()


def fold_vit_attention(network: Deployed) -> bool:
    """Fold the factor and two of the three biases of the backbone's attention, and SAM's relative positions.

    See :class:`PlainViTAttention` and :class:`PlainSAMAttention`.
    """

    def sam(attention: Any) -> nn.Module | None:
        positioned = attention.use_rel_pos and attention.rope is None
        return PlainSAMAttention(attention) if positioned and _normless(attention) else None

    changed = replace_modules(network.backbone, Attention, fold_plain_attention)
    return replace_modules(network.backbone, SAMAttention, sam) or changed


def fold_plain_attention(attention: Any) -> nn.Module | None:
    """Return a plain ViT's attention in its folded form, or None where it has norms or a gate."""
    return PlainViTAttention(attention) if _normless(attention) else None


def _normless(attention: Any) -> bool:
    extras = [getattr(attention, name, None) for name in ("q_norm", "k_norm", "norm", "gate")]
    return all(extra is None or isinstance(extra, nn.Identity) for extra in extras)


def fold_layer_scale(network: Deployed) -> bool:
    """Fold LayerScale into the linear before it: gamma (W x + b) = (gamma W) x + gamma b, channel by channel."""
    changed = False
    for block in network.backbone.modules():
        if type(block) is not Block:
            continue
        for name, owner, last in (("ls1", block.attn, "proj"), ("ls2", block.mlp, "fc2")):
            scale, layer = getattr(block, name), getattr(owner, last, None)
            if type(scale) is LayerScale and type(layer) is nn.Linear:
                bias = None if layer.bias is None else layer.bias * scale.gamma
                setattr(owner, last, linear_of(layer.weight * scale.gamma[:, None], bias))
                setattr(block, name, nn.Identity())
                changed = True
    return changed


def fold_positions(network: Deployed) -> bool:
    """Keep the position map of SAM 2's encoder as a constant.

    Its two tables are brought to the network's grid when it runs. Neither the tables nor the grid change.
    """
    encoder = None if network.frozen is None else network.frozen.model
    if type(encoder) is not HieraEncoder:
        return False
    encoder.fold_positions()
    return True


def fold_normalisation(network: Deployed) -> bool:
    """Fold the image's scale, mean and standard deviation into the backbone's patch embedding.

    W ((s p - m) / d) + b = (W s / d) p + (b - W m / d). That holds at the borders too because the patch embedding has
    no padding. A SAM's image is enlarged before it: bilinear interpolation is linear, and its weights sum to one at
    every pixel, those at the borders too, so the same holds for the enlarged pixels. A padded convolution reads zeros
    around the normalised image, which are not zeros of the pixels, so the modalities' encoders are left alone.
    Afterwards the network takes resized pixels, 0..255, and the manifest's ``image`` says so.
    """
    embed: Any = network.image_layer()
    plain_embedding = type(embed) is PatchEmbedding or (type(embed) is PatchEmbed and not embed.dynamic_img_pad)
    conv = embed.proj if plain_embedding else None
    image = network.config.image
    if type(conv) is not nn.Conv2d or any(conv.padding) or image.scale == 1.0 == max(image.std) == min(image.std):
        return False
    mean, std = (torch.tensor(values, dtype=torch.float64).reshape(1, 3, 1, 1) for values in (image.mean, image.std))
    weight = conv.weight.double() / std
    bias = -(weight * mean).sum((1, 2, 3)) + (0.0 if conv.bias is None else conv.bias.double())
    folded = nn.Conv2d(3, conv.out_channels, conv.kernel_size, conv.stride, device="meta")  # type: ignore[arg-type]
    folded.weight = nn.Parameter((weight * image.scale).float(), requires_grad=False)
    folded.bias = nn.Parameter(bias.float(), requires_grad=False)
    embed.proj = folded
    plain = ImageSpec(resize=image.resize, scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    network.config = msgspec.structs.replace(network.config, image=plain)
    return True
