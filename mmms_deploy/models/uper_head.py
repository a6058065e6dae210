"""UPerNet's head (Xiao et al. 2018) as mmsegmentation builds it, under its weight names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.models.adaptive_pool import adaptive_mean_pool

POOLS = (1, 2, 3, 6)
"""To how many windows a side, each of the four poolings goes."""


class ConvModule(nn.Module):
    """Convolution without bias, BatchNorm, ReLU.

    Args:
        dim: Channels of the input.
        out: Channels of the result.
        kernel: Side of the kernel; the result has the input's size.
    """

    def __init__(self, dim: int, out: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, out, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        return F.relu(self.bn(self.conv(x)))


class MeanPool(nn.Module):
    """The mean of windows.

    Args:
        count: Windows along either side.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, count, count)."""
        return adaptive_mean_pool(x, (self.count, self.count))


class UPerHead(nn.Module):
    """Pools the coarsest map at four sizes, adds coarse maps to finer ones, and joins all of them at the finest size.

    Args:
        widths: Channels of the four maps, finest first.
        width: Channels inside.
        classes: Channels of the result.
    """

    def __init__(self, widths: Sequence[int], width: int, classes: int) -> None:
        super().__init__()
        self.psp_modules = nn.ModuleList(
            nn.Sequential(MeanPool(count), ConvModule(widths[-1], width, 1)) for count in POOLS
        )
        self.bottleneck = ConvModule(widths[-1] + len(POOLS) * width, width, 3)
        self.lateral_convs = nn.ModuleList(ConvModule(dim, width, 1) for dim in widths[:-1])
        self.fpn_convs = nn.ModuleList(ConvModule(width, width, 3) for _ in widths[:-1])
        self.fpn_bottleneck = ConvModule(len(widths) * width, width, 3)
        self.conv_seg = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps, finest first -> logits (B, classes, h, w) of the finest one's size."""
        coarsest = maps[-1]
        pooled = [_enlarged(module(coarsest), coarsest) for module in self.psp_modules]
        levels = [conv(x) for conv, x in zip(self.lateral_convs, maps[:-1], strict=True)]
        levels.append(self.bottleneck(torch.cat([coarsest, *pooled], dim=1)))
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + _enlarged(levels[i], levels[i - 1])
        outputs = [*(conv(x) for conv, x in zip(self.fpn_convs, levels[:-1], strict=True)), levels[-1]]
        joined = torch.cat([_enlarged(x, outputs[0]) for x in outputs], dim=1)
        logits: Tensor = self.conv_seg(self.fpn_bottleneck(joined))
        return logits


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    size = like.shape[2:]
    return x if x.shape[2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)
