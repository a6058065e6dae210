"""Rewrites of SegFormer's efficient attention, and of the paper's EffCA, which is the same with another source."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mmms_deploy.export.rewrites.deployed import Deployed, linear_of, replace_modules
from mmms_deploy.models.segformer import EfficientAttention, as_map, tokens

QUERY_GROUPS = 4
"""Divides the number of queries at scales 4, 8 and 16 of every network size; fewer groups where it does not."""


class PlainAttention(nn.Module):
    """Efficient attention whose graph is two linears, MatMul, Softmax, MatMul.

    The paper's form separates keys and values through a five-dimensional transposition, and multiplies queries and keys
    by the square root of the scores' factor. Here keys and values are the two halves of their linear's result, and only
    the queries, which are as wide as the keys, are multiplied. The same products are summed.

    Args:
        attention: The attention in the paper's form.

    Attributes:
        scale: Factor on the scores.
        groups: Into how many groups a single head's queries are split, where that divides their number.
    """

    def __init__(self, attention: EfficientAttention) -> None:
        super().__init__()
        self.heads, self.reduction = attention.heads, attention.reduction
        self.q, self.kv, self.proj = attention.q, attention.kv, attention.proj
        if self.reduction > 1:
            self.sr, self.norm = attention.sr, attention.norm
        self.scale: float = (self.q.in_features // self.heads) ** -0.5
        self.groups = 1

    def forward(self, query: Tensor, source: Tensor, height: int, width: int) -> Tensor:
        """Attend from ``query`` (B, H*W, C) to ``source`` (B, H*W, C); returns (B, H*W, C)."""
        if self.reduction > 1:
            source = self.norm(tokens(self.sr(as_map(source, height, width))))
        q = self.q(query)
        if self.scale != 1.0:
            q = q * self.scale
        k, v = self.kv(source).chunk(2, dim=2)
        if self.heads == 1:
            groups = math.gcd(self.groups, height * width)
            q = q.unflatten(1, (groups, -1))
            k, v = (x.unsqueeze(1).expand(-1, groups, -1, -1) for x in (k, v))
            mixed = (torch.softmax(q @ k.transpose(2, 3), dim=3) @ v).flatten(1, 2)
        else:
            q, k, v = (x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
            mixed = (torch.softmax(q @ k.transpose(2, 3), dim=3) @ v).transpose(1, 2).flatten(2)
        out: Tensor = self.proj(mixed)
        return out


def plain_attention(network: Deployed) -> bool:
    """Write attention as its matrix products; see :class:`PlainAttention`."""
    return replace_modules(network, EfficientAttention, PlainAttention)


def _plain(network: Deployed) -> list[PlainAttention]:
    return [module for module in network.modules() if isinstance(module, PlainAttention)]


def fold_attention(network: Deployed) -> bool:
    """Fold attention's factor, biases and single-head projection into weights.

    - The factor on the scores goes into the query's linear.
    - A key's bias b adds the same q.b to all scores of the query q. Softmax ignores it, so it is left out.
    - Softmax's weights sum to one, so a value's bias passes through unchanged: it is added to the projection's bias.
    - A single head's values V x are only mixed, then projected by P: their linear becomes P V, and the projection is
      left out. (With several heads this would make each head's values as wide as all of them.)
    """
    found = _plain(network)
    for attention in found:
        q, kv, proj = attention.q, attention.kv, attention.proj
        attention.q = linear_of(q.weight * attention.scale, q.bias * attention.scale)
        attention.scale = 1.0
        keys, values = kv.weight.chunk(2)
        bias = proj.bias + proj.weight @ kv.bias.chunk(2)[1]
        if attention.heads == 1:
            attention.kv = linear_of(torch.cat([keys, proj.weight @ values]), torch.cat([0 * bias, bias]))
            attention.proj = nn.Identity()  # type: ignore[assignment]
        else:
            attention.kv = linear_of(kv.weight, None)
            attention.proj = linear_of(proj.weight, bias)
    return bool(found)


def split_queries(network: Deployed) -> bool:
    """Split a single head's queries into groups, in the dimension of the heads.

    Each query's result is independent of the others, so groups give the same results. TensorRT fuses attention of
    several heads into one kernel, but leaves attention of a single head as two products with all scores in memory
    between them.
    """
    single = [attention for attention in _plain(network) if attention.heads == 1]
    for attention in single:
        attention.groups = QUERY_GROUPS
    return bool(single)
