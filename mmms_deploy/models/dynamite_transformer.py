"""DynaMITe's interactive transformer: a query for every click, and pixels that attend to the queries.

Modules have the names that the official checkpoints use. What depends on the image alone is in
:meth:`InteractiveTransformer.of_image`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.models.deformable_attention import Grid
from mmms_deploy.models.dynamite_config import DynaMITeConfig
from mmms_deploy.models.masked_attention import (
    CrossAttentionLayer,
    FFNLayer,
    FoldedAttention,
    FoldedValues,
    MaskEmbedding,
    SelfAttentionLayer,
    blocked_by,
)
from mmms_deploy.models.segformer import tokens
from mmms_deploy.models.sine_position import sine_code, sine_positions

LEVELS = 3
LONGEST = 500
"""Running click numbers are divided by it; the official code divides by the newest click's where that is greater."""


class PixelLayers(nn.Module):
    """What changes the pixels: attention to the queries, and an MLP; over and over.

    Args:
        config: The network's description.
    """

    def __init__(self, config: DynaMITeConfig) -> None:
        super().__init__()
        dim, depth = config.width, range(config.mask_depth)
        self.cross_attention_layers = nn.ModuleList(CrossAttentionLayer(dim, config.heads) for _ in depth)
        self.ffn_layers = nn.ModuleList(FFNLayer(dim, config.mask_hidden) for _ in depth)

    def forward(
        self, x: Tensor, positions: Tensor, first: Tensor, queries: Tensor, placed: Tensor, blocked: Tensor
    ) -> Tensor:
        """Change the pixels.

        Args:
            x: (B, N, d), the pixels.
            positions: (N, d), their positions.
            first: The first layer's queries, which come from the image alone.
            queries: (B, Q, d), the values of what is attended to.
            placed: (B, Q, d), its keys: queries and their positions.
            blocked: (B, 1, 1, Q) bool, true for what no pixel may see.

        Returns:
            (B, N, d).
        """
        layers: Any = zip(self.cross_attention_layers, self.ffn_layers, strict=True)
        for number, (cross, ffn) in enumerate(layers):
            attention = cross.multihead_attn.form(placed.shape[1])
            own = first if number == 0 else attention.queries(x + positions)
            keys, values = attention.keys(placed), attention.values(queries)
            x = ffn(cross(x, own, keys, values, blocked, attention))
        return x


class QueryLayers(nn.Module):
    """What changes the queries: attention to the image, to each other, an MLP; over and over.

    Args:
        config: The network's description.
    """

    def __init__(self, config: DynaMITeConfig) -> None:
        super().__init__()
        dim, heads, depth = config.width, config.heads, range(config.query_depth)
        self.self_attention_layers = nn.ModuleList(SelfAttentionLayer(dim, heads) for _ in depth)
        self.cross_attention_layers = nn.ModuleList(CrossAttentionLayer(dim, heads) for _ in depth)
        self.ffn_layers = nn.ModuleList(FFNLayer(dim, config.query_hidden) for _ in depth)


