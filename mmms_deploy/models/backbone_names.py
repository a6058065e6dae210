"""How the releases of the backbones name and lay out their weights, and how each resamples its position table.

docs/backbones.md has the source of each of these facts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.weights.sam2_names import TRUNK, released_mlp, released_names

State = dict[str, Tensor]
Size = tuple[int, int]

_UNREAD = r"(norm|fc_norm|head)\..*"
_SAM_PREFIX = "image_encoder."
_SAM_PARTS = ("patch_embed.", "pos_embed", "blocks.", "neck.")


def resample_table(table: Tensor, source: Size, target: Size, *, antialias: bool) -> Tensor:
    """Bring a position table to another grid: bicubic, in float32, corners not aligned, to an explicit size.

    Args:
        table: (1, H*W, d), rows first.
        source: (H, W) of the table.
        target: (H', W') wanted.
        antialias: Whether to widen the kernel when the grid shrinks.

    Returns:
        (1, H'*W', d) float32.
    """
    maps = table.float().reshape(1, *source, -1).permute(0, 3, 1, 2)
    maps = F.interpolate(maps, size=target, mode="bicubic", align_corners=False, antialias=antialias)
    return maps.permute(0, 2, 3, 1).reshape(1, target[0] * target[1], -1)


@dataclass(frozen=True)
class NameStyle:
    """How a release names a ViT's weights. This base class has timm's names.

    Attributes:
        antialias: Whether the release resamples its position table with antialiasing.
        unread: Full-match pattern of names that a release may contain but nothing here reads; a file may lack them.
    """

    antialias: bool = True
    unread: re.Pattern[str] = re.compile(_UNREAD)

    def reads(self, name: str) -> bool:
        """Whether a weight is used for F^(1..4)."""
        return self.unread.fullmatch(name) is None

    def clean(self, state: State) -> State:
        """Return weights under the names of the release's official file, whatever form of it they are stored in."""
        return dict(state)

    def to_timm(self, state: State, model: Any, stored: Size | None = None) -> State:
        """Rename to timm's names and bring the position table to the model's grid.

        Args:
            state: Cleaned weights under the release's names; unknown ones are left as they are.
            model: timm's model.
            stored: Grid (H, W) that the table may have been resampled to already; preferred to a square grid when the
                number of positions fits both. Release files are square.
        """
        return self._resample(dict(state), model, stored)

    def to_release(self, state: State, model: Any) -> State:
        """Rename timm's names to the release's; the position table stays at the model's grid."""
        return dict(state)

    def _resample(self, state: State, model: Any, stored: Size | None) -> State:
        table, target = state.get("pos_embed"), getattr(model, "pos_embed", None)
        if table is None or target is None or table.ndim != 3 or target.ndim != 3 or table.shape[2] != target.shape[2]:
            return state  # load_weights reports it as misshapen
        prefix = 0 if model.no_embed_class else model.num_prefix_tokens
        grid: Size = tuple(model.patch_embed.grid_size)
        source = grid_of(table.shape[1] - prefix, grid, stored)
        if source is None or source == grid:
            return state
        patches = resample_table(table[:, prefix:], source, grid, antialias=self.antialias)
        return {**state, "pos_embed": torch.cat([table[:, :prefix].float(), patches], dim=1)}


def grid_of(count: int, grid: Size, stored: Size | None) -> Size | None:
    """Return the grid (H, W) of a table of ``count`` positions; None when it cannot be determined."""
    if stored is not None and math.prod(stored) == count:
        return stored
    side = math.isqrt(max(count, 0))
    if side > 0 and side * side == count:
        return (side, side)
    return grid if math.prod(grid) == count else None


