"""InterFormer's click part: blocks that attend to pooled keys (interactive multi-head self-attention, I-MSA).

Modules have the names that the official checkpoints use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.bundle.contract import ClickLabel
from mmms_deploy.models.adaptive_pool import adaptive_max_pool
from mmms_deploy.models.fpn import SCALES, layer_norm
from mmms_deploy.models.interformer_config import InterFormerConfig
from mmms_deploy.models.segformer import as_map, tokens

POOL_RATIOS = ((12, 16, 20, 24), (6, 8, 10, 12), (3, 4, 5, 6), (1, 2, 3, 4))
"""How far the keys are pooled at every scale: four maps of keys each."""

Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right and bottom in network pixels; right and bottom are the first outside."""
KeysValues: TypeAlias = tuple[Tensor, Tensor]
"""What attention reads of a map of C channels: keys (B, heads, C / heads, M) and values (B, heads, M, C / heads)."""


def pooled_side(side: int, trained: float, ratio: int) -> int:
    """Return to how many windows a side of keys is pooled.

    Args:
        side: Places along the side.
        trained: The same at the size that the network was trained on.
        ratio: How far it is pooled there.
    """
    least = min(trained / ratio, side)
    return max(1, round(side / round(side / least)))


class PooledAttention(nn.Module):
    """Attention whose keys and values are four maps, each pooled to another size by maxima.

    Args:
        dim: C.
        heads: Attention heads.
        ratios: How far the keys are pooled.
        trained: Side of the map at the size that the network was trained on.
    """

    def __init__(self, dim: int, heads: int, ratios: Sequence[int], trained: float) -> None:
        super().__init__()
        self.heads, self.ratios, self.trained = heads, tuple(ratios), trained
        self.query_proj = nn.Linear(dim, dim)
        self.key_value_proj = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.dconvs = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1, groups=dim) for _ in ratios)

    def keys_and_values(self, source: Tensor) -> KeysValues:
        """Return what is read of a map (B, C, H, W)."""
        found = []
        for ratio, conv in zip(self.ratios, self.dconvs, strict=True):
            pooled = source
            if ratio > 1:
                height, width = (pooled_side(side, self.trained, ratio) for side in source.shape[2:])
                pooled = adaptive_max_pool(source, (height, width))
            found.append(tokens(pooled + conv(pooled)))
        both: Tensor = self.key_value_proj(self.norm(torch.cat(found, dim=1)))
        keys, values = (y.reshape(*y.shape[:2], self.heads, -1) for y in both.chunk(2, dim=2))
        return keys.permute(0, 2, 3, 1), values.transpose(1, 2)

    def attend(self, x: Tensor, keys_and_values: KeysValues) -> Tensor:
        """(B, C, H, W), and what is read of another map -> (B, C, H, W)."""
        queries = self.query_proj(tokens(x))
        q = queries.reshape(*queries.shape[:2], self.heads, -1).transpose(1, 2)
        keys, values = keys_and_values
        mixed = torch.softmax((q @ keys) * q.shape[3] ** -0.5, dim=3) @ values
        return as_map(self.proj(mixed.transpose(1, 2).flatten(2)), x.shape[2], x.shape[3])


class NeckBlock(nn.Module):
    """A pre-norm block of attention and a convolutional MLP.

    Args:
        dim: C.
        heads: Attention heads.
        mlp_ratio: Width of the MLP over C.
        ratios: How far the keys are pooled.
        trained: Side of the map at the size that the network was trained on.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: int, ratios: Sequence[int], trained: float) -> None:
        super().__init__()
        hidden = mlp_ratio * dim
        self.norm1, self.norm_kv, self.norm2 = layer_norm(dim), layer_norm(dim), layer_norm(dim)
        self.attn = PooledAttention(dim, heads, ratios, trained)
        self.mlp = nn.Sequential(
            nn.Conv2d(dim, hidden, 1),
            nn.Hardswish(),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            nn.Hardswish(),
            nn.Conv2d(hidden, dim, 1),
        )

    def keys_and_values(self, source: Tensor) -> KeysValues:
        """Return what the block reads of the map (B, C, H, W) that its keys come from."""
        return self.attn.keys_and_values(self.norm_kv(source))

    def respond(self, x: Tensor, keys_and_values: KeysValues) -> Tensor:
        """(B, C, H, W), and what is read of another map -> (B, C, H, W)."""
        x = x + self.attn.attend(self.norm1(x), keys_and_values)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """(B, C, H, W), and the map of the same shape that keys come from -> (B, C, H, W)."""
        return self.respond(x, self.keys_and_values(source))


class Downsample(nn.Module):
    """Halves a map: 3 x 3 neighbourhoods with stride 2, normalised, through a linear.

    Args:
        dim: C.
        out: Channels of the result.
    """

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(9 * dim)
        self.reduction = nn.Linear(9 * dim, out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H/2, W/2)."""
        height, width = x.shape[2] // 2, x.shape[3] // 2
        padded = F.pad(x, (1, 1, 1, 1))
        # As torch's unfold orders them, but in operators that ONNX has: channels first, then the nine neighbours.
        seen = [
            padded[:, :, row : row + 2 * height : 2, column : column + 2 * width : 2]
            for row in range(3)
            for column in range(3)
        ]
        neighbours = torch.stack(seen, dim=2).flatten(1, 2)
        return as_map(self.reduction(self.norm(tokens(neighbours))), height, width)