class InteractiveTransformer(nn.Module):
    """From an image's maps and a list of clicks to a mask for every click and every background query.

    Args:
        config: The network's description.
        grids: Height and width of the maps of strides 4, 8, 16 and 32.
    """

    def __init__(self, config: DynaMITeConfig, grids: Sequence[Grid]) -> None:
        super().__init__()
        dim, learned = config.width, config.background_queries
        self.grid, *finer_first = grids
        self.grids = tuple(finer_first[::-1])
        self.query_embed = nn.Parameter(torch.empty(dim).normal_())
        self.static_bg_pe = nn.Parameter(torch.empty(learned, dim).normal_())
        self.static_bg_query = nn.Parameter(torch.empty(learned, dim).normal_())
        self.encoder = QueryLayers(config)
        self.decoder = PixelLayers(config)
        self.layer_norm = nn.LayerNorm(dim)
        self.queries_nonlinear_projection = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.ca_qpos_sine_proj = nn.Linear(3 * (dim // 2), dim)
        self.level_embed = nn.Embedding(LEVELS, dim)
        self.mask_embed = MaskEmbedding(dim)
        for number, grid in enumerate(self.grids):
            self.register_buffer(f"places{number}", sine_positions(grid, dim), persistent=False)
        self.register_buffer("pixel_places", sine_positions(grids[0], dim), persistent=False)

    def fold(self, most: int | None = None) -> None:
        """Let the pixels attend in the folded form: the same answers, with less work for few queries.

        The first layer's queries come from the image, so that only its values are folded. See
        :class:`~mmms_deploy.models.masked_attention.FoldedAttention`.

        Args:
            most: The most queries, learned ones counted, that are attended to in this form; None for as many as it
                saves work for.
        """
        layers: Any = self.decoder.cross_attention_layers
        for number, layer in enumerate(layers):
            layer.multihead_attn = (FoldedAttention if number else FoldedValues)(layer.multihead_attn, most)

    def of_image(self, pixels: Tensor, levels: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute what the layers read of the image alone.

        Args:
            pixels: (B, d, H/4, W/4), the pixel embeddings.
            levels: (B, d, H/i, W/i), i = 32, 16, 8.

        Returns:
            The first pixel layer's queries (B, heads, H/4 * W/4, d/heads); then for every query layer its keys
            (B, heads, d/heads, N) and its values (B, heads, N, d/heads).
        """
        first: Any = self.decoder.cross_attention_layers[0]
        found = [first.multihead_attn.queries(tokens(pixels) + self.get_buffer("pixel_places"))]
        sources = [tokens(level) + mark for level, mark in zip(levels, self.level_embed.weight, strict=True)]
        layers: Any = self.encoder.cross_attention_layers
        for number, layer in enumerate(layers):
            level = number % LEVELS
            placed = sources[level] + self.get_buffer(f"places{level}")
            found += [layer.multihead_attn.keys(placed), layer.multihead_attn.values(sources[level])]
        return tuple(found)

    def queries(self, levels: Sequence[Tensor], clicks: Tensor, size: Grid) -> tuple[Tensor, Tensor]:
        """Make the queries: those of the clicks, then the learned ones.

        Args:
            levels: As for :meth:`of_image`.
            clicks: (B, Q, 5): x, y, t, object, present; at least float32.
            size: Height and width in pixels of what the levels are maps of.

        Returns:
            Contents and positions, (B, Q + learned, d) each.
        """
        height, width = size
        x, y = clicks[..., 0] / width, clicks[..., 1] / height
        where = torch.stack((2 * x - 1, 2 * y - 1), dim=2).unsqueeze(1)
        samples = [F.grid_sample(level, where, mode="bilinear", align_corners=False) for level in levels]
        dtype = self.query_embed.dtype
        seen = torch.stack(samples).mean(dim=0).squeeze(2).transpose(1, 2).to(dtype)
        half = self.query_embed.shape[0] // 2
        codes = [sine_code(2 * math.pi * part, half) for part in (y, x, clicks[..., 2] / LONGEST)]
        positions = self.query_embed + self.ca_qpos_sine_proj(torch.cat(codes, dim=2).to(dtype))
        learned = (part.expand(len(clicks), -1, -1) for part in (self.static_bg_query, self.static_bg_pe))
        contents, places = (torch.cat(pair, dim=1) for pair in zip((seen, positions), learned, strict=True))
        return self.queries_nonlinear_projection(contents), places

    def masks(self, queries: Tensor, pixels: Tensor) -> Tensor:
        """Queries (B, Q, d) and pixels (B, d, h*w) -> logits of the queries' masks (B, Q, h, w)."""
        logits: Tensor = self.mask_embed(self.layer_norm(queries)) @ pixels
        return logits.reshape(*logits.shape[:2], *self.grid)

    def forward(
        self,
        pixels: Tensor,
        pixel_tokens: Tensor,
        levels: Sequence[Tensor],
        of_image: Sequence[Tensor],
        clicks: Tensor,
        size: Grid,
    ) -> Tensor:
        """Answer a list of clicks.

        Args:
            pixels: (B, d, H/4 * W/4), the pixel embeddings.
            pixel_tokens: (B, H/4 * W/4, d), the same.
            levels: As for :meth:`of_image`, at least float32.
            of_image: What :meth:`of_image` returns.
            clicks: (B, Q, 5), as for :meth:`queries`, with zeros where no click is present.
            size: As for :meth:`queries`.

        Returns:
            (B, Q + learned, H/4, W/4) logits: of every click, then of every learned query. Those of rows without a
            click mean nothing, and nothing else depends on them.
        """
        first, *pairs = of_image
        x, positions = self.queries(levels, clicks, size)
        absent = F.pad(clicks[..., 4] <= 0.5, (0, len(self.static_bg_query)), value=False)[:, None, None]
        encoder: Any = self.encoder
        for number, cross in enumerate(encoder.cross_attention_layers):
            outside = blocked_by(self.masks(x, pixels), self.grids[number % LEVELS])
            queries = cross.multihead_attn.queries(x + positions)
            x = cross(x, queries, pairs[2 * number], pairs[2 * number + 1], outside)
            x = encoder.self_attention_layers[number](x, positions, absent)
            x = encoder.ffn_layers[number](x)
        places = self.get_buffer("pixel_places")
        changed = self.decoder(pixel_tokens, places, first, x, x + positions, absent)
        return self.masks(x, changed.transpose(1, 2))
