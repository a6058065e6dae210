"""ParallelFPN: four independent branches from the ViT's feature maps to a pyramid (paper section IV)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.models.config import Scales

SCALES = (4, 8, 16, 32)


def layer_norm(channels: int) -> nn.GroupNorm:
    """The paper's "LN": GroupNorm with one group over (C, H, W)."""
    return nn.GroupNorm(1, channels)


class Resize(nn.Module):
    """Bilinear interpolation to a fixed size.

    Args:
        size: Output (H, W).
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, *size)."""
        return F.interpolate(x, size=self.size, mode="bilinear", align_corners=False)


def hidden_widths(widths: Scales, dim: int) -> Scales:
    """The paper's hidden widths for pyramid widths C_i and backbone width ``dim``."""
    return max(2 * widths[0], dim // 2), max(widths[1], dim // 2), max(widths[2], dim), max(widths[3], 2 * dim)


class ParallelFPN(nn.Module):
    """Turns F^(1..4) into f_img^4, f_img^8, f_img^16, f_img^32.

    Args:
        dim: d, channels of the backbone's maps.
        widths: C_i.
        hidden: Hidden widths; None takes the paper's rule.
        size: Network size (H, W), divisible by 32.
    """

    def __init__(self, dim: int, widths: Scales, hidden: Scales | None, size: tuple[int, int]) -> None:
        super().__init__()
        h4, h8, h16, h32 = hidden or hidden_widths(widths, dim)
        c4, c8, c16, c32 = widths

        def at(scale: int) -> Resize:
            return Resize((size[0] // scale, size[1] // scale))

        self.down_4 = nn.Sequential(
            at(8),
            nn.Conv2d(dim, h4, 3, padding=1),
            layer_norm(h4),
            nn.GELU(),
            at(4),
            nn.Conv2d(h4, h4 // 2, 3, padding=1),
            layer_norm(h4 // 2),
            nn.Conv2d(h4 // 2, c4, 1),
            layer_norm(c4),
            nn.GELU(),
        )
        self.down_8 = nn.Sequential(
            at(8),
            nn.Conv2d(dim, h8, 3, padding=1),
            layer_norm(h8),
            nn.Conv2d(h8, c8, 1),
            layer_norm(c8),
            nn.GELU(),
        )
        self.down_16 = nn.Sequential(
            nn.Conv2d(dim, h16, 3, padding=1),
            at(16),
            layer_norm(h16),
            nn.Conv2d(h16, c16, 1),
            layer_norm(c16),
            nn.GELU(),
        )
        self.down_32 = nn.Sequential(
            nn.Conv2d(dim, h32, 3, padding=1),
            at(32),
            layer_norm(h32),
            nn.Conv2d(h32, c32, 1),
            layer_norm(c32),
            nn.GELU(),
        )

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Four maps (B, d, H/P, W/P) -> four maps (B, C_i, H/i, W/i)."""
        branches = (self.down_4, self.down_8, self.down_16, self.down_32)
        return tuple(branch(x) for branch, x in zip(branches, maps, strict=True))
