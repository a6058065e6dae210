"""Mask2Former's pixel decoder (Cheng et al., CVPR 2022, section 3.2.2), with DynaMITe's refinement or without.

A backbone's maps of strides 32, 16 and 8 are mixed by deformable attention, and a map of stride 4 is made of the result
and of the backbone's finest map. Modules have the names of DynaMITe's files; :mod:`mmms_deploy.models.disnet_pixels`
has the same decoder under DISNet's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.models.deformable_attention import DeformableTransformer, Grid

GROUPS = 32
"""Groups of the group norms; widths are multiples of it."""


def resized(x: Tensor, grid: Grid) -> Tensor:
    """Bilinear, corners not aligned: (B, C, h, w) -> (B, C, *grid)."""
    return F.interpolate(x, size=grid, mode="bilinear", align_corners=False)


class NormedConv(nn.Conv2d):
    """A convolution without bias that keeps a map's size, and a group norm.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the result; a multiple of 32.
        kernel: Side of the kernel; odd.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(GROUPS, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        out: Tensor = self.norm(super().forward(x))
        return out


class PixelDecoder(nn.Module):
    """From a backbone's four maps to the map of pixel embeddings and three maps to attend to.

    Args:
        widths: Channels of the backbone's maps of strides 4, 8, 16 and 32.
        grids: Height and width of these maps.
        dim: d, a multiple of 32.
        depth: Number of deformable layers.
        hidden: Width of their MLPs.
        heads: Their attention heads.
        points: Sampled points of each head in each level.
        refine: Whether the map of stride 4 also gets all three mixed maps, each through a convolution (DynaMITe).
    """

    refine: nn.ModuleList | None

    def __init__(
        self,
        widths: Sequence[int],
        grids: Sequence[Grid],
        dim: int,
        *,
        depth: int,
        hidden: int,
        heads: int,
        points: int,
        refine: bool,
    ) -> None:
        super().__init__()
        coarse_first = tuple(grids)[:0:-1]
        self.input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, dim, 1), nn.GroupNorm(GROUPS, dim)) for width in tuple(widths)[:0:-1]
        )
        self.transformer = DeformableTransformer(depth, dim, hidden, heads, points, coarse_first)
        self.adapter_1 = NormedConv(widths[0], dim, 1)
        self.layer_1 = NormedConv(dim, dim, 3)
        self.refine = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in coarse_first) if refine else None
        self.mask_features = nn.Conv2d(dim, dim, 1)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Decode a backbone's maps.

        Args:
            maps: (B, C_i, H/i, W/i), i = 4, 8, 16, 32.

        Returns:
            The pixel embeddings F (B, d, H/4, W/4); and three maps (B, d, H/i, W/i), i = 32, 16, 8.
        """
        coarse_first = tuple(maps)[:0:-1]
        mixed: tuple[Tensor, ...] = self.transformer(
            [project(x) for project, x in zip(self.input_proj, coarse_first, strict=True)]
        )
        finest = mixed[-1]
        grid = (maps[0].shape[2], maps[0].shape[3])
        x = F.relu(self.layer_1(self.adapter_1(maps[0]) + resized(finest, grid)))
        if self.refine is not None:
            same = (finest.shape[2], finest.shape[3])
            parts = [conv(level) for conv, level in zip(self.refine, mixed[::-1], strict=True)]
            joined = parts[0] + torch.stack([resized(part, same) for part in parts[1:]]).sum(dim=0)
            x = x + resized(joined, grid)
        embeddings: Tensor = self.mask_features(x)
        return embeddings, mixed
