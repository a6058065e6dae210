"""The plain ViT of SimpleClick, MFP and iCMFormer: most blocks attend within windows, a few to all tokens.

Modules have the names that the official checkpoints use. A window is 224 pixels wide (ViTDet, Li et al. 2022, without
its relative positions).
"""

from __future__ import annotations

from functools import partial

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mmms_deploy.errors import DescriptionError, SizeError
from mmms_deploy.models.backbone import check_size
from mmms_deploy.models.backbone_names import grid_of, resample_table
from mmms_deploy.models.config import ViTConfig
from mmms_deploy.models.segformer import tokens

WINDOW = 224
"""Pixels along the side of a window, at least."""
NORM_EPS = 1e-6


class PatchEmbedding(nn.Module):
    """Embeds an image, or an interaction tensor, on the ViT's grid: one convolution, kernel = stride = patch.

    Args:
        channels: Channels that come in.
        dim: d.
        patch: Height and width of a patch.
    """

    def __init__(self, channels: int, dim: int, patch: tuple[int, int]) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(channels, dim, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H/P * W/P, d), rows first."""
        return tokens(self.proj(x))


class WindowedViT(nn.Module):
    """Patch embedding, position table and pre-norm blocks; no class token, and no norm at the end.

    Block i of D, counted from 1, attends to all tokens where i is a multiple of :attr:`period`, and else within its
    window. While blocks run in windows, tokens are kept window by window.

    Args:
        config: Widths and depth.
        size: Network size (H, W).

    Attributes:
        grid: (H/P, W/P).
        windows: How many windows there are along the height and the width of the grid.
        period: Distance between blocks that attend to all tokens.
        pos_embed: (1, 1 + H/P * W/P, d), the position table. Its first entry, the class token's, has no effect.

    Raises:
        SizeError: The size is no multiple of twice the patch, or cannot be split into equal windows.
        DescriptionError: The widths do not fit together.
    """

    def __init__(self, config: ViTConfig, size: tuple[int, int]) -> None:
        super().__init__()
        patch = config.patch
        for length in patch:
            check_size(size, patch, 2 * length)  # the neck halves the grid
        if config.dim % config.heads:
            raise DescriptionError(
                f"{config.heads} attention heads for a ViT of width {config.dim}",
                expected="a number that divides it",
                fix="correct the description",
            )
        self.grid = (size[0] // patch[0], size[1] // patch[1])
        self.windows = _windows(self.grid, size, patch)
        self.period = 6 if config.depth == 12 else config.depth // 4
        self.patch_embed = PatchEmbedding(3, config.dim, patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], config.dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        norm = partial(nn.LayerNorm, eps=NORM_EPS)
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, mlp_ratio=config.mlp_ratio, qkv_bias=True, norm_layer=norm)
            for _ in range(config.depth)
        )

    def embed(self, rgb: Tensor) -> Tensor:
        """(B, 3, H, W), normalised -> (B, H/P * W/P, d): the patches with their positions."""
        return self.with_positions(self.patch_embed(rgb))

    def with_positions(self, x: Tensor) -> Tensor:
        """Add the position table to tokens (B, H/P * W/P, d)."""
        return x + self.pos_embed[:, 1:]

    def attends_to_all(self, number: int) -> bool:
        """Whether a block, counted from 1, attends to all tokens."""
        return number % self.period == 0

    def forward(self, x: Tensor, first: int = 1, last: int | None = None) -> Tensor:
        """Run blocks.

        Args:
            x: (B, H/P * W/P, d), rows first, positions added.
            first: Number of the first block, counted from 1.
            last: Number of the last one; None for the last of all.

        Returns:
            (B, H/P * W/P, d), rows first.
        """
        last = len(self.blocks) if last is None else last
        windowed = False
        for number in range(first, last + 1):
            wanted = not self.attends_to_all(number)
            if wanted is not windowed:
                x = self.into_windows(x) if wanted else self.out_of_windows(x)
                windowed = wanted
            x = self.blocks[number - 1](x)
        return self.out_of_windows(x) if windowed else x

    def into_windows(self, x: Tensor) -> Tensor:
        """(B, H/P * W/P, d), rows first -> (B * windows, tokens of a window, d), windows and tokens rows first."""
        (down, across), (rows, columns) = self.windows, self._window()
        x = x.reshape(-1, down, rows, across, columns, x.shape[2]).transpose(2, 3)
        return x.reshape(-1, rows * columns, x.shape[5])

    def out_of_windows(self, x: Tensor) -> Tensor:
        """(B * windows, tokens of a window, d) -> (B, H/P * W/P, d), rows first."""
        (down, across), (rows, columns) = self.windows, self._window()
        x = x.reshape(-1, down, across, rows, columns, x.shape[2]).transpose(2, 3)
        return x.reshape(-1, down * rows * across * columns, x.shape[5])

    def _window(self) -> tuple[int, int]:
        return self.grid[0] // self.windows[0], self.grid[1] // self.windows[1]

    def adapt_positions(self, table: Tensor, stored: tuple[int, int] | None) -> Tensor:
        """Bring a checkpoint's position table to this network's grid, as the official evaluation does.

        Bicubic, corners not aligned, without antialiasing; the class token's entry is kept.

        Args:
            table: (1, 1 + N, d).
            stored: The grid (H, W) of its N patches; None for a square one, or this network's.

        Returns:
            (1, 1 + H/P * W/P, d); a table that is none is returned unchanged.
        """
        if table.ndim != 3 or table.shape[0] != 1 or table.shape[2] != self.pos_embed.shape[2]:
            return table
        source = grid_of(table.shape[1] - 1, self.grid, stored)
        if source is None or source == self.grid:
            return table
        patches = resample_table(table[:, 1:], source, self.grid, antialias=False)
        return torch.cat([table[:, :1].to(patches.dtype), patches], dim=1)


def _windows(grid: tuple[int, int], size: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int]:
    """Return how many windows a grid has along each axis: as many as fit with their least width, but equal ones."""
    counts = [max(1, length * p // WINDOW) for length, p in zip(grid, patch, strict=True)]
    for axis, length, count, pixels, p in zip(("height", "width"), grid, counts, size, patch, strict=True):
        if length % count:
            raise SizeError(
                f"network {axis} {pixels}: {length} patches cannot be split into {count} equal windows",
                expected=f"a size whose patches make equal windows of at least {WINDOW} pixels",
                fix=f"use {' or '.join(str(near * p) for near in _near(length, p))}",
                command_fix=f"use {' or '.join(str(near * p) for near in _near(length, p))} (--size)",
            )
    return counts[0], counts[1]


def _near(length: int, patch: int) -> list[int]:
    """Return the nearest numbers of patches below and above that make equal windows, and pairs for the neck."""

    def fits(patches: int) -> bool:
        return patches % 2 == 0 and patches % max(1, patches * patch // WINDOW) == 0

    below = next((n for n in range(length - 1, 1, -1) if fits(n)), None)
    above = next(n for n in range(length + 1, 4 * length + 4 * WINDOW) if fits(n))
    return [above] if below is None else [below, above]
