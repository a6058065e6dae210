"""FM_RGB as the paper has it (section IV): a frozen ViT as a black box that returns four feature maps.

ViTs come from timm; weights are read and written under the names of their official release.
"""

from __future__ import annotations

import math
import re
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.errors import DescriptionError, SizeError
from mmms_deploy.models.backbone_names import RELEASES, NameStyle, Release
from mmms_deploy.models.config import BackboneConfig
from mmms_deploy.models.frozen_backbone import FrozenBackbone, Shape

__all__ = ["PYRAMID_STRIDE", "RELEASES", "Backbone", "NameStyle", "Release", "check_size"]

PYRAMID_STRIDE = 32


def check_size(size: tuple[int, int], patch: tuple[int, int] | None, stride: int = PYRAMID_STRIDE) -> None:
    """Check that a network size (H, W) fits the patches (H, W) and what follows them.

    Args:
        size: Network size in pixels.
        patch: Patch size in pixels; None for a pyramid backbone, which has none.
        stride: A second number that must divide the size: the pyramid's coarsest scale, or 1.

    Raises:
        SizeError: It does not.
    """
    for axis, length, p in zip(("height", "width"), size, patch or (1, 1), strict=True):
        if length <= 0 or length % p or length % stride:
            step = math.lcm(p, stride)
            near = sorted({max(step, length // step * step), max(step, (length // step + 1) * step)})
            also = f" and of {stride}, that is of {step}" if stride > 1 else ""
            raise SizeError(
                f"network {axis} {length}",
                expected=f"a positive multiple of {f'the patch size {p}{also}' if patch else stride}",
                fix=f"use {' or '.join(map(str, near))}",
                command_fix=f"use {' or '.join(map(str, near))} (--size)",
            )


class Backbone(FrozenBackbone):
    """FM_RGB, a plain ViT.

    For a backbone that runs at one size only (SAM, at 1024 x 1024), the image is enlarged, and the maps are reduced to
    the grid of the network's size. Both are bilinear, corners not aligned, without antialiasing, as ParallelFPN
    interpolates; the paper says only that images and maps are resized.

    Args:
        config: Which ViT, and which of its blocks.
        size: Network size (H, W) in pixels.
        stride: A number that must divide the size, beside the patch size.

    Attributes:
        vit: timm's model.
        names: How the release names weights.
        patch: Patch size (H, W) in network pixels: F^(1..4) are (H / patch[0], W / patch[1]).
        dim: d, channels of F^(1..4).
        blocks: Zero-based numbers of the four blocks.

    Raises:
        DescriptionError: The backbone is unknown, is no plain ViT, or has fewer blocks than named.
        SizeError: The size is no multiple of the patch size.
    """

    part = "vit"

    def __init__(self, config: BackboneConfig, size: tuple[int, int], stride: int = PYRAMID_STRIDE) -> None:
        super().__init__()
        if config.maps != "stages":
            raise DescriptionError(
                f"backbone maps {config.maps!r} of {config.name}",
                expected="'stages', or none: a plain ViT gives the maps of 'backbone.blocks'",
                fix="leave out 'backbone.maps' in the description",
            )
        release = RELEASES.get(config.name) or timm_release(config.name)
        self.names = release.names
        self.vit = _create(release, config, size, stride)
        self.patch = tuple(self.vit.patch_embed.patch_size)
        self.dim: int = self.vit.embed_dim
        self._runs_at: tuple[int, int] | None = None if release.side is None else tuple(self.vit.patch_embed.img_size)
        self._grid = (size[0] // self.patch[0], size[1] // self.patch[1])
        depth = len(self.vit.blocks)
        blocks = config.blocks or tuple(depth * k // 4 for k in (1, 2, 3, 4))
        if not all(1 <= b <= depth for b in blocks) or list(blocks) != sorted(set(blocks)):
            raise DescriptionError(
                f"backbone blocks {blocks}",
                expected=f"four rising one-based numbers up to {depth}, the depth of {config.name}",
                fix="correct 'backbone.blocks' in the description",
            )
        self.blocks = tuple(b - 1 for b in blocks)

    def map_shapes(self) -> tuple[Shape, ...]:
        """Channels, height and width of F^(1..4), which are all the same."""
        return ((self.dim, *self._grid),) * len(self.blocks)

    def watched(self) -> list[nn.Module]:
        """The blocks that run."""
        return list(self.vit.blocks)[: self.blocks[-1] + 1]

    def forward(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> F^(1..4), the raw patch tokens after the four blocks, as maps (B, d, H/P, W/P)."""
        if self._runs_at is not None:
            return tuple(_resized(x, self._grid) for x in self._run_fixed(_resized(rgb, self._runs_at)))
        maps = self.vit.forward_intermediates(
            rgb, indices=list(self.blocks), norm=False, stop_early=True, intermediates_only=True, output_fmt="NCHW"
        )
        return tuple(maps)

    def _run_fixed(self, rgb: Tensor) -> list[Tensor]:
        """Run a SAM at its own size.

        timm's forward_intermediates would resample the position table in every exported graph, to the size that it
        already has. torch's fused attention saves three copies of 800 MB scores, but cannot be exported in timm's form.
        """
        x = self.vit.patch_embed(rgb) + self.vit.pos_embed
        fused = not torch.compiler.is_exporting()
        maps = []
        for number, block in enumerate(self.vit.blocks[: self.blocks[-1] + 1]):
            if hasattr(block.attn, "fused_attn"):
                block.attn.fused_attn = fused
            x = block(x)
            if number in self.blocks:
                maps.append(x.permute(0, 3, 1, 2))
        return maps


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(x.shape[2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def timm_release(name: str) -> Release:
    """Return the entry of ``timm:NAME``.

    Raises:
        DescriptionError: timm has no such network, or the name is of another kind.
    """
    match = re.fullmatch(r"timm:([\w.]+)", name)
    if match and timm.is_model(match[1]):
        return Release(match[1], NameStyle(), "timm")
    close = timm.list_models(f"*{match[1].split('.')[0]}*")[:5] if match else []
    raise DescriptionError(
        f"backbone {name!r} is not known",
        expected=f"one of {', '.join(RELEASES)}, or timm:NAME" + (f" (close: {', '.join(close)})" if close else ""),
        fix="correct 'backbone.name' in the description",
        command_fix="correct 'backbone.name' in the description, or --backbone",
    )


def _create(release: Release, config: BackboneConfig, size: tuple[int, int], stride: int) -> Any:
    patch = config.overrides.get("patch_size")
    if any(length <= 0 for length in size):
        check_size(size, (patch, patch) if isinstance(patch, int) else (1, 1), stride)
    side = size if release.side is None else release.side
    settings = {"img_size": side, **release.settings, **config.overrides}
    try:
        model = timm.create_model(release.architecture, pretrained=False, num_classes=0, **settings)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        if isinstance(patch, int) and any(s % patch for s in size):
            check_size(size, (patch, patch), stride)
        raise DescriptionError(
            f"timm cannot build {release.architecture} at {size[0]}x{size[1]} with {config.overrides}: {error}",
            expected="a ViT and arguments that timm.create_model takes",
            fix="correct 'backbone' in the description",
        ) from error
    if not all(hasattr(model, name) for name in ("blocks", "forward_intermediates", "embed_dim", "patch_embed")):
        raise DescriptionError(
            f"backbone {config.name!r} is no plain ViT and no pyramid",
            expected="a vision transformer of constant width with a list of blocks, or a network with maps of strides"
            " 4, 8, 16 and 32",
            fix="choose another backbone",
        )
    check_size(size, tuple(model.patch_embed.patch_size), stride)
    if release.side is not None:
        _prepare_fixed(model)
    return model


def _prepare_fixed(model: Any) -> None:
    """Remove the layers after a SAM's blocks, and fill its tables with random values.

    timm initialises the tables with zeros. With untrained weights, a gate would not notice if a table were lost.
    """
    model.neck = nn.Identity()
    for name, table in model.named_parameters():
        if name == "pos_embed" or name.rpartition(".")[2].startswith("rel_pos_"):
            nn.init.trunc_normal_(table, std=0.02)
