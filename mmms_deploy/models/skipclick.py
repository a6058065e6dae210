"""SkipClick (Schön et al., WACV workshops 2025), and SkipClick with MMFuser (MMMS paper, arXiv 2509.12963).

Modules have the names that the official checkpoints use, except the backbone, whose name is the same in every network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.errors import DescriptionError
from mmms_deploy.models.backbone import PYRAMID_STRIDE, Backbone, check_size
from mmms_deploy.models.backbone_names import grid_of, resample_table
from mmms_deploy.models.backbones import build_backbone
from mmms_deploy.models.config import Scales, SkipClickConfig
from mmms_deploy.models.fpn import ParallelFPN, hidden_widths, layer_norm
from mmms_deploy.models.fuser import MMFuser
from mmms_deploy.models.inverse_fpn import InverseParallelFPN
from mmms_deploy.models.network import InteractiveNetwork
from mmms_deploy.models.segformer import as_map, tokens

NORM_EPS = 1e-6


class CoordsEmbed(nn.Module):
    """Embeds the interaction tensor on the backbone's grid: one convolution, kernel = stride = patch."""

    def __init__(self, dim: int, patch: tuple[int, int]) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)

    def forward(self, interaction: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H/P * W/P, d)."""
        return tokens(self.proj(interaction))


class MixBlocks(nn.Module):
    """Plain pre-norm ViT blocks with global attention, and a position table; no norm at the end.

    Args:
        dim: d.
        grid: (H/P, W/P).
        depth: Number of blocks.
        heads: Attention heads.
        mlp_ratio: Width of the MLP over d.
    """

    def __init__(self, dim: int, grid: tuple[int, int], depth: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.grid = grid
        self.pos_embed = nn.Parameter(torch.zeros(1, grid[0] * grid[1], dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        norm = partial(nn.LayerNorm, eps=NORM_EPS)
        self.blocks = nn.Sequential(
            *(Block(dim, heads, mlp_ratio=mlp_ratio, qkv_bias=True, norm_layer=norm) for _ in range(depth))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H/P * W/P, d), positions added -> (B, d, H/P, W/P)."""
        return as_map(self.blocks(x), *self.grid)


