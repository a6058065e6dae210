"""SAM 2's image encoder: a Hiera as its trunk, and its neck (Ravi et al. 2024, section 4 and appendix D)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NECK_WIDTH = 256
"""Channels of the neck."""
DECODER_WIDTHS = (32, 64)
"""Channels to which SAM 2's mask decoder reduces the neck's maps of strides 4 and 8."""


def position_map(table: Tensor, window: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return what a Hiera adds to the tokens of its first stage, as SAM 2's code computes it.

    The table is brought to the grid (bicubic, corners not aligned, not antialiased), and the window's table is repeated
    over it.

    Args:
        table: (1, C, h, w), the table of the whole image.
        window: (1, C, m, m), the table of one window.
        grid: (H, W) of the first stage, multiples of m.

    Returns:
        (1, C, H, W), in the tables' type.
    """
    repeats = (grid[0] // window.shape[2], grid[1] // window.shape[3])
    return F.interpolate(table, size=grid, mode="bicubic") + window.tile(repeats)


class HieraNeck(nn.Module):
    """SAM 2's neck, with the first layer of its mask decoder for the two finest maps.

    All four stages are reduced to 256 channels. The stage of stride 16 receives that of stride 32, enlarged to the
    nearest pixel; the finer ones are left as they are. The decoder reads the maps of strides 4 and 8 through one
    convolution each.

    Args:
        channels: Channels of the trunk's stages, finest first.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        # Coarsest first, as the release numbers them.
        self.convs = nn.ModuleList(nn.Sequential() for _ in channels)
        for conv, width in zip(self.convs, reversed(channels), strict=True):
            conv.add_module("conv", nn.Conv2d(width, NECK_WIDTH, 1))
        self.conv_s0 = nn.Conv2d(NECK_WIDTH, DECODER_WIDTHS[0], 1)
        self.conv_s1 = nn.Conv2d(NECK_WIDTH, DECODER_WIDTHS[1], 1)

    def forward(self, stages: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Maps of strides 4, 8, 16, 32 -> maps of 32, 64, 256 and 256 channels at the same strides."""
        x4, x8, x16, x32 = (conv(x) for conv, x in zip(reversed(self.convs), stages, strict=True))
        x16 = x16 + F.interpolate(x32, size=x16.shape[2:], mode="nearest")
        return self.conv_s0(x4), self.conv_s1(x8), x16, x32


class HieraEncoder(nn.Module):
    """SAM 2's image encoder.

    Args:
        trunk: timm's Hiera, without its head.
        grid: Height and width of its first stage.
        neck: Whether the neck follows the trunk.

    Attributes:
        positions: (1, H, W, C), the position map at the network's grid, once it is folded into a constant.
    """

    positions: Tensor | None

    def __init__(self, trunk: Any, grid: tuple[int, int], *, neck: bool) -> None:
        super().__init__()
        self.trunk = trunk
        self.grid = grid
        stages = tuple(int(info["num_chs"]) for info in trunk.feature_info)
        self.neck = HieraNeck(stages) if neck else None
        self.channels = (*DECODER_WIDTHS, NECK_WIDTH, NECK_WIDTH) if neck else stages
        self.register_buffer("positions", None)

    def position_map(self) -> Tensor:
        """The position map at the network's grid, (1, H, W, C)."""
        return position_map(self.trunk.pos_embed, self.trunk.pos_embed_window, self.grid).permute(0, 2, 3, 1)

    def fold_positions(self) -> None:
        """Keep the position map as a constant in place of its tables."""
        self.register_buffer("positions", self.position_map().contiguous())

    def forward(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> four maps of strides 4, 8, 16, 32."""
        x = self.trunk.patch_embed(rgb)
        x = x + (self.position_map() if self.positions is None else self.positions)
        stages = []
        for number, block in enumerate(self.trunk.blocks):
            x = block(x)
            if number in self.trunk.stage_ends:
                stages.append(x.permute(0, 3, 1, 2))
        return tuple(stages) if self.neck is None else self.neck(tuple(stages))


def tables_of_map(summed: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Find the two tables that a position map was made of, by least squares.

    The tables share a constant for each channel, which no map can tell; the smallest tables are taken. At every grid
    they give the same map as the original ones.

    Args:
        summed: (1, C, H, W), as :func:`position_map` returns it.
        window: m, the side of a window.

    Returns:
        The tables (1, C, h, w) and (1, C, m, m), float32.

    Raises:
        ValueError: No tables give this map.
    """
    grid = (summed.shape[2], summed.shape[3])
    if summed.numel() == 0 or any(length % window for length in grid):
        raise ValueError(f"a position map of shape {tuple(summed.shape)} has no windows of {window} x {window}")
    channels = summed.shape[1]
    wanted = summed.double().reshape(channels, -1).T
    for side in _TABLE_SIDES:
        units = torch.eye(side * side, dtype=torch.float64).reshape(side * side, 1, side, side)
        coarse = F.interpolate(units, size=grid, mode="bicubic").reshape(side * side, -1)
        fine = torch.eye(window * window, dtype=torch.float64).reshape(-1, window, window)
        fine = fine.tile(1, grid[0] // window, grid[1] // window).reshape(window * window, -1)
        basis = torch.cat([coarse, fine])
        found = torch.linalg.pinv(basis @ basis.T, hermitian=True) @ (basis @ wanted)
        if (basis.T @ found - wanted).abs().max() <= _RESIDUAL * wanted.abs().max():
            table, repeated = found.T.float().split([side * side, window * window], dim=1)
            return table.reshape(1, channels, side, side), repeated.reshape(1, channels, window, window)
    raise ValueError(f"no tables of {' or '.join(map(str, _TABLE_SIDES))} positions a side give this position map")


_TABLE_SIDES = (7, 14)
"""Sides of the tables of SAM 2's encoders: the tiny, small and large ones', and the one of base+."""
_RESIDUAL = 1e-5
"""Largest part of the largest position that the least squares may leave; float32 rounds by 1e-7."""