@dataclass(frozen=True)
class DINOv2Names(NameStyle):
    """facebookresearch/dinov2 with registers: cls_token and pos_embed [1, 1 + 37*37, d], register_tokens, mask_token.

    timm's model adds no position to its prefix tokens, so the class token's position is added to it here.
    """

    unread: re.Pattern[str] = re.compile(rf"{_UNREAD}|mask_token")

    def to_timm(self, state: State, model: Any, stored: Size | None = None) -> State:
        """Rename, merge the class token with its position, resample the others."""
        out = {k: v for k, v in state.items() if k != "mask_token"}
        if "register_tokens" in out:
            out["reg_token"] = out.pop("register_tokens")
        table, cls_token = out.get("pos_embed"), out.get("cls_token")
        if table is not None and cls_token is not None and table.ndim == 3 and table.shape[2] == cls_token.shape[-1]:
            out["cls_token"] = cls_token + table[:, :1]
            out["pos_embed"] = table[:, 1:]
        return self._resample(out, model, stored)

    def to_release(self, state: State, model: Any) -> State:
        """Rename; the class token keeps its position, so the table's entry for it is zero."""
        out = dict(state)
        out["register_tokens"] = out.pop("reg_token")
        table = out["pos_embed"]
        out["pos_embed"] = torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)
        out["mask_token"] = torch.zeros_like(table[:, 0])
        return out


@dataclass(frozen=True)
class MAENames(NameStyle):
    """facebookresearch/mae: timm's names, pos_embed [1, 1 + 14*14, d] with a class entry; maybe a decoder or a head."""

    antialias: bool = False
    unread: re.Pattern[str] = re.compile(rf"{_UNREAD}|mask_token|decoder_.*")


@dataclass(frozen=True)
class IJEPANames(NameStyle):
    """facebookresearch/ijepa, one of its encoders: timm's names, pos_embed [1, 28*28, d], no class token."""

    antialias: bool = False


@dataclass(frozen=True)
class SAMNames(NameStyle):
    """facebookresearch/segment-anything: ``image_encoder.*``, MLPs of ``lin1`` and ``lin2``, pos_embed [1, 64, 64, d].

    The image encoder's weights alone, without that prefix, are accepted too.
    """

    unread: re.Pattern[str] = re.compile(
        rf"{_SAM_PREFIX}neck\..*|prompt_encoder\..*|mask_decoder\..*|pixel_mean|pixel_std"
    )

    def clean(self, state: State) -> State:
        """Add the image encoder's prefix where a file holds the image encoder alone."""
        if not any(name.startswith("blocks.") and name.endswith(".rel_pos_h") for name in state):
            return dict(state)
        return {_SAM_PREFIX + name if name.startswith(_SAM_PARTS) else name: t for name, t in state.items()}

    def to_timm(self, state: State, model: Any, stored: Size | None = None) -> State:
        """Rename. The table is never resampled: SAM runs at one size."""
        return {
            name.removeprefix(_SAM_PREFIX).replace(".mlp.lin", ".mlp.fc"): tensor
            for name, tensor in state.items()
            if name.startswith(_SAM_PREFIX)
        }

    def to_release(self, state: State, model: Any) -> State:
        """Rename."""
        return {_SAM_PREFIX + name.replace(".mlp.fc", ".mlp.lin"): tensor for name, tensor in state.items()}


@dataclass(frozen=True)
class PyramidNames(NameStyle):
    """A pyramid of timm under timm's names.

    Attributes:
        unread: The parts behind the last map, which the network here does not have.
    """

    def to_timm(self, state: State, model: Any, stored: Size | None = None) -> State:
        """Leave out what is not read; bring a table of positions over the whole image (Hiera's) to the model's grid."""
        out = {name: tensor for name, tensor in state.items() if self.reads(name)}
        table, grid = out.get("pos_embed"), getattr(model, "tokens_spatial_shape", None)
        if table is None or grid is None or table.ndim != 3:
            return out
        source = grid_of(table.shape[1], tuple(grid), None)
        if source is not None and source != tuple(grid):
            out["pos_embed"] = resample_table(table, source, tuple(grid), antialias=self.antialias)
        return out

    def to_release(self, state: State, model: Any) -> State:
        """Return them as they are."""
        return dict(state)


