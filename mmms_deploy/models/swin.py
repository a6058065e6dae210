"""The Swin Transformer (Liu et al., ICCV 2021) at a fixed network size, as segmentation networks use it.

Maps are (B, H, W, C), channels last. Modules have the names of the official release and of the networks built on it
(``layers.0.blocks.1.attn.relative_position_bias_table``). What depends on the size alone, the mask of shifted windows,
is computed once, when the network is built.
"""

from __future__ import annotations

import math

import torch
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

Grid = tuple[int, int]
"""Height and width of a map."""

PATCH = 4
FORBIDDEN = -100.0
"""Added to the score of two positions that meet in a shifted window only because the map was rolled."""


class SwinPatchEmbed(nn.Module):
    """One convolution, kernel = stride = 4, then a norm; the image is padded with zeros, right and bottom, to fit.

    Args:
        dim: Channels of the result.
        channels: Channels of the image.
    """

    def __init__(self, dim: int, channels: int = 3) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, PATCH, PATCH)
        self.norm = nn.LayerNorm(dim)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, ceil(H/4), ceil(W/4), C)."""
        bottom, right = (-length % PATCH for length in image.shape[2:])
        if bottom or right:
            image = F.pad(image, (0, right, 0, bottom))
        embedded: Tensor = self.norm(self.proj(image).permute(0, 2, 3, 1))
        return embedded


class WindowAttention(nn.Module):
    """Self-attention inside windows, with a learned bias for each pair of relative positions.

    Args:
        dim: C.
        heads: Attention heads.
        window: w, the side of a window; N = w * w.
    """

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.scale: float = (dim // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("index", relative_position_index(window), persistent=False)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def bias(self) -> Tensor:
        """What is added to the score of each query and key, (heads, N, N)."""
        pairs = self.relative_position_bias_table[self.get_buffer("index").flatten()]
        return pairs.T.reshape(self.heads, self.window**2, self.window**2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend inside each window.

        Args:
            x: (B * windows, N, C).
            mask: Added to the scores of all heads, (windows, 1, N, N); None for nothing.

        Returns:
            (B * windows, N, C).
        """
        q, k, v = (y.unflatten(2, (self.heads, -1)).transpose(1, 2) for y in self.qkv(x).chunk(3, dim=2))
        scores = (q * self.scale) @ k.transpose(2, 3) + self.bias()
        out: Tensor = self.proj((masked_softmax(scores, mask) @ v).transpose(1, 2).flatten(2))
        return out


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return the attention's weights.

    Args:
        scores: (B * windows, heads, N, N).
        mask: Added to them, (windows, 1, N, N); None for nothing.
    """
    if mask is not None:
        scores = (scores.reshape(-1, len(mask), *scores.shape[1:]) + mask).flatten(0, 1)
    return torch.softmax(scores, dim=3)


def relative_position_index(window: int) -> Tensor:
    """Return which row of the table of biases belongs to each query and key of a window, (N, N) int64.

    Row (yi - yj + w - 1) (2w - 1) + (xi - xj + w - 1) belongs to the query i and the key j.
    """
    places = torch.arange(window)
    offsets = places[:, None] - places[None, :] + window - 1
    index = (2 * window - 1) * offsets[:, None, :, None] + offsets[None, :, None, :]
    return index.reshape(window**2, window**2)


def shift_mask(grid: Grid, window: int) -> Tensor:
    """Return what keeps positions apart that are not neighbours in the map, in windows shifted by half a window.

    Args:
        grid: Height and width of the map, before it is padded.
        window: Side of a window.

    Returns:
        (windows, 1, N, N) float32, 0 or -100; N = window * window.
    """

    def labels(length: int) -> Tensor:
        padded = length + -length % window
        places = torch.arange(padded)
        return (places >= padded - window).long() + (places >= padded - window // 2).long()

    areas = 3 * labels(grid[0])[:, None] + labels(grid[1])[None, :]
    inside = to_windows(areas[None, :, :, None], window).squeeze(2)
    apart = inside[:, :, None] != inside[:, None, :]
    return (FORBIDDEN * apart.float()).unsqueeze(1)


def to_windows(x: Tensor, window: int) -> Tensor:
    """Cut a map into windows, row by row: (B, H, W, C) -> (B * windows, N, C)."""
    batch, height, width, channels = x.shape
    split = x.reshape(batch, height // window, window, width // window, window, channels)
    return split.transpose(2, 3).reshape(-1, window**2, channels)


def from_windows(windows: Tensor, grid: Grid, window: int) -> Tensor:
    """Put windows together: (B * windows, N, C) -> (B, H, W, C); ``grid`` is (H, W), multiples of ``window``."""
    rows, columns = grid[0] // window, grid[1] // window
    split = windows.reshape(-1, rows, columns, window, window, windows.shape[2])
    return split.transpose(2, 3).reshape(-1, *grid, windows.shape[2])


class SwinBlock(nn.Module):
    """A pre-norm block whose attention stays inside windows; every second block's windows are shifted by half of one.

    Args:
        dim: C.
        heads: Attention heads.
        window: Side of a window.
        shifted: Whether the windows are shifted.
        mlp_ratio: Width of the MLP over C.
    """

    def __init__(self, dim: int, heads: int, window: int, *, shifted: bool, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.window, self.shift = window, window // 2 if shifted else 0
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, mlp_ratio * dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C); ``mask`` is :func:`shift_mask` of the map, unread where nothing is shifted."""
        height, width = x.shape[1:3]
        below, beside = -height % self.window, -width % self.window
        y = self.norm1(x)
        if below or beside:
            y = F.pad(y, (0, 0, 0, beside, 0, below))
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        windows = self.attn(to_windows(y, self.window), mask if self.shift else None)
        y = from_windows(windows, (height + below, width + beside), self.window)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        if below or beside:
            y = y[:, :height, :width]
        x = x + y
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class PatchMerging(nn.Module):
    """Halve a map: four neighbours, a norm, a linear; odd sizes get a row or column of zeros.

    Args:
        dim: C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H/2), ceil(W/2), 2 C)."""
        below, beside = x.shape[1] % 2, x.shape[2] % 2
        if below or beside:
            x = F.pad(x, (0, 0, 0, beside, 0, below))
        # Down first, then right: (0, 0), (1, 0), (0, 1), (1, 1).
        batch, height, width, channels = x.shape
        four = x.reshape(batch, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 4, 2, 5).flatten(3)
        merged: Tensor = self.reduction(self.norm(four))
        return merged


