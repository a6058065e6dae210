"""HRNet (Wang et al., TPAMI 2020) as RITM's code has it: clicks are added after the stem's first convolution.

Modules have the names that the official checkpoints use. Every enlargement is bilinear with corners aligned.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.models.mfp_config import HRNetConfig

STEM = 64


def conv_norm(dim: int, out: int, kernel: int, stride: int = 1, *, relu: bool = True) -> nn.Sequential:
    """Return a convolution without bias, BatchNorm, and a ReLU where it is wanted."""
    layers: list[nn.Module] = [
        nn.Conv2d(dim, out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out),
    ]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


def enlarged(x: Tensor, size: torch.Size) -> Tensor:
    """Bring a map (B, C, h, w) to a size, bilinearly, corners aligned."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class Bottleneck(nn.Module):
    """ResNet's bottleneck of 64 channels inside and 256 outside.

    Args:
        dim: Channels that come in.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.conv2 = nn.Conv2d(STEM, STEM, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(STEM)
        self.conv3 = nn.Conv2d(STEM, 4 * STEM, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * STEM)
        self.downsample = None if dim == 4 * STEM else conv_norm(dim, 4 * STEM, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 256, H, W)."""
        kept = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + kept)


class BasicBlock(nn.Module):
    """ResNet's block of two 3x3 convolutions.

    Args:
        dim: Channels.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + x)


class HighResolutionModule(nn.Module):
    """Blocks on every branch, and then every branch from all of them.

    Args:
        widths: Channels of each branch, finest first; each next one has half the side.
        blocks: Blocks of each branch.
    """

    def __init__(self, widths: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(w) for _ in range(blocks))) for w in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._path(widths, source, target) for source in range(len(widths)))
            for target in range(len(widths))
        )

    @staticmethod
    def _path(widths: tuple[int, ...], source: int, target: int) -> nn.Module:
        """Return the layers from one branch to another; from a branch to itself there are none."""
        if source == target:
            return nn.Identity()
        if source > target:
            return conv_norm(widths[source], widths[target], 1, relu=False)
        steps = target - source
        return nn.Sequential(
            *(
                conv_norm(widths[source], widths[source if more else target], 3, 2, relu=bool(more))
                for more in reversed(range(steps))
            )
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """One map (B, C, h, w) for each branch, finest first -> the same."""
        seen = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        out = []
        for target, paths in enumerate(self.fuse_layers):
            parts = []
            for source, (path, x) in enumerate(zip(paths, seen, strict=True)):  # type: ignore[call-overload]
                y = path(x)
                parts.append(enlarged(y, seen[target].shape[2:]) if source > target else y)
            total = parts[0]
            for part in parts[1:]:
                total = total + part
            out.append(F.relu(total))
        return out


class HRNet(nn.Module):
    """The backbone, from the image to one map at a quarter of its size.

    Args:
        config: Width and form.

    Attributes:
        width: Channels of the map, the sum of the branches'.
    """

    def __init__(self, config: HRNetConfig) -> None:
        super().__init__()
        w = config.width
        widths = (w, 2 * w, 4 * w, 8 * w)
        blocks, third, fourth, first = (2, 3, 2, 2) if config.small else (4, 4, 3, 4)
        self.width = sum(widths)
        self.conv1 = nn.Conv2d(3, STEM, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.conv2 = nn.Conv2d(STEM, STEM, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(STEM)
        self.layer1 = nn.Sequential(*(Bottleneck(4 * STEM if n else STEM) for n in range(first)))
        begin = (conv_norm(4 * STEM, w, 3), nn.Sequential(conv_norm(4 * STEM, 2 * w, 3, 2)))
        self.transition1 = nn.ModuleList(begin)
        self.stage2 = self._stage(widths[:2], 1, blocks)
        self.transition2 = self._new_branch(widths[:3])
        self.stage3 = self._stage(widths[:3], third, blocks)
        self.transition3 = self._new_branch(widths)
        self.stage4 = self._stage(widths, fourth, blocks)

    @staticmethod
    def _stage(widths: tuple[int, ...], modules: int, blocks: int) -> nn.Sequential:
        return nn.Sequential(*(HighResolutionModule(widths, blocks) for _ in range(modules)))

    @staticmethod
    def _new_branch(widths: tuple[int, ...]) -> nn.ModuleList:
        """Return layers of which the last one makes a new branch from the coarsest; the others are none."""
        new = nn.Sequential(conv_norm(widths[-2], widths[-1], 3, 2))
        return nn.ModuleList([*(nn.Identity() for _ in widths[:-1]), new])

    def stem(self, rgb: Tensor) -> Tensor:
        """(B, 3, H, W), normalised -> (B, 64, H/2, W/2): all that depends on the image alone."""
        return F.relu(self.bn1(self.conv1(rgb)))

    def blocks(self) -> list[nn.Module]:
        """The blocks, in the order in which they run."""
        modules = (module for stage in (self.stage2, self.stage3, self.stage4) for module in stage)
        inner = [block for module in modules for branch in module.branches for block in branch]  # type: ignore[union-attr]
        return [*self.layer1, *inner]

    def forward(self, x: Tensor) -> Tensor:
        """(B, 64, H/2, W/2), the stem with the clicks added -> (B, width, H/4, W/4)."""
        x = self.layer1(F.relu(self.bn2(self.conv2(x))))
        maps = self.stage2([layer(x) for layer in self.transition1])
        maps = self.stage3([*maps, self.transition2[-1](maps[-1])])
        maps = self.stage4([*maps, self.transition3[-1](maps[-1])])
        size = maps[0].shape[2:]
        return torch.cat([maps[0], *(enlarged(y, size) for y in maps[1:])], dim=1)