@dataclass(frozen=True)
class TimmHieraNames(NameStyle):
    """timm's Hiera of SAM 2 under timm's names; here it is the trunk of an encoder."""

    def to_timm(self, state: State, model: Any, stored: Size | None = None) -> State:
        """Add the trunk's prefix; its tables are brought to the network's grid when it runs."""
        return {f"trunk.{name}": tensor for name, tensor in state.items() if self.reads(name)}

    def to_release(self, state: State, model: Any) -> State:
        """Take the trunk's prefix off."""
        return {name.removeprefix("trunk."): tensor for name, tensor in state.items()}


@dataclass(frozen=True)
class SAM2Names(NameStyle):
    """facebookresearch/sam2: ``image_encoder.trunk.*``, ``image_encoder.neck.*``, ``sam_mask_decoder.conv_s0.*``.

    The tables of the Hiera stay as they are: the network brings them to its grid. timm's files of the trunk alone are
    accepted too.

    Attributes:
        neck: Whether the neck, and the decoder's two first convolutions, are read.
    """

    neck: bool = False

    def reads(self, name: str) -> bool:
        """Whether a weight is used for F^(1..4)."""
        return name.startswith(TRUNK) or (self.neck and name.startswith(_SAM2_NECK))

    def clean(self, state: State) -> State:
        """Bring timm's file of a trunk to the release's names."""
        return released_names(state)

    def to_timm(self, state: State, model: Any, stored: Size | None = None) -> State:
        """Rename."""
        out = {}
        for name, tensor in state.items():
            if self.reads(name):
                short = name.removeprefix("image_encoder.").replace("sam_mask_decoder.", "neck.")
                out[short.replace(".mlp.layers.0.", ".mlp.fc1.").replace(".mlp.layers.1.", ".mlp.fc2.")] = tensor
        return out

    def to_release(self, state: State, model: Any) -> State:
        """Rename."""
        return {
            f"sam_mask_decoder.{name.removeprefix('neck.')}"
            if name.startswith("neck.conv_s")
            else f"image_encoder.{released_mlp(name)}": tensor
            for name, tensor in state.items()
        }


_SAM2_NECK = ("image_encoder.neck.", "sam_mask_decoder.conv_s0.", "sam_mask_decoder.conv_s1.")


@dataclass(frozen=True)
class Release:
    """A backbone known by name.

    Attributes:
        architecture: timm's name of it.
        names: How the release names weights.
        repository: The repository that released it.
        settings: Arguments for ``timm.create_model`` in which the release differs from timm's architecture.
        side: The image size that it runs at, in pixels; None for the network's size.
        pyramid: Whether it is SAM 2's encoder, a pyramid, and no plain ViT.
    """

    architecture: str
    names: NameStyle
    repository: str
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    side: int | None = None
    pyramid: bool = False


RELEASES: Mapping[str, Release] = MappingProxyType(
    {
        "dinov2_b14_reg": Release("vit_base_patch14_reg4_dinov2", DINOv2Names(), "facebookresearch/dinov2"),
        "mae_b16": Release("vit_base_patch16_224", MAENames(), "facebookresearch/mae"),
        "sam_b16": Release(
            "samvit_base_patch16",
            SAMNames(),
            "facebookresearch/segment-anything",
            # Its build_sam.py sets this epsilon; timm leaves torch's 1e-5.
            MappingProxyType({"norm_layer": partial(nn.LayerNorm, eps=1e-6)}),
            side=1024,
        ),
        "ijepa_h16": Release("vit_huge_patch16_gap_448", IJEPANames(), "facebookresearch/ijepa"),
        **{
            f"sam2_hiera_{short}": Release(f"sam2_hiera_{name}", SAM2Names(), "facebookresearch/sam2", pyramid=True)
            for short, name in (("t", "tiny"), ("s", "small"), ("b+", "base_plus"), ("l", "large"))
        },
    }
)
"""Backbones known by name."""