class SkipNeck(nn.Module):
    """SimpleClick's simple feature pyramid; with skips, every branch reads its own F^(i), too.

    Args:
        dim: Channels of a branch's input: d, or 2 d with skips.
        widths: Channels of the four results.
        hidden: Hidden widths of the first, second and fourth branch; None takes SimpleClick's rule, ParallelFPN's.
    """

    def __init__(self, dim: int, widths: Scales, hidden: tuple[int, int, int] | None = None) -> None:
        super().__init__()
        w4, w8, w16, w32 = widths
        if hidden is None:
            h4, h8, _, h32 = hidden_widths(widths, dim)
        else:
            h4, h8, h32 = hidden
        self.down_4 = nn.Sequential(
            nn.ConvTranspose2d(dim, h4, 2, 2),
            layer_norm(h4),
            nn.GELU(),
            nn.ConvTranspose2d(h4, h4 // 2, 2, 2),
            layer_norm(h4 // 2),
            nn.Conv2d(h4 // 2, w4, 1),
            layer_norm(w4),
            nn.GELU(),
        )
        self.down_8 = nn.Sequential(
            nn.ConvTranspose2d(dim, h8, 2, 2),
            layer_norm(h8),
            nn.Conv2d(h8, w8, 1),
            layer_norm(w8),
            nn.GELU(),
        )
        self.down_16 = nn.Sequential(nn.Conv2d(dim, w16, 1), layer_norm(w16), nn.GELU())
        self.down_32 = nn.Sequential(
            nn.Conv2d(dim, h32, 2, 2),
            layer_norm(h32),
            nn.Conv2d(h32, w32, 1),
            layer_norm(w32),
            nn.GELU(),
        )

    def branches(self) -> tuple[nn.Sequential, ...]:
        """The four branches, finest first."""
        return self.down_4, self.down_8, self.down_16, self.down_32

    def forward(self, x: Tensor, skips: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run all branches.

        Args:
            x: (B, d, h, w).
            skips: Nothing, or F^(1..4), (B, d, h, w) each.

        Returns:
            Four maps, (B, C, 4h, 4w), (B, C, 2h, 2w), (B, C, h, w), (B, C, h/2, w/2), each with its own C.
        """
        seen = [torch.cat([x, skip], dim=1) for skip in skips] or [x] * 4
        return tuple(branch(y) for branch, y in zip(self.branches(), seen, strict=True))


class ConvModule(nn.Module):
    """1x1 convolution, ReLU."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        return F.relu(self.conv(x))


class FusedLevels(nn.Module):
    """What SimpleClick's head and those that are built on it begin with: four maps as one.

    Args:
        widths: Channels of the four maps.
        width: Channels inside.
    """

    def __init__(self, widths: Scales, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(ConvModule(w, width) for w in widths)
        self.fusion_conv = ConvModule(len(widths) * width, width)

    def fused(self, maps: tuple[Tensor, ...], size: torch.Size) -> Tensor:
        """Enlarge four maps, finest first, to a size (h, w), and fuse them: (B, width, h, w)."""
        enlarged = [
            F.interpolate(conv(x), size=size, mode="bilinear", align_corners=False)
            for conv, x in zip(self.convs, maps, strict=True)
        ]
        fused: Tensor = self.fusion_conv(torch.cat(enlarged, dim=1))
        return fused


class MLPHead(FusedLevels):
    """SimpleClick's all-MLP head, without upsampling of its own ("x1").

    Args:
        widths: Channels of the four maps.
        width: Channels inside.
    """

    def __init__(self, widths: Scales, width: int) -> None:
        super().__init__(widths, width)
        self.conv_seg = nn.Conv2d(width, 1, 1)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Four maps, finest first -> logits (B, 1, 4h, 4w), the finest map's size."""
        logits: Tensor = self.conv_seg(self.fused(maps, maps[0].shape[2:]))
        return logits


class SkipClick(InteractiveNetwork):
    """The network.

    With modalities, F^(1..4) pass through ParallelFPN, MMFuser and InverseParallelFPN first; the rest of the network
    uses the result in their place.

    Args:
        config: The network's description.

    Raises:
        SizeError: The network size does not fit the patches, the neck or the pyramid.
        DescriptionError: The backbone is unknown or does not fit.
    """

    config: SkipClickConfig
    backbone: Backbone

    def __init__(self, config: SkipClickConfig) -> None:
        super().__init__()
        self.config = config
        backbone = build_backbone(config.backbone, config.size, PYRAMID_STRIDE if config.modalities else 1)
        if not isinstance(backbone, Backbone):
            raise DescriptionError(
                f"backbone {config.backbone.name!r} of a SkipClick network is a pyramid",
                expected="a plain ViT, whose maps all have one size",
                fix="choose another backbone, or the family mmms",
            )
        self.backbone = backbone
        dim, patch = backbone.dim, backbone.patch
        for p in patch:
            check_size(config.size, patch, 2 * p)  # the neck halves the grid
        if dim % config.mix_heads:
            raise DescriptionError(
                f"mix_heads {config.mix_heads} for a backbone of width {dim}",
                expected="a number that divides it",
                fix="correct the description",
            )
        grid = (config.size[0] // patch[0], config.size[1] // patch[1])
        self.fuser = None
        if config.modalities:
            self.fpn = ParallelFPN(dim, config.widths, config.fpn_hidden, config.size)
            self.fuser = MMFuser(config.modalities, config.widths, config.fuser)
            self.inverse_fpn = InverseParallelFPN(dim, config.widths, config.fpn_hidden, config.size, grid)
        self.fuse: nn.Module = nn.Linear(len(config.levels) * dim, dim) if len(config.levels) > 1 else nn.Identity()
        self.patch_embed_coords = CoordsEmbed(dim, patch)
        self.backbone_mix = MixBlocks(dim, grid, config.mix_depth, config.mix_heads, config.mix_mlp_ratio)
        self.neck = SkipNeck(2 * dim if config.skips else dim, config.neck_widths)
        self.head = MLPHead(config.neck_widths, config.head_width)
        self.feature_names = ("f_fuse", *(f"f_skip_{k}" for k in range(1, 5) if config.skips))

    def mix(
        self, maps: tuple[Tensor, ...], modalities: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """Fuse modalities and levels.

        Returns:
            The fused levels with positions added, (B, H/P * W/P, d); with skips, also the four maps (B, d, H/P, W/P).
        """
        if self.fuser is not None:
            maps = self.inverse_fpn(self.fuser(self.fpn(maps), modalities, present))
        levels = torch.cat([tokens(maps[level - 1]) for level in self.config.levels], dim=2)
        fused = self.fuse(levels) + self.backbone_mix.pos_embed
        return (fused, *maps) if self.config.skips else (fused,)

    def coarse_logits(self, features: tuple[Tensor, ...], interaction: Tensor) -> Tensor:
        """Mix the clicks in, neck and head; returns logits (B, 1, 4 H/P, 4 W/P)."""
        fused, *skips = features
        x = self.backbone_mix(fused + self.patch_embed_coords(interaction))
        logits: Tensor = self.head(self.neck(x, skips))
        return logits

    def adapt(self, state: dict[str, Tensor], grid: tuple[int, int] | None) -> dict[str, Tensor]:
        """Resample the mixing blocks' position table to the network's grid, without antialiasing, as the release does.

        Args:
            state: Weights under their release names.
            grid: The grid of the table; None when it is this network's grid, or square.
        """
        table, target = state.get("backbone_mix.pos_embed"), self.backbone_mix.pos_embed
        if table is None or table.ndim != 3 or table.shape[2] != target.shape[2]:
            return state
        source = grid_of(table.shape[1], self.backbone_mix.grid, grid)
        if source is None or source == self.backbone_mix.grid:
            return state
        resampled = resample_table(table, source, self.backbone_mix.grid, antialias=False)
        return {**state, "backbone_mix.pos_embed": resampled}
