"""InverseParallelFPN: from the fused pyramid back to maps as the ViT gives them (MMMS paper, MMFuser in SkipClick)."""

from __future__ import annotations

from torch import Tensor, nn

from mmms_deploy.models.config import Scales
from mmms_deploy.models.fpn import Resize, hidden_widths, layer_norm


class InverseParallelFPN(nn.Module):
    """Turns f_mix^4, f_mix^8, f_mix^16, f_mix^32 into four maps that stand for F^(1..4).

    Args:
        dim: d, channels of the backbone's maps.
        widths: C_i.
        hidden: Hidden widths, those of the ParallelFPN; None takes the paper's rule.
        size: Network size (H, W), divisible by 32.
        grid: (H/P, W/P).
    """

    def __init__(
        self, dim: int, widths: Scales, hidden: Scales | None, size: tuple[int, int], grid: tuple[int, int]
    ) -> None:
        super().__init__()
        h4, h8, h16, h32 = hidden or hidden_widths(widths, dim)
        c4, c8, c16, c32 = widths
        self.up_4 = nn.Sequential(
            Resize((size[0] // 8, size[1] // 8)),
            nn.Conv2d(c4, h4 // 2, 3, padding=1),
            layer_norm(h4 // 2),
            nn.GELU(),
            Resize(grid),
            nn.Conv2d(h4 // 2, h4, 3, padding=1),
            layer_norm(h4),
            nn.Conv2d(h4, dim, 1),
            layer_norm(dim),
            nn.GELU(),
        )
        self.up_8 = nn.Sequential(
            Resize(grid),
            nn.Conv2d(c8, h8, 3, padding=1),
            layer_norm(h8),
            nn.Conv2d(h8, dim, 1),
            layer_norm(dim),
            nn.GELU(),
        )
        self.up_16 = nn.Sequential(
            nn.Conv2d(c16, h16, 3, padding=1),
            Resize(grid),
            layer_norm(h16),
            nn.Conv2d(h16, dim, 1),
            layer_norm(dim),
            nn.GELU(),
        )
        self.up_32 = nn.Sequential(
            Resize(grid),
            nn.Conv2d(c32, h32, 3, padding=1),
            layer_norm(h32),
            nn.Conv2d(h32, dim, 1),
            layer_norm(dim),
            nn.GELU(),
        )

    def forward(self, pyramid: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Four maps (B, C_i, H/i, W/i) -> four maps (B, d, H/P, W/P)."""
        branches = (self.up_4, self.up_8, self.up_16, self.up_32)
        return tuple(branch(x) for branch, x in zip(branches, pyramid, strict=True))