class Stage(nn.Module):
    """The blocks of one scale whose result also feeds the next scale.

    Args:
        blocks: The blocks.
        downsample: What halves the result; None at the last scale.
    """

    def __init__(self, blocks: Sequence[NeckBlock], downsample: Downsample | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def keys_of_image(self, feature: Tensor) -> KeysValues:
        """Return the first block's keys and values from the image's map (B, C, H, W)."""
        first: Any = self.blocks[0]
        keys: KeysValues = first.keys_and_values(feature)
        return keys

    def forward(self, x: Tensor, keys_of_image: KeysValues) -> Tensor:
        """(B, C, H, W), and the first block's keys and values -> (B, C, H, W)."""
        first: Any = self.blocks[0]
        y: Tensor = first.respond(x, keys_of_image)
        for block in self.blocks[1:]:
            y = block(y, y)
        return y


class RefineStage(nn.Module):
    """The blocks of one scale that only refine its output.

    Args:
        blocks: The blocks; their keys come from the map that they refine.
    """

    def __init__(self, blocks: Sequence[NeckBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, box: Box | None = None) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W); with a box, in the map's own pixels, nothing outside of it changes."""
        part = x if box is None else x[:, :, box[1] : box[3], box[0] : box[2]]
        for block in self.blocks:
            part = block(part, part)
        if box is None:
            return part
        out = x.clone()
        out[:, :, box[1] : box[3], box[0] : box[2]] = part
        return out


class Neck(nn.Module):
    """Joins the labels to the pyramid and mixes them, scale by scale.

    Args:
        config: The network's description.

    Attributes:
        patch_embed: (5, C_4), what the network sees of each of the five labels.
        embedding: What embeds the labels in a rewritten network; None for the paper's form.
    """

    embedding: nn.Module | None

    def __init__(self, config: InterFormerConfig) -> None:
        super().__init__()
        self.embedding = None
        self.patch_embed = nn.Parameter(torch.empty(len(ClickLabel), config.widths[0]).normal_())
        # Of an untrained network: its own answer, fed back, must not outweigh the clicks.
        self.patch_embed.data[ClickLabel.LIKELY_BACKGROUND : ClickLabel.OBJECT] *= 0.02
        stages, refined = [], []
        for i, (dim, scale) in enumerate(zip(config.widths, SCALES, strict=True)):
            trained = config.trained_size / scale
            settings = (dim, config.neck_heads[i], config.mlp_ratios[i], POOL_RATIOS[i], trained)
            last = i + 1 == len(config.widths)
            down = None if last else Downsample(dim, config.widths[i + 1])
            stages.append(Stage([NeckBlock(*settings) for _ in range(config.depths[i])], down))
            refined.append(RefineStage([NeckBlock(*settings) for _ in range(config.refine_depths[i])]))
            self.add_module(f"norm{i}", layer_norm(dim))
        self.stages, self.refine_stages = nn.ModuleList(stages), nn.ModuleList(refined)

    def embed(self, labels: Tensor) -> Tensor:
        """Labels (B, 1, H, W), whole numbers in any dtype -> (B, C_4, H/4, W/4)."""
        if self.embedding is not None:
            planes: Tensor = self.embedding(labels)
            return planes
        seen = F.embedding(labels[:, 0].long(), self.patch_embed).permute(0, 3, 1, 2)
        size = (labels.shape[2] // 4, labels.shape[3] // 4)
        return F.interpolate(seen, size=size, mode="bilinear", align_corners=False)

    def keys_of_image(self, features: Sequence[Tensor]) -> tuple[KeysValues, ...]:
        """Return the keys and values of every scale's first block: they come from the image alone."""
        stages: Any = self.stages
        return tuple(stage.keys_of_image(feature) for stage, feature in zip(stages, features, strict=True))

    def forward(
        self, finest: Tensor, keys_of_image: Sequence[KeysValues], labels: Tensor, box: Box | None = None
    ) -> tuple[Tensor, ...]:
        """Answer one click.

        Args:
            finest: The pyramid's map at scale 4, (B, C_4, H/4, W/4).
            keys_of_image: From :meth:`keys_of_image`.
            labels: (B, 1, H, W).
            box: Where the refining blocks work; None for everywhere.

        Returns:
            Four maps (B, C_i, H/i, W/i).
        """
        x, outputs = finest + self.embed(labels), []
        stages: Any = zip(self.stages, self.refine_stages, keys_of_image, SCALES, strict=True)
        for i, (stage, refine, keys, scale) in enumerate(stages):
            y = stage(x, keys)
            if stage.downsample is not None:
                x = stage.downsample(y)
            if len(refine.blocks):
                y = refine(y, None if box is None else tuple(side // scale for side in box))
            outputs.append(self.get_submodule(f"norm{i}")(y))
        return tuple(outputs)
