"""Rewrites of SimpleClick's neck and head, which SkipClick, iCMFormer and MFP have, too."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.export.rewrites.deployed import Deployed, pointwise_of, replace_modules
from mmms_deploy.models.mfp import MFPHead
from mmms_deploy.models.skipclick import FusedLevels, MLPHead


class SplitLevels(nn.Module):
    """The levels of a head, fused by a convolution that comes before the enlargement, level by level.

    The fusing convolution is 1x1, so with its weight as [W_0 .. W_3] it is sum_i W_i up(r_i) + b of the enlarged
    levels. A 1x1 convolution mixes channels, the same way at every pixel, and bilinear enlargement mixes pixels, the
    same way in every channel, so the two commute: sum_i up(W_i r_i) + b. Level 0 is not enlarged.

    Args:
        head: The head in the paper's form.
    """

    def __init__(self, head: FusedLevels) -> None:
        super().__init__()
        self.convs = head.convs
        weight, bias = head.fusion_conv.conv.weight[:, :, 0, 0], head.fusion_conv.conv.bias
        blocks = weight.chunk(len(head.convs), dim=1)
        self.fusion = nn.ModuleList(pointwise_of(block, None if i else bias) for i, block in enumerate(blocks))

    def forward(self, maps: tuple[Tensor, ...], size: torch.Size) -> Tensor:
        """Four maps, finest first, and a size (h, w) -> (B, C, h, w)."""
        levels = [fuse(conv(x)) for fuse, conv, x in zip(self.fusion, self.convs, maps, strict=True)]
        same = [level.shape[2:] == size for level in levels]
        enlarged = [
            level if fits else F.interpolate(level, size=size, mode="bilinear", align_corners=False)
            for level, fits in zip(levels, same, strict=True)
        ]
        total = enlarged[0]
        for level in enlarged[1:]:
            total = total + level
        return F.relu(total)


class SplitFusionHead(nn.Module):
    """The head with its levels fused before they are enlarged; see :class:`SplitLevels`.

    Args:
        head: The head in the paper's form.
    """

    def __init__(self, head: MLPHead) -> None:
        super().__init__()
        self.levels = SplitLevels(head)
        self.conv_seg = head.conv_seg

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Four maps, finest first -> logits (B, 1, 4h, 4w)."""
        logits: Tensor = self.conv_seg(self.levels(maps, maps[0].shape[2:]))
        return logits


class SplitFusionMFPHead(nn.Module):
    """MFP's head with its levels fused before they are enlarged; see :class:`SplitLevels`.

    Args:
        head: The head in the paper's form.
    """

    def __init__(self, head: MFPHead) -> None:
        super().__init__()
        self.levels = SplitLevels(head)
        self.conv_prevMod, self.refine_fusion, self.conv_seg = head.conv_prevMod, head.refine_fusion, head.conv_seg

    def forward(self, maps: tuple[Tensor, ...], seen: Tensor) -> Tensor:
        """As :meth:`MFPHead.forward`."""
        side = self.conv_prevMod(seen)
        fused = self.levels(maps, side.shape[2:])
        logits: Tensor = self.conv_seg(self.refine_fusion(torch.cat([fused, side], dim=1)))
        return logits


def split_fusion(network: Deployed) -> bool:
    """Fuse the head's levels before enlarging them; see :class:`SplitLevels`."""
    changed = replace_modules(network, MLPHead, SplitFusionHead)
    return replace_modules(network, MFPHead, SplitFusionMFPHead) or changed


class ShuffledConv(nn.Module):
    """A transposed convolution with kernel = stride = 2, as a 1x1 convolution and a pixel shuffle.

    Each pixel of the input gives 2x2 pixels of its own: output (o, 2i + a, 2j + b) is sum_c W[c, o, a, b] x[c, i, j].
    That is channel (o, a, b) of a 1x1 convolution.

    Args:
        conv: The transposed convolution.
    """

    def __init__(self, conv: nn.ConvTranspose2d) -> None:
        super().__init__()
        bias = None if conv.bias is None else conv.bias.repeat_interleave(4)
        self.conv = pointwise_of(conv.weight.flatten(1).T, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', 2 H, 2 W)."""
        return F.pixel_shuffle(self.conv(x), 2)


def pixel_shuffle(network: Deployed) -> bool:
    """Run transposed convolutions as 1x1 convolutions; see :class:`ShuffledConv`."""

    def make(conv: nn.ConvTranspose2d) -> nn.Module | None:
        return ShuffledConv(conv) if conv.kernel_size == conv.stride == (2, 2) else None

    return replace_modules(network, nn.ConvTranspose2d, make)
