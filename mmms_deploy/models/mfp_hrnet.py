"""MFP on HRNet with OCR (Yuan et al., ECCV 2020), as RITM's code joins them.

Modules have the names that the official checkpoints use.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmms_deploy.models.backbone import check_size
from mmms_deploy.models.hrnet import STEM, HRNet
from mmms_deploy.models.mfp import previous_maps, refinement, side_branch
from mmms_deploy.models.mfp_config import HRNetConfig, MFPConfig
from mmms_deploy.models.network import InteractiveNetwork

SIZE_STEP = 32
"""A network's sides are multiples of it: the coarsest branch has 1/32 of them."""


class Scale(nn.Module):
    """Multiplies by the absolute value of a learned number."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), 0.05))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same."""
        return x * self.scale.abs()


def _normed(dim: int, out: int) -> nn.Sequential:
    """1x1 convolution without bias, BatchNorm and ReLU, under OCR's names."""
    return nn.Sequential(nn.Conv2d(dim, out, 1, bias=False), nn.Sequential(nn.BatchNorm2d(out), nn.ReLU()))


class ObjectContext(nn.Module):
    """What every pixel receives from the object region.

    Each pixel attends to the regions. There is one, so that each receives all of it: the layers of queries and keys,
    ``f_pixel`` and ``f_object`` in the files, have no effect and are left out.

    Args:
        dim: Channels of the region.
        key: Channels inside.
    """

    def __init__(self, dim: int, key: int) -> None:
        super().__init__()
        self.f_down = _normed(dim, key)
        self.f_up = _normed(key, dim)

    def forward(self, region: Tensor) -> Tensor:
        """(B, C, 1, 1) -> the same."""
        out: Tensor = self.f_up(self.f_down(region))
        return out


class Distribution(nn.Module):
    """Joins every pixel with what it receives from the object region.

    Args:
        dim: Channels of pixels and region.
        key: Channels of the attention.
    """

    def __init__(self, dim: int, key: int) -> None:
        super().__init__()
        self.object_context_block = ObjectContext(dim, key)
        self.conv_bn_dropout = _normed(2 * dim, dim)

    def forward(self, pixels: Tensor, region: Tensor) -> Tensor:
        """(B, C, h, w) and (B, C, 1, 1) -> (B, C, h, w)."""
        context = self.object_context_block(region).expand_as(pixels)
        out: Tensor = self.conv_bn_dropout(torch.cat([context, pixels], dim=1))
        return out


class HRNetOCR(HRNet):
    """HRNet and OCR's head.

    Args:
        config: Widths and form.
    """

    def __init__(self, config: HRNetConfig) -> None:
        super().__init__(config)
        dim = 2 * config.ocr_width
        self.aux_head = nn.Sequential(
            nn.Conv2d(self.width, self.width, 1), nn.BatchNorm2d(self.width), nn.ReLU(), nn.Conv2d(self.width, 1, 1)
        )
        self.conv3x3_ocr = nn.Sequential(nn.Conv2d(self.width, dim, 3, padding=1), nn.BatchNorm2d(dim), nn.ReLU())
        self.ocr_distri_head = Distribution(dim, config.ocr_width)
        self.cls_head = nn.Conv2d(dim, 1, 1)

    def answer(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> logits (B, 1, h, w)."""
        share = torch.softmax(self.aux_head(x).flatten(2), dim=2)
        pixels = self.conv3x3_ocr(x)
        region = pixels.flatten(2) @ share.transpose(1, 2)
        logits: Tensor = self.cls_head(self.ocr_distri_head(pixels, region.unsqueeze(3)))
        return logits


class MFPHRNet(InteractiveNetwork):
    """MFP on HRNet; one run of it.

    Of the image alone it computes the stem's first convolution.

    Args:
        config: The network's description.
        hrnet: Its HRNet.

    Raises:
        SizeError: The network size is no multiple of 32.
    """

    config: MFPConfig

    def __init__(self, config: MFPConfig, hrnet: HRNetConfig) -> None:
        super().__init__()
        check_size(config.size, None, SIZE_STEP)
        self.config = config
        self.fuser = None
        self.feature_names = ("f_stem",)
        self.feature_extractor = HRNetOCR(hrnet)
        self.maps_transform = nn.Sequential(
            nn.Conv2d(len(config.clicks.channels), 16, 1),
            nn.LeakyReLU(0.2) if hrnet.leaky else nn.ReLU(),
            nn.Conv2d(16, STEM, 3, 2, 1),
            Scale(),
        )
        width = self.feature_extractor.width
        self.conv_prevMod = side_branch(width)
        self.refine_fusion = refinement(width)

    @property
    def backbone(self) -> nn.Module:  # type: ignore[override]
        """HRNet, which has another name in the official files."""
        return self.feature_extractor

    def watched(self) -> list[nn.Module]:
        """HRNet's blocks."""
        return self.feature_extractor.blocks()

    def encode(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) float32, normalised -> the stem (B, 64, H/2, W/2), and the image as it is."""
        return self.feature_extractor.stem(rgb), rgb

    def mix(
        self, maps: tuple[Tensor, ...], modalities: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """Return what :meth:`encode` did: nothing else depends on the image alone."""
        return maps

    def coarse_logits(self, features: tuple[Tensor, ...], interaction: Tensor) -> Tensor:
        """Logits at a quarter of the size, (B, 1, H/4, W/4)."""
        stem, rgb = features
        x = self.feature_extractor(stem + self.maps_transform(interaction))
        side = self.conv_prevMod(torch.cat([rgb, previous_maps(interaction, self.config.clicks.channels)], dim=1))
        return self.feature_extractor.answer(self.refine_fusion(torch.cat([x, side], dim=1)))
