"""SegFormer's parts (Xie et al. 2021, arXiv 2105.15203), under the official release's weight names."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.models.config import EncoderConfig, Scales

NORM_EPS = 1e-6


def tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H*W, C), rows first."""
    return x.flatten(2).transpose(1, 2)


def as_map(x: Tensor, height: int, width: int) -> Tensor:
    """(B, H*W, C) -> (B, C, H, W)."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], height, width)


class EfficientAttention(nn.Module):
    """SegFormer's efficient attention; with another source for keys and values it is the paper's EffCA.

    Keys and values are reduced by ``reduction**2`` in token count (strided convolution, then LayerNorm).

    Args:
        dim: Channels.
        heads: Attention heads.
        reduction: Stride of the reduction; 1 for none.
    """

    def __init__(self, dim: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.reduction = reduction
        if reduction > 1:
            self.sr = nn.Conv2d(dim, dim, reduction, reduction)
            self.norm = nn.LayerNorm(dim)

    def forward(self, query: Tensor, source: Tensor, height: int, width: int) -> Tensor:
        """Attend from ``query`` to ``source``.

        Args:
            query: (B, H*W, C).
            source: (B, H*W, C), where keys and values come from; ``query`` itself for self-attention.
            height: H.
            width: W.

        Returns:
            (B, H*W, C).
        """
        if self.reduction > 1:
            source = self.norm(tokens(self.sr(as_map(source, height, width))))
        batch, _, dim = query.shape
        q = self.q(query).reshape(batch, -1, self.heads, dim // self.heads).transpose(1, 2)
        kv = self.kv(source).reshape(batch, -1, 2, self.heads, dim // self.heads)
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)
        out: Tensor = self.proj(self.attend(q, k, v).transpose(1, 2).flatten(2))
        return out

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries (B, heads, N, C/heads), keys and values (B, heads, M, C/heads) -> (B, heads, N, C/heads)."""
        return F.scaled_dot_product_attention(q, k, v)


class DWConv(nn.Module):
    """Depthwise 3x3 convolution over tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, 1, 1, groups=dim)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """(B, H*W, C) -> (B, H*W, C)."""
        return tokens(self.dwconv(as_map(x, height, width)))


class MixFFN(nn.Module):
    """SegFormer's Mix-FFN: linear, depthwise 3x3 convolution, GELU, linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = DWConv(hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """(B, H*W, C) -> (B, H*W, C)."""
        out: Tensor = self.fc2(F.gelu(self.dwconv(self.fc1(x), height, width)))
        return out


class Block(nn.Module):
    """Pre-norm transformer block: efficient self-attention, then Mix-FFN."""

    def __init__(self, dim: int, heads: int, reduction: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = EfficientAttention(dim, heads, reduction)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = MixFFN(dim, dim * mlp_ratio)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """(B, H*W, C) -> (B, H*W, C)."""
        normed = self.norm1(x)
        x = x + self.attn(normed, normed, height, width)
        out: Tensor = x + self.mlp(self.norm2(x), height, width)
        return out


class OverlapPatchEmbed(nn.Module):
    """Overlapping patch embedding: strided convolution, then LayerNorm over channels.

    Args:
        inputs: Input channels.
        dim: Output channels.
        kernel: Kernel size, in pixels.
        stride: Stride, in pixels.
    """

    def __init__(self, inputs: int, dim: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, dim, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim, H/stride, W/stride)."""
        x = self.proj(x)
        height, width = x.shape[2:]
        normed: Tensor = self.norm(tokens(x))
        return as_map(normed, height, width)


def build_stage(owner: nn.Module, number: int, dim: int, config: EncoderConfig) -> None:
    """Give ``owner`` the blocks and the norm of stage ``number`` (1..4) under SegFormer's names."""
    i = number - 1
    blocks = [Block(dim, config.heads[i], config.reductions[i], config.mlp_ratio) for _ in range(config.depths[i])]
    owner.add_module(f"block{number}", nn.ModuleList(blocks))
    owner.add_module(f"norm{number}", nn.LayerNorm(dim, eps=NORM_EPS))


def run_stage(owner: nn.Module, number: int, x: Tensor) -> Tensor:
    """Run stage ``number`` on a (B, C, H, W) map: blocks, then norm."""
    height, width = x.shape[2:]
    t = tokens(x)
    blocks = owner.get_submodule(f"block{number}")
    if not isinstance(blocks, nn.ModuleList):
        raise TypeError(f"block{number} is no ModuleList")
    for block in blocks:
        t = block(t, height, width)
    return as_map(owner.get_submodule(f"norm{number}")(t), height, width)


class MixVisionTransformer(nn.Module):
    """A SegFormer encoder (MiT-B1 with the default configuration and the paper's widths).

    Args:
        channels: Channels of the input image.
        widths: Channels of its four outputs.
        config: Depths, heads, reductions.
    """

    def __init__(self, channels: int, widths: Scales, config: EncoderConfig) -> None:
        super().__init__()
        inputs = (channels, *widths[:-1])
        for number, (source, dim) in enumerate(zip(inputs, widths, strict=True), start=1):
            kernel, stride = (7, 4) if number == 1 else (3, 2)
            self.add_module(f"patch_embed{number}", OverlapPatchEmbed(source, dim, kernel, stride))
            build_stage(self, number, dim, config)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, C, H, W) -> four maps (B, C_i, H/i, W/i), i = 4, 8, 16, 32."""
        maps = []
        for number in range(1, 5):
            x = run_stage(self, number, self.get_submodule(f"patch_embed{number}")(x))
            maps.append(x)
        return tuple(maps)


class MLP(nn.Module):
    """A linear layer over the channels of a map; (B, C, H, W) -> (B, H*W, dim)."""

    def __init__(self, inputs: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H*W, dim)."""
        out: Tensor = self.proj(tokens(x))
        return out


class ConvBNReLU(nn.Module):
    """1x1 convolution without bias, BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        normed: Tensor = self.bn(self.conv(x))
        return F.relu(normed)


class SegFormerHead(nn.Module):
    """SegFormer's all-MLP head with one output channel (SegFormer, equation 4).

    Args:
        widths: Channels of its four inputs.
        dim: Channels inside.
    """

    def __init__(self, widths: Scales, dim: int) -> None:
        super().__init__()
        self.linear_c1, self.linear_c2, self.linear_c3, self.linear_c4 = (MLP(width, dim) for width in widths)
        self.linear_fuse = ConvBNReLU(4 * dim, dim)
        self.linear_pred = nn.Conv2d(dim, 1, 1)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Four maps (B, C_i, H/i, W/i) -> logits (B, 1, H/4, W/4)."""
        size = maps[0].shape[2:]
        linears = (self.linear_c1, self.linear_c2, self.linear_c3, self.linear_c4)
        scaled = []
        for linear, x in zip(linears, maps, strict=True):
            y = as_map(linear(x), x.shape[2], x.shape[3])
            scaled.append(y if x is maps[0] else F.interpolate(y, size=size, mode="bilinear", align_corners=False))
        logits: Tensor = self.linear_pred(self.linear_fuse(torch.cat(scaled[::-1], dim=1)))
        return logits
