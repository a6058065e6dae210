"""Masked attention (Mask2Former, Cheng et al., CVPR 2022, section 3.2.1): queries attend where their own masks are.

All layers are post-norm. Modules have the names of the official code, which DynaMITe keeps; the weights of an attention
are laid out as those of :class:`torch.nn.MultiheadAttention`. Queries, keys and values are computed by methods of their
own, because some of them depend on the image alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.models.pixel_decoder import resized


class Attention(nn.Module):
    """Attention with several heads.

    Args:
        dim: d.
        heads: Attention heads; they divide d.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.dim, self.heads = dim, heads
        self.scale: float = (dim // heads) ** -0.5
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def part(self, number: int) -> tuple[Tensor, Tensor]:
        """Weight (d, d) and bias (d) of queries (0), keys (1) or values (2)."""
        rows = slice(number * self.dim, (number + 1) * self.dim)
        return self.in_proj_weight[rows], self.in_proj_bias[rows]

    def _heads(self, x: Tensor, number: int) -> Tensor:
        return F.linear(x, *self.part(number)).reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def queries(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, heads, N, d/heads), times the scores' factor."""
        return self.scale * self._heads(x, 0)

    def keys(self, x: Tensor) -> Tensor:
        """(B, M, d) -> (B, heads, d/heads, M)."""
        return self._heads(x, 1).transpose(2, 3)

    def values(self, x: Tensor) -> Tensor:
        """(B, M, d) -> (B, heads, M, d/heads)."""
        return self._heads(x, 2)

    def form(self, keys: int) -> Attention:
        """Return the form in which so many keys are attended to."""
        return self

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """What :meth:`queries` and :meth:`keys` return -> (B, heads, N, M)."""
        return queries @ keys

    def mixed(self, weights: Tensor, values: Tensor) -> Tensor:
        """Weights (B, heads, N, M), and what :meth:`values` returns -> (B, N, d)."""
        out: Tensor = self.out_proj((weights @ values).transpose(1, 2).flatten(2))
        return out

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, blocked: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            queries: From :meth:`queries`.
            keys: From :meth:`keys`.
            values: From :meth:`values`.
            blocked: bool, broadcast to (B, heads, N, M): true where a query must not see a key. A query sees at least
                one key. None for nothing.

        Returns:
            (B, N, d).
        """
        scores = self.scores(queries, keys)
        if blocked is not None:
            scores = torch.where(blocked, -torch.inf, scores)
        return self.mixed(torch.softmax(scores, dim=3), values)


class FoldedValues(Attention):
    """The same attention with its output projection folded into the values, for few keys.

    Exact: every head's values go through their columns of the projection before they are mixed, and a sum of sums is
    the same sum. With M keys a query's answer costs heads M d multiplications in the place of (M + d) d.

    Args:
        attention: Whose weights it has; they are shared, not copied.
        most: The most keys that are attended to in this form; None for as many as it saves multiplications for.
    """

    def __init__(self, attention: Attention, most: int | None = None) -> None:
        nn.Module.__init__(self)
        self.dim, self.heads, self.scale = attention.dim, attention.heads, attention.scale
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj
        self.most = (self.dim - 1) // max(1, self.heads - 1) if most is None else most

    def form(self, keys: int) -> Attention:
        """Return the form in which so many keys are attended to: this one, or the plain one with the same weights."""
        if keys <= self.most:
            return self
        plain = Attention.__new__(Attention)
        nn.Module.__init__(plain)
        plain.dim, plain.heads, plain.scale = self.dim, self.heads, self.scale
        plain.in_proj_weight, plain.in_proj_bias = self.in_proj_weight, self.in_proj_bias
        plain.out_proj = self.out_proj
        return plain

    def values(self, x: Tensor) -> Tensor:
        """(B, M, d) -> (B, heads * M, d)."""
        projection = self.out_proj.weight.reshape(self.dim, self.heads, -1).permute(1, 2, 0)
        return (super().values(x) @ projection).flatten(1, 2)

    def mixed(self, weights: Tensor, values: Tensor) -> Tensor:
        """Weights (B, heads, N, M), and what :meth:`values` returns -> (B, N, d)."""
        return weights.transpose(1, 2).flatten(2) @ values + self.out_proj.bias


class FoldedAttention(FoldedValues):
    """The same with the projection of the queries folded into the keys, too.

    Exact: a score (W x + b) k is x (W' k) + b k, where W' is W transposed.
    """

    def queries(self, x: Tensor) -> Tensor:
        """(B, N, d), as it is."""
        return x

    def keys(self, x: Tensor) -> Tensor:
        """(B, M, d) -> (B, d + 1, heads * M); the last row is what the queries' bias gives."""
        keys, (weight, bias) = super().keys(x), self.part(0)
        columns = weight.reshape(self.heads, -1, self.dim).transpose(1, 2)
        folded = torch.cat((columns, bias.reshape(self.heads, 1, -1)), dim=1)
        return self.scale * (folded @ keys).transpose(1, 2).flatten(2)

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """What :meth:`queries` and :meth:`keys` return -> (B, heads, N, M)."""
        scores = queries @ keys[:, :-1] + keys[:, -1:]
        return scores.reshape(*scores.shape[:2], self.heads, -1).transpose(1, 2)


def wide(x: Tensor) -> Tensor:
    """Return a tensor in float32, where its type is a narrower one."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def blocked_by(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return where queries must not look: outside of their masks. A query whose mask is empty looks everywhere.

    Args:
        masks: (B, Q, h, w), logits of the queries' masks.
        grid: Height and width of the map that is looked at.

    Returns:
        (B, 1, Q, H*W) bool, the same for all heads.
    """
    outside = resized(wide(masks), grid).flatten(2).unsqueeze(1) < 0
    # ONNX Runtime has no choice between bools.
    return outside & ~outside.all(dim=3, keepdim=True)


class CrossAttentionLayer(nn.Module):
    """Attention to something else, added; then a norm.

    Args:
        dim: d.
        heads: Attention heads.
    """

    multihead_attn: Attention

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.multihead_attn = Attention(dim, heads)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        x: Tensor,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        blocked: Tensor | None = None,
        attention: Attention | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            x: The tokens (B, N, d).
            queries: As for :class:`Attention`.
            keys: As for :class:`Attention`.
            values: As for :class:`Attention`.
            blocked: As for :class:`Attention`.
            attention: The form of ``multihead_attn`` that queries, keys and values come from; None for itself.

        Returns:
            The tokens (B, N, d).
        """
        form = self.multihead_attn if attention is None else attention
        out: Tensor = self.norm(x + form(queries, keys, values, blocked))
        return out


class SelfAttentionLayer(nn.Module):
    """Attention of tokens to each other, added; then a norm.

    Args:
        dim: d.
        heads: Attention heads.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.self_attn = Attention(dim, heads)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, positions: Tensor, blocked: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            x: (B, N, d).
            positions: (B, N, d), added where queries and keys are computed, not in the values.
            blocked: As for :class:`Attention`.

        Returns:
            (B, N, d).
        """
        placed, attention = x + positions, self.self_attn
        attended = attention(attention.queries(placed), attention.keys(placed), attention.values(x), blocked)
        out: Tensor = self.norm(x + attended)
        return out


class FFNLayer(nn.Module):
    """An MLP of two linears, added; then a norm.

    Args:
        dim: d.
        hidden: Width inside.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)."""
        out: Tensor = self.norm(x + self.linear2(F.relu(self.linear1(x))))
        return out


class MaskEmbedding(nn.Module):
    """Three linears of the same width, with ReLUs between them.

    Args:
        dim: d.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(dim, dim) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, Q, d) -> (B, Q, d)."""
        for number, layer in enumerate(self.layers):
            x = layer(x if number == 0 else F.relu(x))
        return x


def mask_logits(embeddings: Tensor, pixels: Tensor) -> Tensor:
    """Return the logits of the queries' masks.

    Args:
        embeddings: (B, Q, d), from :class:`MaskEmbedding`.
        pixels: (B, d, h, w), the pixel embeddings.

    Returns:
        (B, Q, h, w).
    """
    return (embeddings @ pixels.flatten(2)).reshape(*embeddings.shape[:2], *pixels.shape[2:])
