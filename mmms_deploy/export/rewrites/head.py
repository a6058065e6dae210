"""The end of CSNet: the all-MLP head as one linear map per scale, and the enlargement of its logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.export.rewrites.deployed import Deployed, DeployedMMMS, pointwise_of
from mmms_deploy.export.rewrites.interpolation import interpolation_matrix
from mmms_deploy.models.segformer import SegFormerHead


class FoldedHead(nn.Module):
    """SegFormer's head folded: a 1x1 convolution per scale, bilinear to H/4, sum, ReLU, 1x1 convolution.

    The paper's head applies a linear L_i x + l_i to every scale, enlarges, concatenates, and applies a 1x1 convolution
    W = [W_4 .. W_1] without bias and a BatchNorm. In evaluation, BatchNorm is x * s + t per channel with
    s = gamma / sqrt(variance + eps) and t = beta - mean * s. So what enters the ReLU is

        s sum_i W_i up(L_i x_i + l_i) + t = sum_i up(s W_i L_i x_i) + s sum_i W_i l_i + t.

    A 1x1 convolution mixes channels, the same way at every pixel, and bilinear enlargement mixes pixels, the same way
    in every channel, so the two commute. A bias passes through the enlargement unchanged because its weights sum to one
    at every pixel, those at the borders too. All biases go to the largest scale, which is not enlarged.

    Args:
        head: The head in the paper's form, in evaluation mode.
    """

    def __init__(self, head: SegFormerHead) -> None:
        super().__init__()
        linears = [head.linear_c1.proj, head.linear_c2.proj, head.linear_c3.proj, head.linear_c4.proj]
        norm = head.linear_fuse.bn
        mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
        scale = norm.weight / torch.sqrt(variance + norm.eps)
        fuse = head.linear_fuse.conv.weight[:, :, 0, 0] * scale[:, None]
        blocks = fuse.chunk(4, dim=1)[::-1]  # the concatenation starts with the smallest scale
        bias = norm.bias - mean * scale
        for linear, block in zip(linears, blocks, strict=True):
            bias = bias + block @ linear.bias
        weights = [block @ linear.weight for linear, block in zip(linears, blocks, strict=True)]
        self.scale_4 = pointwise_of(weights[0], bias)
        self.coarse = nn.ModuleList(pointwise_of(weight, None) for weight in weights[1:])
        self.linear_pred = head.linear_pred

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Four maps (B, C_i, H/i, W/i) -> logits (B, 1, H/4, W/4)."""
        size = maps[0].shape[2:]
        enlarged = (
            F.interpolate(conv(small), size=size, mode="bilinear", align_corners=False)
            for conv, small in zip(self.coarse, maps[1:], strict=True)
        )
        # The scale that is not enlarged comes last: compilers then add each enlarged one as it is made, instead of
        # keeping three of them for one sum (a click at 448 x 448 in TensorRT-RTX 1.7: 27 instead of 37 MB in FP16, 43
        # instead of 64 in float32). ONNX Runtime's CPU provider is as fast either way (0.997 of the time).
        coarse = next(enlarged)
        for other in enlarged:
            coarse = coarse + other
        logits: Tensor = self.linear_pred(F.relu(self.scale_4(maps[0]) + coarse))
        return logits


def fold_head(network: DeployedMMMS) -> bool:
    """Replace CSNet's head by its folded form; see :class:`FoldedHead`."""
    network.csnet.decode_head = FoldedHead(network.csnet.decode_head)  # type: ignore[assignment]
    return True


class MatrixResize(nn.Module):
    """Bilinear interpolation as a matrix product from either side.

    Bilinear interpolation is linear interpolation of the rows, then of the columns, and each of them is a matrix.
    Engines interpolate many channels at a time and are slow with a single one; they multiply small matrices fast.

    Args:
        source: (H, W) before.
        target: (H', W') after.
        corners: Whether corners are aligned.
    """

    def __init__(self, source: tuple[int, int], target: tuple[int, int], *, corners: bool = False) -> None:
        super().__init__()
        rows, columns = (interpolation_matrix(s, t, corners=corners) for s, t in zip(source, target, strict=True))
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns.T.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H', W')."""
        return self.get_buffer("rows") @ (x @ self.get_buffer("columns"))


def matrix_resize(network: Deployed) -> bool:
    """Enlarge the logits, one channel, by matrix products; see :class:`MatrixResize`."""
    network.enlarge = MatrixResize(network.coarse_size, network.config.size, corners=network.corners)
    return True
