"""Parts of a network in forms that a CPU trains faster: the same weights, the same functions, up to rounding.

The network that is kept has the paper's forms; only the copies that compute gradients have these.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.export.rewrites.interpolation import interpolation_matrix
from mmms_deploy.models.segformer import EfficientAttention, SegFormerHead


class QuickAttention(EfficientAttention):
    """Efficient attention as products of matrices.

    torch's fused attention is made for GPUs and wide heads; with a head of 40 channels and 196 keys, a CPU core takes a
    third of its time for the products alone.
    """

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries (B, heads, N, C/heads), keys and values (B, heads, M, C/heads) -> (B, heads, N, C/heads)."""
        scores = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)
        return torch.softmax(scores, dim=3, dtype=v.dtype) @ v


class QuickHead(SegFormerHead):
    """The all-MLP head with its linears and its 1x1 convolution multiplied first, and enlarged by products of matrices.

    A 1x1 convolution and bilinear enlargement commute, as :class:`mmms_deploy.export.rewrites.head.FoldedHead` says.
    BatchNorm stays, because its statistics are those of the batch.
    """

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Four maps (B, C_i, H/i, W/i) -> logits (B, 1, H/4, W/4)."""
        height, width = maps[0].shape[2:]
        linears = (self.linear_c1.proj, self.linear_c2.proj, self.linear_c3.proj, self.linear_c4.proj)
        blocks = self.linear_fuse.conv.weight.flatten(1).chunk(4, dim=1)[::-1]  # the concatenation is coarsest first
        total: Tensor | None = None
        for linear, block, x in zip(linears, blocks, maps, strict=True):
            y = F.conv2d(x, (block @ linear.weight)[..., None, None], block @ linear.bias)
            if x is not maps[0]:
                y = _enlarging(x.shape[2], height) @ y @ _enlarging(x.shape[3], width).T
            total = y if total is None else total + y
        if total is None:
            raise ValueError("a head needs its maps")
        logits: Tensor = self.linear_pred(F.relu(self.linear_fuse.bn(total)))
        return logits


_QUICK: dict[type[nn.Module], type[nn.Module]] = {EfficientAttention: QuickAttention, SegFormerHead: QuickHead}


def quicken(network: nn.Module) -> None:
    """Give the parts of a network that a CPU trains the forms of this module, in place; its weights stay."""
    for module in network.modules():
        quick = _QUICK.get(type(module))
        if quick is not None:
            module.__class__ = quick


_enlarging = functools.cache(interpolation_matrix)
