"""DISNet's pixel decoder: the neck's four maps -> F and three levels (U5: PiClick's, which is Mask2Former's).

It computes what :mod:`mmms_deploy.models.pixel_decoder` computes without DynaMITe's refinement. Its modules have the
names of DISNet's weights, and its norms any number of groups.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.models.config import Scales
from mmms_deploy.models.deformable_attention import DeformableAttention, Grid
from mmms_deploy.models.disnet_config import PixelDecoderConfig
from mmms_deploy.models.pixel_decoder import resized
from mmms_deploy.models.segformer import as_map, tokens
from mmms_deploy.models.sine_position import sine_positions


class NormedConv(nn.Module):
    """Convolution and GroupNorm, no activation.

    Args:
        dim: Channels that come in.
        out: Channels that go out.
        kernel: Side of the kernel; the map keeps its size.
        groups: Groups of the norm.
        bias: Whether the convolution has a bias.
    """

    def __init__(self, dim: int, out: int, kernel: int, groups: int, *, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, out, kernel, padding=kernel // 2, bias=bias)
        self.gn = nn.GroupNorm(groups, out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h, w)."""
        out: Tensor = self.gn(self.conv(x))
        return out


class DeformableLayer(nn.Module):
    """Deformable self-attention of all levels, MLP; post-norm.

    Args:
        dim: d.
        grids: Sizes of the levels.
        config: The pixel decoder's description.
    """

    def __init__(self, dim: int, grids: tuple[Grid, ...], config: PixelDecoderConfig) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(dim, config.heads, config.points, grids)
        self.norm1 = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, config.ffn)
        self.fc2 = nn.Linear(config.ffn, dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """(B, N, d) tokens of all levels, and their positions (N, d) -> (B, N, d)."""
        x = self.norm1(x + self.self_attn(x + positions, x))
        out: Tensor = self.norm2(x + self.fc2(F.relu(self.fc1(x))))
        return out


class DeformableEncoder(nn.Module):
    """The deformable layers, under the name that the weights have."""

    def __init__(self, dim: int, grids: tuple[Grid, ...], config: PixelDecoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DeformableLayer(dim, grids, config) for _ in range(config.layers))


class PixelDecoder(nn.Module):
    """The pixel decoder.

    Args:
        dim: d.
        widths: Channels of the neck's maps at scales 4, 8, 16, 32.
        grids: Sizes of the maps at scales 32, 16, 8.
        config: Its description.
    """

    positions: Tensor

    def __init__(self, dim: int, widths: Scales, grids: tuple[Grid, ...], config: PixelDecoderConfig) -> None:
        super().__init__()
        self.grids = grids
        groups = config.groups
        self.input_convs = nn.ModuleList(NormedConv(w, dim, 1, groups, bias=True) for w in reversed(widths[1:]))
        self.level_encoding = nn.Parameter(torch.empty(len(grids), dim).normal_())
        self.encoder = DeformableEncoder(dim, grids, config)
        self.lateral_conv = NormedConv(widths[0], dim, 1, groups, bias=False)
        self.output_conv = NormedConv(dim, dim, 3, groups, bias=False)
        self.mask_feature = nn.Conv2d(dim, dim, 1)
        positions = torch.cat([sine_positions(grid, dim) for grid in grids])
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Decode.

        Args:
            maps: (B, C_i, H/i, W/i), i = 4, 8, 16, 32.

        Returns:
            F (B, d, H/4, W/4), and the levels (B, d, H/i, W/i), i = 32, 16, 8.
        """
        finest, *coarse = maps
        x = torch.cat([tokens(conv(y)) for conv, y in zip(self.input_convs, reversed(coarse), strict=True)], dim=1)
        counts = [h * w for h, w in self.grids]
        encoding = torch.cat([e.expand(n, -1) for e, n in zip(self.level_encoding, counts, strict=True)])
        for layer in self.encoder.layers:
            x = layer(x, self.positions + encoding)
        levels = tuple(as_map(y, *grid) for y, grid in zip(torch.split(x, counts, dim=1), self.grids, strict=True))
        enlarged = resized(levels[-1], (finest.shape[2], finest.shape[3]))
        features: Tensor = self.mask_feature(F.relu(self.output_conv(self.lateral_conv(finest) + enlarged)))
        return features, levels
