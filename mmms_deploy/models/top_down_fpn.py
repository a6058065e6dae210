"""The adapter of a pyramid backbone: a feature pyramid network (Lin et al. 2017), in ParallelFPN's place."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.models.config import Scales
from mmms_deploy.models.fpn import SCALES, Resize, layer_norm


class TopDownFPN(nn.Module):
    """Turns maps of rising strides into f_img^4, f_img^8, f_img^16, f_img^32.

    Each map is reduced to the adapter's width and normalised. From the coarsest to the finest, the sum so far is
    enlarged and added. A 3x3 convolution, a norm and GELU bring each sum to its width C_i.

    A backbone may lack some strides. Scales finer than its finest map enlarge the sum; scales coarser than its coarsest
    one take the mean of 2 x 2 pixels of the scale before. A map of another size than its scale's is resized.

    Args:
        channels: Channels of the backbone's maps.
        strides: Their strides, rising, from 4, 8, 16, 32.
        widths: C_i.
        width: Channels inside.
        size: Network size (H, W), divisible by 32.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], widths: Scales, width: int, size: tuple[int, int]
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.grids = {scale: (size[0] // scale, size[1] // scale) for scale in SCALES}
        for stride, inputs in zip(strides, channels, strict=True):
            lateral = nn.Sequential(nn.Conv2d(inputs, width, 1), layer_norm(width))
            self.add_module(f"lateral_{stride}", lateral)
        for scale, outputs in zip(SCALES, widths, strict=True):
            output = nn.Sequential(nn.Conv2d(width, outputs, 3, padding=1), layer_norm(outputs), nn.GELU())
            self.add_module(f"output_{scale}", output)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Maps (B, C_k, h, w), finest first -> four maps (B, C_i, H/i, W/i)."""
        sums: dict[int, Tensor] = {}
        coarser: Tensor | None = None
        for stride, x in reversed(list(zip(self.strides, maps, strict=True))):
            own = _at(self.get_submodule(f"lateral_{stride}")(x), self.grids[stride])
            coarser = own if coarser is None else own + _at(coarser, self.grids[stride])
            sums[stride] = coarser
        for scale in SCALES:
            if scale not in sums:
                sums[scale] = self._missing(sums, scale)
        return tuple(self.get_submodule(f"output_{scale}")(sums[scale]) for scale in SCALES)

    def _missing(self, sums: dict[int, Tensor], scale: int) -> Tensor:
        if scale > self.strides[-1]:
            return F.avg_pool2d(sums[scale // 2], 2)
        coarser = next(stride for stride in self.strides if stride > scale)
        return _at(sums[coarser], self.grids[scale])


def _at(x: Tensor, size: tuple[int, int]) -> Tensor:
    resized: Tensor = x if tuple(x.shape[2:]) == size else Resize(size)(x)
    return resized
