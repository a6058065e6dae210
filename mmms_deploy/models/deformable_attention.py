"""Multi-scale deformable attention (Zhu et al., ICLR 2021, equation 3) and the encoder made of it.

Every token looks at a few points of every level. Points come from its own content, relative to its own place. Sizes of
levels are whole numbers that are known when the network is built, so that the graph of an export has no shape that
depends on data. Modules have the names of the official code, which Mask2Former and DynaMITe keep.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.models.sine_position import sine_positions

Grid = tuple[int, int]
"""Height and width of a level."""


def cell_centres(grids: Sequence[Grid]) -> Tensor:
    """Return where the cells of all levels lie.

    Args:
        grids: The levels, in the order of their tokens.

    Returns:
        (N, 2) float32, x and y of every cell's centre, as shares of width and height; N is the number of all cells.
    """
    found = []
    for height, width in grids:
        y, x = ((torch.arange(n, dtype=torch.float32) + 0.5) / n for n in (height, width))
        found.append(torch.stack((x[None, :].expand(height, width), y[:, None].expand(height, width)), dim=2))
    return torch.cat([centres.flatten(0, 1) for centres in found])


class DeformableAttention(nn.Module):
    """Attention of every token to a few sampled points of every level.

    Args:
        dim: d.
        heads: Attention heads; they divide d.
        points: Sampled points of each head in each level.
        grids: Height and width of every level, in the order of the tokens; N is the number of all cells.
    """

    in_float32 = ("centres",)

    def __init__(self, dim: int, heads: int, points: int, grids: Sequence[Grid]) -> None:
        super().__init__()
        self.heads, self.points, self.grids = heads, points, tuple(grids)
        count = heads * len(self.grids) * points
        self.sampling_offsets = nn.Linear(dim, 2 * count)
        self.attention_weights = nn.Linear(dim, count)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self.register_buffer("centres", cell_centres(self.grids).reshape(-1, 1, 1, 2), persistent=False)

    def forward(self, query: Tensor, source: Tensor) -> Tensor:
        """Attend.

        Args:
            query: (B, N, d), content and positions of the tokens, level by level, each rows first.
            source: (B, N, d), the content.

        Returns:
            (B, N, d).
        """
        levels = len(self.grids)
        offsets = self.sampling_offsets(query).unflatten(2, (self.heads, levels, self.points, 2))
        weights = torch.softmax(self.attention_weights(query).unflatten(2, (self.heads, -1)), dim=3)
        values = self.value_proj(source).split([height * width for height, width in self.grids], dim=1)
        sampled = [
            self._sample(value, offsets[:, :, :, level], self.grids[level]) for level, value in enumerate(values)
        ]
        every = weights.transpose(1, 2).flatten(0, 1).unsqueeze(1)
        mixed = (torch.cat(sampled, dim=3) * every).sum(dim=3)
        out: Tensor = self.output_proj(mixed.reshape(len(query), -1, mixed.shape[2]).transpose(1, 2))
        return out

    def _sample(self, value: Tensor, offsets: Tensor, grid: Grid) -> Tensor:
        """Read a level: (B, h*w, d), offsets (B, N, heads, points, 2) in cells -> (B*heads, d/heads, N, points)."""
        height, width = grid
        centres = self.get_buffer("centres")
        cells = torch.tensor((width, height), dtype=centres.dtype, device=offsets.device)
        # In half precision a place would be wrong by parts of a cell.
        places = 2 * (centres + offsets.to(centres.dtype) / cells) - 1
        maps = value.transpose(1, 2).reshape(len(value) * self.heads, -1, height, width).to(centres.dtype)
        sampled = F.grid_sample(maps, places.transpose(1, 2).flatten(0, 1), mode="bilinear", align_corners=False)
        return sampled.to(value.dtype)


class DeformableLayer(nn.Module):
    """Deformable self-attention and an MLP; post-norm.

    Args:
        dim: d.
        hidden: Width of the MLP.
        heads: Attention heads.
        points: Sampled points of each head in each level.
        grids: Height and width of every level.
    """

    def __init__(self, dim: int, hidden: int, heads: int, points: int, grids: Sequence[Grid]) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(dim, heads, points, grids)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """The tokens (B, N, d), and their positions (N, d) -> the tokens."""
        x = self.norm1(x + self.self_attn(x + positions, x))
        out: Tensor = self.norm2(x + self.linear2(F.relu(self.linear1(x))))
        return out


class DeformableEncoder(nn.Module):
    """Layers, one after the other.

    Args:
        layers: The layers.
    """

    def __init__(self, layers: Iterable[DeformableLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """The tokens (B, N, d), and their positions (N, d) -> the tokens."""
        for layer in self.layers:
            x = layer(x, positions)
        return x


class DeformableTransformer(nn.Module):
    """Mixes maps of several levels.

    Args:
        depth: Number of layers.
        dim: d.
        hidden: Width of the MLPs.
        heads: Attention heads.
        points: Sampled points of each head in each level.
        grids: Height and width of every level, in the order of the maps.

    Attributes:
        level_embed: (levels, d), added to the positions of each level.
    """

    def __init__(self, depth: int, dim: int, hidden: int, heads: int, points: int, grids: Sequence[Grid]) -> None:
        super().__init__()
        self.grids = tuple(grids)
        self.level_embed = nn.Parameter(torch.empty(len(self.grids), dim).normal_())
        self.encoder = DeformableEncoder(DeformableLayer(dim, hidden, heads, points, self.grids) for _ in range(depth))
        places = torch.cat([sine_positions(grid, dim) for grid in self.grids])
        self.register_buffer("places", places, persistent=False)

    def positions(self) -> Tensor:
        """The positions of all tokens, (N, d): sines of their place, and what marks their level."""
        levels = zip(self.level_embed, self.grids, strict=True)
        marks = torch.cat([level.expand(height * width, -1) for level, (height, width) in levels])
        return self.get_buffer("places") + marks

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (B, d, H_l, W_l), one a level -> the same shapes."""
        x = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1)
        x = self.encoder(x, self.positions())
        parts = x.split([height * width for height, width in self.grids], dim=1)
        return tuple(part.transpose(1, 2).unflatten(2, grid) for part, grid in zip(parts, self.grids, strict=True))
