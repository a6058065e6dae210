"""DISNet's proposals: N masks that the first click may mean, from learned queries (Mask2Former's decoder).

Besides its mask every query has two logits, object or none, which a bipartite loss needs (U8). PiClick also estimates
each mask's IoU, which the manuscript drops, and lets the queries see the click's vector, which the manuscript does not
mention (U9). Neither is here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.models.deformable_attention import Grid
from mmms_deploy.models.disnet_config import ProposalConfig
from mmms_deploy.models.masked_attention import Attention, blocked_by, mask_logits
from mmms_deploy.models.segformer import tokens
from mmms_deploy.models.sine_position import sine_positions

OBJECT = 0
"""Which of a query's two logits says that its mask is an object."""


class Proposals(NamedTuple):
    """What a first click proposes.

    Attributes:
        masks: (B, N, h, w), logits at a quarter of the network's size.
        tokens: Q, (B, N, d).
        classes: (B, N, 2), logits: object, none.
        features: F, (B, d, h, w).
    """

    masks: Tensor
    tokens: Tensor
    classes: Tensor
    features: Tensor


def object_scores(classes: Tensor) -> Tensor:
    """Logits (..., N, 2) -> how probably each proposal is an object, (..., N)."""
    return classes.softmax(-1)[..., OBJECT]


def best_proposal(classes: Tensor) -> Tensor:
    """Return which proposal is taken where the user chooses none (U10).

    Args:
        classes: (..., N, 2), logits of :class:`Proposals`.

    Returns:
        (...) int64: the one that is most probably an object; the first of equal ones.
    """
    return object_scores(classes).argmax(-1)


def attended(attention: Attention, query: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None = None) -> Tensor:
    """Attend, from the three inputs (B, N, d), (B, M, d) and (B, M, d) of an attention; returns (B, N, d)."""
    out: Tensor = attention(attention.queries(query), attention.keys(key), attention.values(value), blocked)
    return out


def mask_embedding(dim: int) -> nn.Sequential:
    """Return three linears with ReLU between them, d -> d: what is compared with F."""
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))


class ProposalLayer(nn.Module):
    """Masked attention to a level, self-attention of the queries, MLP; post-norm.

    Args:
        dim: d.
        config: The description of the proposals; its ``order`` says which attention runs first (U7).
    """

    def __init__(self, dim: int, config: ProposalConfig) -> None:
        super().__init__()
        self.cross_first = config.order == "cross_first"
        self.cross_attn = Attention(dim, config.heads)
        self.norm1 = nn.LayerNorm(dim)
        self.self_attn = Attention(dim, config.heads)
        self.norm2 = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, config.ffn)
        self.fc2 = nn.Linear(config.ffn, dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, position: Tensor, key: Tensor, value: Tensor, blocked: Tensor) -> Tensor:
        """Update the queries.

        Args:
            x: (B, N, d).
            position: (N, d), of the queries.
            key: (B, h*w, d), the level with its embedding and positions.
            value: (B, h*w, d), the level with its embedding.
            blocked: (B, 1, N, h*w) bool: the places that each query must not attend to; not all of them.

        Returns:
            (B, N, d).
        """
        for step, norm in enumerate((self.norm1, self.norm2)):
            if (step == 0) is self.cross_first:
                y = attended(self.cross_attn, x + position, key, value, blocked)
            else:
                y = attended(self.self_attn, x + position, x + position, x)
            x = norm(x + y)
        out: Tensor = self.norm3(x + self.fc2(F.relu(self.fc1(x))))
        return out


class ProposalDecoder(nn.Module):
    """The decoder.

    Args:
        dim: d.
        grids: Sizes of the levels at scales 32, 16, 8.
        config: Its description.
    """

    def __init__(self, dim: int, grids: tuple[Grid, ...], config: ProposalConfig) -> None:
        super().__init__()
        self.grids = grids
        self.query_feat = nn.Parameter(torch.empty(config.count, dim).normal_())
        self.query_embed = nn.Parameter(torch.empty(config.count, dim).normal_())
        self.level_embed = nn.Parameter(torch.empty(len(grids), dim).normal_())
        self.layers = nn.ModuleList(ProposalLayer(dim, config) for _ in range(config.layers))
        self.post_norm = nn.LayerNorm(dim)
        self.mask_embed = mask_embedding(dim)
        self.cls_embed = nn.Linear(dim, 2)
        for level, grid in enumerate(grids):
            self.register_buffer(f"positions_{level}", sine_positions(grid, dim), persistent=False)

    def forward(self, features: Tensor, levels: tuple[Tensor, ...]) -> Proposals:
        """F (B, d, h, w), and the levels (B, d, H/i, W/i), i = 32, 16, 8 -> the proposals."""
        x = self.query_feat.expand(features.shape[0], -1, -1)
        masks = self._masks(x, features)
        for number, layer in enumerate(self.layers):
            level = number % len(levels)
            value = tokens(levels[level]) + self.level_embed[level]
            key = value + self.get_buffer(f"positions_{level}")
            x = layer(x, self.query_embed, key, value, blocked_by(masks, self.grids[level]))
            masks = self._masks(x, features)
        return Proposals(masks, x, self.cls_embed(self.post_norm(x)), features)

    def _masks(self, x: Tensor, features: Tensor) -> Tensor:
        return mask_logits(self.mask_embed(self.post_norm(x)), features)
