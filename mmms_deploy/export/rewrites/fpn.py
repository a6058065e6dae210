"""ParallelFPN's 3x3 convolutions on the side of an interpolation that has fewer pixels.

Convolution and interpolation are both linear: a convolution has the same weights at every pixel, an interpolation in
every channel. They do not simply commute, because a convolution's taps reach to other pixels. Each single tap commutes.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn

from mmms_deploy.export.rewrites.deployed import Deployed, pointwise_of
from mmms_deploy.export.rewrites.interpolation import interpolation_matrix, moved
from mmms_deploy.models.fpn import SCALES, ParallelFPN, Resize

Size = tuple[int, int]


class EnlargedConv(nn.Module):
    """Enlarging, then a 3x3 convolution with zero padding 1, with the convolution's work done before enlarging.

    Let R and C be the enlargement of rows and columns as matrices and W_ab, a and b in -1, 0, 1, the taps of the
    convolution, each a 1x1 convolution of its own. With M_a for M moved by a rows, zeros beyond its ends,

        sum_ab W_ab (R x C^T)[i + a, j + b] = (sum_ab R_a (W_ab x) C_b^T)[i, j].

    The zeros are the padding. So the nine taps are applied to the small map, and the two matrix products that enlarge
    also move the taps' results and add them up.

    Args:
        conv: The convolution.
        source: (H, W) before enlarging.
        target: (H', W') after it.
    """

    def __init__(self, conv: nn.Conv2d, source: Size, target: Size) -> None:
        super().__init__()
        self.channels = conv.out_channels
        # Channels of the taps: b, output channel, a. So R_a has the (a, row) it sums over side by side.
        taps = conv.weight.permute(3, 0, 2, 1).flatten(0, 2)
        self.taps = pointwise_of(taps, None)
        self.bias = conv.bias
        rows, columns = (interpolation_matrix(s, t) for s, t in zip(source, target, strict=True))
        self.register_buffer("rows", torch.cat([moved(rows, a) for a in (-1, 0, 1)], dim=1))
        self.register_buffer("columns", torch.stack([moved(columns, b).T for b in (-1, 0, 1)]))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H', W')."""
        batch, _, height, width = x.shape
        rows, columns = self.get_buffer("rows"), self.get_buffer("columns")
        y: Tensor = rows @ self.taps(x).reshape(batch, 3 * self.channels, 3 * height, width)
        y = y.reshape(batch, 3, -1, width) @ columns
        y = y.sum(dim=1).reshape(batch, self.channels, rows.shape[0], columns.shape[2])
        return y if self.bias is None else y + self.bias.reshape(1, -1, 1, 1)


class ShrunkConv(nn.Module):
    """A 3x3 convolution with zero padding 1, then shrinking, with the convolution's work done after shrinking.

    With R, C, W_ab as in :class:`EnlargedConv`, and M_a for M moved by a *columns*,

        (R (sum_ab W_ab x[. + a, . + b]) C^T)[i, j] = sum_ab W_ab (R_a x C_b^T)[i, j].

    So the map is interpolated nine times, once for the place that each tap reads. The nine results lie side by side in
    one map three times as high and as wide, which a 3x3 convolution of stride 3 reads.

    Args:
        conv: The convolution.
        source: (H, W) before shrinking.
        target: (H', W') after it.
    """

    def __init__(self, conv: nn.Conv2d, source: Size, target: Size) -> None:
        super().__init__()
        rows, columns = (
            torch.stack([moved(interpolation_matrix(s, t).T, -a).T for a in (-1, 0, 1)], dim=1).flatten(0, 1)
            for s, t in zip(source, target, strict=True)
        )
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns.T.contiguous())
        self.conv = nn.Conv2d(conv.in_channels, conv.out_channels, 3, 3, bias=conv.bias is not None, device="meta")
        self.conv.weight, self.conv.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H', W')."""
        out: Tensor = self.conv(self.get_buffer("rows") @ (x @ self.get_buffer("columns")))
        return out


def small_convolutions(network: Deployed) -> bool:
    """Run each 3x3 convolution of ParallelFPN, and of its inverse, on the smaller map beside its interpolation.

    An interpolation to the size that the map already has is left out.
    """
    patch = network.patch
    if patch is None or not isinstance(getattr(network, "fpn", None), ParallelFPN):
        return False
    (height, width), (rows, columns) = network.config.size, patch
    scales = [(height // scale, width // scale) for scale in SCALES]
    changed = False
    for pyramid, sizes in (("fpn", [(height // rows, width // columns)] * 4), ("inverse_fpn", scales)):
        owner: nn.Module | None = getattr(network, pyramid, None)
        branches = [] if owner is None else list(owner.named_children())
        for (name, branch), size in zip(branches, sizes, strict=False):
            layers = list(branch.children())
            smaller = _at_smaller_size(layers, size)
            changed = changed or len(smaller) < len(layers)
            setattr(owner, name, nn.Sequential(*smaller))
    return changed


def _at_smaller_size(layers: list[nn.Module], size: Size) -> list[nn.Module]:
    """Return the layers of a branch with pairs of interpolation and convolution replaced; ``size`` is the input's."""
    done: list[nn.Module] = []
    before = size  # the input size of the last of them
    for layer in layers:
        last = done[-1] if done else None
        if isinstance(layer, Resize):
            if _is_3x3(last) and _pixels(layer.size) < _pixels(size):
                done[-1] = ShrunkConv(last, size, layer.size)
            elif layer.size != size:
                done.append(layer)
            before, size = size, layer.size
        elif _is_3x3(layer) and isinstance(last, Resize) and _pixels(before) < _pixels(size):
            done[-1] = EnlargedConv(layer, before, size)
        else:
            done.append(layer)
    return done


def _pixels(size: Size) -> int:
    return size[0] * size[1]


def _is_3x3(layer: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    """Whether a layer is a convolution that the two classes above can replace."""
    return (
        isinstance(layer, nn.Conv2d)
        and (layer.kernel_size, layer.stride, layer.padding) == ((3, 3), (1, 1), (1, 1))
        and layer.groups == 1
    )
