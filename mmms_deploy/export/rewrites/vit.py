"""The backbone: what its blocks multiply and add, and how its image is normalised, folded into weights.

Only what timm's plain ViT has under the very classes named here is touched; blocks of any other kind are left alone.
"""

from __future__ import annotations

from typing import Any

import msgspec
import torch
from timm.models.vision_transformer import Attention, Block, LayerScale, PatchEmbed
from torch import Tensor, nn

from mmms_deploy.contract import ImageSpec
from mmms_deploy.export.rewrites.deployed import DeployedMMMS, linear_of, replace_modules


class PlainViTAttention(nn.Module):
    """A ViT's self-attention with everything between its linears and its matrix products folded into the linears.

    As in :func:`~mmms_deploy.export.rewrites.attention.fold_attention`: the factor on the scores goes into the
    queries' rows, the keys' bias goes because softmax does not see it, the values' joins the projection's.

    Args:
        attention: timm's attention, without norms and gate.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.heads: int = attention.num_heads
        q, k, v = attention.qkv.weight.chunk(3)
        weight, bias = torch.cat([q * attention.scale, k, v]), None
        projected = attention.proj.bias
        if attention.qkv.bias is not None:
            query, _, value = attention.qkv.bias.chunk(3)
            bias = torch.cat([query * attention.scale, 0 * query, 0 * query])
            passed = attention.proj.weight @ value
            projected = passed if projected is None else projected + passed
        self.qkv = linear_of(weight, bias)
        self.proj = linear_of(attention.proj.weight, projected)

    def forward(self, x: Tensor, attn_mask: None = None, is_causal: bool = False) -> Tensor:
        """(B, N, C) -> (B, N, C); the backbone never masks."""
        q, k, v = (y.unflatten(2, (self.heads, -1)).transpose(1, 2) for y in self.qkv(x).chunk(3, dim=2))
        mixed = torch.softmax(q @ k.transpose(2, 3), dim=3) @ v
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


def fold_vit_attention(network: DeployedMMMS) -> bool:
    """Fold the factor and two of the three biases of the backbone's attention; see :class:`PlainViTAttention`."""

    def make(attention: Any) -> nn.Module | None:
        extras = [getattr(attention, name, None) for name in ("q_norm", "k_norm", "norm", "gate")]
        plain = all(extra is None or isinstance(extra, nn.Identity) for extra in extras)
        return PlainViTAttention(attention) if plain else None

    return replace_modules(network.backbone, Attention, make)


def fold_layer_scale(network: DeployedMMMS) -> bool:
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


def fold_normalisation(network: DeployedMMMS) -> bool:
    """Fold the image's scale, mean and standard deviation into the backbone's patch embedding.

    W ((s p - m) / d) + b = (W s / d) p + (b - W m / d). That holds at the borders too because the patch embedding has
    no padding. A padded convolution sees zeros around the normalised image, which are not zeros of the pixels, so the
    modalities' encoders are left alone. Afterwards the network takes resized pixels, 0..255, and the bundle says so.
    """
    embed: Any = getattr(network.backbone.vit, "patch_embed", None)
    conv = embed.proj if type(embed) is PatchEmbed and not embed.dynamic_img_pad else None
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
