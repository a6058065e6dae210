"""MFP (Lee et al., CVPR 2024): SimpleClick that also sees its previous mask modulated around the newest click.

Modules have the names that the official checkpoints use. The modulation itself is no part of the network: see
:mod:`mmms_deploy.imaging.modulation`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.bundle.contract import ClickChannel
from mmms_deploy.models.config import Scales, ViTConfig
from mmms_deploy.models.mfp_config import MFPConfig
from mmms_deploy.models.simpleclick import EarlyFusionViT
from mmms_deploy.models.skipclick import FusedLevels

SIDE_WIDTH = 64
"""Channels of the side branch's first layer."""


class StridedConv(nn.Module):
    """3x3 convolution with stride 2, ReLU.

    Args:
        dim: Channels that come in.
        out: Channels that go out.
    """

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, out, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H/2, W/2)."""
        return F.relu(self.conv(x))


class SeparableConv(nn.Module):
    """Two depthwise 3x3 convolutions with a BatchNorm between them, a 1x1 convolution, BatchNorm, ReLU.

    Args:
        dim: Channels that come in.
        out: Channels that go out.
    """

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.conv3x3_1 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1 = nn.BatchNorm2d(dim)
        self.conv3x3_2 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.conv1x1 = nn.Conv2d(dim, out, 1)
        self.norm2 = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        return F.relu(self.norm2(self.conv1x1(self.conv3x3_2(self.norm1(self.conv3x3_1(x))))))


def side_branch(width: int) -> nn.Sequential:
    """Return the branch that reads image and previous masks, (B, 5, H, W) -> (B, width, H/4, W/4)."""
    return nn.Sequential(StridedConv(5, SIDE_WIDTH), StridedConv(SIDE_WIDTH, width), SeparableConv(width, width))


def refinement(width: int) -> nn.Sequential:
    """Return what joins a network's maps with the side branch's, (B, 2 width, h, w) -> (B, width, h, w)."""
    return nn.Sequential(SeparableConv(2 * width, width), SeparableConv(width, width))


class MFPHead(FusedLevels):
    """SimpleClick's head with a side branch that reads the image and both previous masks.

    Args:
        widths: Channels of the four maps.
        width: Channels inside.
    """

    def __init__(self, widths: Scales, width: int) -> None:
        super().__init__(widths, width)
        self.conv_prevMod = side_branch(width)
        self.refine_fusion = refinement(width)
        self.conv_seg = nn.Conv2d(width, 1, 1)

    def forward(self, maps: tuple[Tensor, ...], seen: Tensor) -> Tensor:
        """Answer.

        Args:
            maps: Four maps, finest first.
            seen: (B, 5, H, W): the normalised image, the previous probability and the modulated one.

        Returns:
            Logits (B, 1, H/4, W/4).
        """
        side = self.conv_prevMod(seen)
        logits: Tensor = self.conv_seg(self.refine_fusion(torch.cat([self.fused(maps, side.shape[2:]), side], dim=1)))
        return logits


def previous_maps(interaction: Tensor, channels: tuple[ClickChannel, ...]) -> Tensor:
    """Return the previous probability and the modulated one of an interaction tensor, (B, 2, H, W)."""
    first, second = channels.index(ClickChannel.PREVIOUS), channels.index(ClickChannel.MODULATED)
    return torch.cat([interaction[:, first : first + 1], interaction[:, second : second + 1]], dim=1)


class MFPViT(EarlyFusionViT):
    """MFP on a ViT; one run of it.

    Args:
        config: The network's description.
        vit: Its ViT.

    Raises:
        SizeError: The network size does not fit the patches, the windows or the neck.
        DescriptionError: The ViT's widths do not fit together.
    """

    config: MFPConfig

    def __init__(self, config: MFPConfig, vit: ViTConfig) -> None:
        super().__init__(config, vit, config.neck_widths)
        self.feature_names = ("f_patches",)
        self.head: nn.Module = MFPHead(config.neck_widths, config.head_width)

    def image_layer(self) -> nn.Module | None:
        """None: the head reads the image, too, through a padded convolution."""
        return None

    def encode(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) float32, normalised -> the patches with their positions, and the image as it is."""
        return self.backbone.embed(rgb), rgb

    def coarse_logits(self, features: tuple[Tensor, ...], interaction: Tensor) -> Tensor:
        """Logits on the head's grid, (B, 1, H/4, W/4)."""
        patches, rgb = features
        seen = torch.cat([rgb, previous_maps(interaction, self.config.clicks.channels)], dim=1)
        logits: Tensor = self.head(self.pyramid(patches, interaction), seen)
        return logits
