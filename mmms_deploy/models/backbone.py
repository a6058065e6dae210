"""FM_RGB: a frozen ViT as a black box that returns four feature maps (paper section IV).

Backbones come from timm; weights are read and written under the names of their official release.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from mmms_deploy.errors import DescriptionError, SizeError
from mmms_deploy.models.config import BackboneConfig

PYRAMID_STRIDE = 32
State = dict[str, Tensor]


def check_size(size: tuple[int, int], patch: tuple[int, int]) -> None:
    """Check that a network size (H, W) fits the patches (H, W) and the pyramid.

    Raises:
        SizeError: It does not.
    """
    for axis, length, p in zip(("height", "width"), size, patch, strict=True):
        if length <= 0 or length % p or length % PYRAMID_STRIDE:
            step = math.lcm(p, PYRAMID_STRIDE)
            near = sorted({max(step, length // step * step), max(step, (length // step + 1) * step)})
            raise SizeError(
                f"network {axis} {length}",
                expected=f"a positive multiple of the patch size {p} and of {PYRAMID_STRIDE}, that is of {step}",
                fix=f"use {' or '.join(map(str, near))} (--size)",
            )


@dataclass(frozen=True)
class NameStyle:
    """How a release names a ViT's weights.

    Attributes:
        to_timm: Turns a release's state into timm's, for a given model; leaves unknown keys as they are.
        to_release: The inverse.
        unread: Names that a release carries but nothing here reads; a checkpoint may leave them out.
    """

    to_timm: Callable[[State, nn.Module], State]
    to_release: Callable[[State, nn.Module], State]
    unread: frozenset[str] = frozenset({"norm.weight", "norm.bias"})


def _resample(state: State, model: Any) -> State:
    """Bring a square or differently sized position table to the model's grid, as DINOv2's release and timm do."""
    table, target = state.get("pos_embed"), getattr(model, "pos_embed", None)
    if table is None or target is None or table.ndim != 3 or table.shape == target.shape:
        return state
    prefix = 0 if model.no_embed_class else model.num_prefix_tokens
    side = round(max(table.shape[1] - prefix, 0) ** 0.5)
    if side * side != table.shape[1] - prefix or table.shape[2] != target.shape[2]:
        return state  # reported as misshapen
    grid = list(model.patch_embed.grid_size)
    resampled = resample_abs_pos_embed(table, new_size=grid, num_prefix_tokens=prefix, antialias=True)
    return {**state, "pos_embed": resampled}


def _identity(state: State, model: nn.Module) -> State:
    return dict(state)


def _dinov2_to_timm(state: State, model: nn.Module) -> State:
    """facebookresearch/dinov2 with registers: cls_token and pos_embed [1, 1 + 37*37, d], register_tokens, mask_token.

    timm's model adds no position to its prefix tokens, so the class token's position is added to it here.
    """
    out = {k: v for k, v in state.items() if k != "mask_token"}
    if "register_tokens" in out:
        out["reg_token"] = out.pop("register_tokens")
    table, cls_token = out.get("pos_embed"), out.get("cls_token")
    if table is not None and cls_token is not None and table.ndim == 3 and table.shape[2] == cls_token.shape[-1]:
        out["cls_token"] = cls_token + table[:, :1]
        out["pos_embed"] = table[:, 1:]
    return _resample(out, model)


def _timm_to_dinov2(state: State, model: nn.Module) -> State:
    out = dict(state)
    out["register_tokens"] = out.pop("reg_token")
    table = out["pos_embed"]
    out["pos_embed"] = torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)
    out["mask_token"] = torch.zeros_like(table[:, 0])
    return out


TIMM_NAMES = NameStyle(to_timm=_resample, to_release=_identity)
DINOV2_NAMES = NameStyle(
    to_timm=_dinov2_to_timm,
    to_release=_timm_to_dinov2,
    unread=TIMM_NAMES.unread | {"mask_token"},
)

RELEASES: dict[str, tuple[str, NameStyle]] = {
    "dinov2_b14_reg": ("vit_base_patch14_reg4_dinov2", DINOV2_NAMES),
}
"""Backbones known by name: timm architecture and the release's way of naming weights."""


class Backbone(nn.Module):
    """FM_RGB.

    Args:
        config: Which ViT, and which of its blocks.
        size: Network size (H, W) in pixels.

    Raises:
        DescriptionError: The backbone is unknown, is no plain ViT, or has fewer blocks than named.
        SizeError: The size is no multiple of the patch size.
    """

    def __init__(self, config: BackboneConfig, size: tuple[int, int]) -> None:
        super().__init__()
        architecture, self.names = _find(config.name)
        self.vit = _create(architecture, config, size)
        self.patch: tuple[int, int] = tuple(self.vit.patch_embed.patch_size)
        self.dim: int = self.vit.embed_dim
        depth = len(self.vit.blocks)
        blocks = config.blocks or tuple(depth * k // 4 for k in (1, 2, 3, 4))
        if not all(1 <= b <= depth for b in blocks) or list(blocks) != sorted(set(blocks)):
            raise DescriptionError(
                f"backbone blocks {blocks}",
                expected=f"four rising one-based numbers up to {depth}, the depth of {config.name}",
                fix="correct 'backbone.blocks' in the description",
            )
        self.blocks = tuple(b - 1 for b in blocks)

    def forward(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> F^(1..4), the raw patch tokens after the four blocks, as maps (B, d, H/P, W/P)."""
        maps = self.vit.forward_intermediates(
            rgb, indices=list(self.blocks), norm=False, stop_early=True, intermediates_only=True, output_fmt="NCHW"
        )
        return tuple(maps)


def _find(name: str) -> tuple[str, NameStyle]:
    if name in RELEASES:
        return RELEASES[name]
    match = re.fullmatch(r"timm:([\w.]+)", name)
    if match and timm.is_model(match[1]):
        return match[1], TIMM_NAMES
    close = timm.list_models(f"*{match[1].split('.')[0]}*")[:5] if match else []
    raise DescriptionError(
        f"backbone {name!r} is not known",
        expected=f"one of {', '.join(RELEASES)}, or timm:NAME" + (f" (close: {', '.join(close)})" if close else ""),
        fix="correct 'backbone.name' in the description, or --backbone",
    )


def _create(architecture: str, config: BackboneConfig, size: tuple[int, int]) -> Any:
    patch = config.overrides.get("patch_size")
    if any(length <= 0 for length in size):
        check_size(size, (patch, patch) if isinstance(patch, int) else (1, 1))
    try:
        model = timm.create_model(architecture, pretrained=False, num_classes=0, img_size=size, **config.overrides)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        if isinstance(patch, int) and any(s % patch for s in size):
            check_size(size, (patch, patch))
        raise DescriptionError(
            f"timm cannot build {architecture} at {size[0]}x{size[1]} with {config.overrides}: {error}",
            expected="a ViT and arguments that timm.create_model takes",
            fix="correct 'backbone' in the description",
        ) from error
    if not hasattr(model, "blocks") or not hasattr(model, "forward_intermediates") or not hasattr(model, "embed_dim"):
        raise DescriptionError(
            f"backbone {config.name!r} is no plain ViT",
            expected="a vision transformer of constant width with a list of blocks",
            fix="choose another backbone",
        )
    check_size(size, tuple(model.patch_embed.patch_size))
    return model
