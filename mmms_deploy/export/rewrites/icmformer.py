"""iCMFormer in a form that engines run faster, and the rewrites for it and for Swin Transformers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmms_deploy.export.rewrites.deployed import Deployed, linear_of, replace_modules
from mmms_deploy.export.rewrites.vit import folded_linears
from mmms_deploy.models.cross_modality import CrossAttention, Pair
from mmms_deploy.models.icmformer_swin import ICMFormerSwin
from mmms_deploy.models.icmformer_vit import ICMFormerViT
from mmms_deploy.models.swin import WindowAttention, masked_softmax


class DeployedSwin(Deployed, ICMFormerSwin):
    """iCMFormer on a Swin Transformer in a form that engines run faster.

    Args:
        network: The network in the paper's form.
    """

    def __init__(self, network: ICMFormerSwin) -> None:
        super().__init__(network)
        self.coarse_size = network.backbone.grids[0]


class DeployedViT(Deployed, ICMFormerViT):
    """iCMFormer on a plain ViT in a form that engines run faster.

    Args:
        network: The network in the paper's form.
    """

    def __init__(self, network: ICMFormerViT) -> None:
        super().__init__(network)
        height, width = network.backbone.grid
        self.coarse_size = (4 * height, 4 * width)


def deployed_icmformer(network: ICMFormerSwin | ICMFormerViT) -> Deployed:
    """Return the network that rewrites change."""
    return DeployedSwin(network) if isinstance(network, ICMFormerSwin) else DeployedViT(network)


class FoldedCrossAttention(nn.Module):
    """Attention from clicks to the image, with linears of its own for queries and for keys and values.

    The file has one linear for all three. The paper's form takes the rows that it needs at every run; here they are
    separate weights, so that the image's part holds only those of keys and values, and the clicks' part only those of
    queries. Factor and biases are folded as in :class:`~mmms_deploy.export.rewrites.vit.PlainViTAttention`.

    Args:
        attention: The attention in the paper's form.
    """

    def __init__(self, attention: CrossAttention) -> None:
        super().__init__()
        self.heads = attention.heads
        both, self.proj = folded_linears(attention)
        dim = self.proj.in_features
        self.q = linear_of(both.weight[:dim], both.bias[:dim])
        self.kv = linear_of(both.weight[dim:], None)  # their biases are folded

    def keys_values(self, image: Tensor) -> Pair:
        """(B, N, d) -> keys (B, heads, d / heads, N) and values (B, heads, N, d / heads)."""
        keys, values = (y.reshape(*y.shape[:2], self.heads, -1) for y in self.kv(image).chunk(2, dim=2))
        return keys.permute(0, 2, 3, 1), values.transpose(1, 2)

    def forward(self, clicks: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(B, N, d), and what :meth:`keys_values` returns -> (B, N, d)."""
        q = self.q(clicks).reshape(*clicks.shape[:2], self.heads, -1).transpose(1, 2)
        mixed = torch.softmax(q @ keys, dim=3) @ values
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


def fold_cross_attention(network: Deployed) -> bool:
    """Split and fold the linears of the cross-modality blocks; see :class:`FoldedCrossAttention`."""
    return replace_modules(network.backbone, CrossAttention, FoldedCrossAttention)


class FoldedWindowAttention(nn.Module):
    """A Swin's attention, folded like :class:`~mmms_deploy.export.rewrites.vit.PlainViTAttention`.

    The biases of relative positions are one constant, (heads, N, N), instead of a table that is gathered at every run.

    Windows over the map's edge hold zeros where the map ends. Padding comes after the norm, so such a token's key and
    value are the biases, and the folding stays exact: the key's bias shifts all scores of a query by the same amount,
    and softmax's weights, those of padded values included, sum to one.

    Args:
        attention: The attention in the paper's form.
    """

    def __init__(self, attention: WindowAttention) -> None:
        super().__init__()
        self.heads = attention.heads
        self.qkv, self.proj = folded_linears(attention)
        self.register_buffer("bias", attention.bias().contiguous())

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B * windows, N, C) and the mask of shifted windows -> (B * windows, N, C)."""
        q, k, v = (y.unflatten(2, (self.heads, -1)).transpose(1, 2) for y in self.qkv(x).chunk(3, dim=2))
        weights = masked_softmax(q @ k.transpose(2, 3) + self.get_buffer("bias"), mask)
        out: Tensor = self.proj((weights @ v).transpose(1, 2).flatten(2))
        return out


def fold_swin_attention(network: Deployed) -> bool:
    """Fold factor, biases and relative positions of a Swin's attention; see :class:`FoldedWindowAttention`."""
    return replace_modules(network.backbone, WindowAttention, FoldedWindowAttention)
