"""The cross-modality blocks of iCMFormer (Li, Vosselman, Yang; WACV 2024): clicks attend to the image.

The paper writes the image as the query. In the released code, and so in its weights, the clicks are the query, the
image gives keys and values, and only the clicks' tokens change. So keys and values belong to the image: they are
computed once an image, by :meth:`CrossBlock.keys_values`.
"""

from __future__ import annotations

from functools import partial

import torch
from timm.layers import Mlp
from timm.models.vision_transformer import Attention
from torch import Tensor, nn
from torch.nn import functional as F

Pair = tuple[Tensor, Tensor]
"""Keys and values of one block: (B, heads, d / heads, N) and (B, heads, N, d / heads)."""


class CrossAttention(nn.Module):
    """Attention from clicks to the image, with the weights of a self-attention.

    The file has one linear for queries, keys and values of both. The queries' rows are used for the clicks alone, and
    the other two thirds for the image alone.

    Args:
        dim: d.
        heads: Attention heads.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale: float = (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def queries(self, clicks: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d), times the scores' factor."""
        dim = self.proj.in_features
        return self.scale * F.linear(clicks, self.qkv.weight[:dim], self.qkv.bias[:dim])

    def keys_values(self, image: Tensor) -> Pair:
        """(B, N, d) -> keys (B, heads, d / heads, N) and values (B, heads, N, d / heads)."""
        dim = self.proj.in_features
        both = F.linear(image, self.qkv.weight[dim:], self.qkv.bias[dim:])
        keys, values = (y.reshape(*y.shape[:2], self.heads, -1) for y in both.chunk(2, dim=2))
        return keys.permute(0, 2, 3, 1), values.transpose(1, 2)

    def forward(self, clicks: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(B, N, d), and what :meth:`keys_values` returns -> (B, N, d)."""
        q = self.queries(clicks).reshape(*clicks.shape[:2], self.heads, -1).transpose(1, 2)
        mixed = torch.softmax(q @ keys, dim=3) @ values
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class CrossBlock(nn.Module):
    """Self-attention of the clicks, attention to the image, MLP; pre-norm.

    Args:
        dim: d.
        heads: Attention heads.
        mlp_ratio: Width of the MLP over d.
        eps: Of the norms.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float, eps: float) -> None:
        super().__init__()
        norm = partial(nn.LayerNorm, dim, eps=eps)
        self.norm1 = norm()
        self.attn1 = Attention(dim, heads, qkv_bias=True)
        self.attn1.fused_attn = False  # product, softmax, product, as attn2 and the released code sum them
        self.norm2 = norm()
        self.attn2 = CrossAttention(dim, heads)
        self.norm3 = norm()
        self.mlp = Mlp(dim, int(mlp_ratio * dim))

    def keys_values(self, image: Tensor) -> Pair:
        """What the clicks attend to: the image's tokens (B, N, d) -> keys and values, see :data:`Pair`."""
        return self.attn2.keys_values(self.norm2(image))

    def forward(self, clicks: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """The clicks' tokens (B, N, d), and the image's keys and values -> the clicks' tokens."""
        clicks = clicks + self.attn1(self.norm1(clicks))
        clicks = clicks + self.attn2(self.norm2(clicks), keys, values)
        out: Tensor = clicks + self.mlp(self.norm3(clicks))
        return out