class SwinStage(nn.Module):
    """Blocks at one stride, and what leads to the next.

    Args:
        dim: C.
        depth: Number of blocks.
        heads: Attention heads.
        window: Side of a window.
        grid: Height and width of the stage's maps.
        mlp_ratio: Width of the MLPs over C.
        last: Whether no stage follows.
    """

    def __init__(
        self, dim: int, depth: int, heads: int, window: int, grid: Grid, *, mlp_ratio: int = 4, last: bool = False
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(dim, heads, window, shifted=number % 2 == 1, mlp_ratio=mlp_ratio) for number in range(depth)
        )
        self.downsample = None if last else PatchMerging(dim)
        self.register_buffer("mask", shift_mask(grid, window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Run the blocks: (B, H, W, C) -> (B, H, W, C)."""
        for block in self.blocks:
            x = block(x, self.get_buffer("mask"))
        return x


class SwinTransformer(nn.Module):
    """Four stages; each stage's maps have their own norm, ``norm0`` to ``norm3``.

    Args:
        size: Network size (H, W) in pixels.
        dim: C, the channels of the first stage; every further stage has twice as many.
        depths: Blocks of each stage.
        heads: Attention heads of each stage.
        window: Side of a window.
        mlp_ratio: Width of the MLPs over their input's.

    Attributes:
        grids: Height and width of each stage's maps, finest first.
        widths: Channels of each stage's maps.
    """

    def __init__(
        self,
        size: Grid,
        dim: int,
        depths: tuple[int, ...],
        heads: tuple[int, ...],
        window: int,
        mlp_ratio: int = 4,
    ) -> None:
        super().__init__()
        self.grids = swin_grids(size, len(depths))
        self.widths = tuple(dim << number for number in range(len(depths)))
        self.patch_embed = SwinPatchEmbed(dim)
        last = len(depths) - 1
        parts = zip(self.widths, depths, heads, self.grids, strict=True)
        self.layers = nn.ModuleList(
            SwinStage(width, depth, count, window, grid, mlp_ratio=mlp_ratio, last=number == last)
            for number, (width, depth, count, grid) in enumerate(parts)
        )
        for number, width in enumerate(self.widths):
            self.add_module(f"norm{number}", nn.LayerNorm(width))

    def output(self, number: int, x: Tensor) -> Tensor:
        """Return a stage's maps as others read them: (B, H, W, C) -> (B, C, H, W), normalised."""
        normalised: Tensor = self.get_submodule(f"norm{number}")(x)
        return normalised.permute(0, 3, 1, 2)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> the stages' maps, (B, C_i, ceil(H / 4), ceil(W / 4)) and coarser ones, finest first."""
        x, maps = self.patch_embed(image), []
        for number in range(len(self.layers)):
            x = self.stage(number)(x)
            maps.append(self.output(number, x))
            x = self.merged(number, x)
        return tuple(maps)

    def stage(self, number: int) -> SwinStage:
        """Return one stage, counted from 0."""
        found: SwinStage = self.layers[number]  # type: ignore[assignment]
        return found

    def merged(self, number: int, x: Tensor) -> Tensor:
        """Bring a stage's maps to the grid of the next; those of the last stage stay as they are."""
        merging = self.stage(number).downsample
        return x if merging is None else merging(x)


def swin_grids(size: Grid, stages: int = 4) -> tuple[Grid, ...]:
    """Return height and width of each stage's maps, finest first; a size that does not fit is rounded up."""
    grids = [(math.ceil(size[0] / PATCH), math.ceil(size[1] / PATCH))]
    while len(grids) < stages:
        height, width = grids[-1]
        grids.append((math.ceil(height / 2), math.ceil(width / 2)))
    return tuple(grids)
