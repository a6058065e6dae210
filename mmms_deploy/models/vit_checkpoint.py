"""What the weights and the config of a file say of a plain ViT with SimpleClick's neck and head."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmms_deploy.models.config import ViTConfig
from mmms_deploy.models.ritm_params import Params

HEADS: Mapping[int, int] = {768: 12, 1024: 16, 1280: 16, 160: 4}
"""Attention heads of the published ViTs, by width: weights do not say them."""
UNREAD = re.compile(r"backbone\.(cls_token|(fc_norm|head)\.(weight|bias))|head\.up_conv[12]\.[0-3]\.(weight|bias)")
"""What official files hold and no published network runs."""


def side(state: Mapping[str, Tensor], name: str, axis: int, dims: int) -> int | None:
    """Return a side of a weight; None where there is no such weight, or one of another number of axes."""
    tensor = state.get(name)
    return None if tensor is None or tensor.ndim != dims else int(tensor.shape[axis])


def count(state: Mapping[str, Tensor], pattern: str) -> int | None:
    """Return how many modules of a list have weights, up to the last; None without any."""
    found = (re.match(pattern, name) for name in state)
    # A crafted name could otherwise make a network of any depth.
    return max((int(match[1]) + 1 for match in found if match and len(match[1]) < 4), default=None)


def describe_vit(state: Mapping[str, Tensor], params: Params) -> dict[str, Any]:
    """Describe the network: the config's word counts, and the weights' where it says nothing.

    Where both differ, the comparison of all keys names the weights afterwards.

    Args:
        state: The weights, under the official names.
        params: The parameters of the class; empty without a config.

    Returns:
        The fields ``size``, ``vit``, ``neck_widths`` and ``head_width``.

    Raises:
        DescriptionError: The config has values that no published network has.
    """
    usual = ViTConfig()
    backbone, neck, head = (params.table(f"{part}_params") for part in ("backbone", "neck", "head"))
    _check(backbone, neck, head)
    patch = backbone.wholes("patch_size", 2) or [
        side(state, "backbone.patch_embed.proj.weight", axis, 4) or usual.patch[axis - 2] for axis in (2, 3)
    ]
    dim = backbone.whole("embed_dim") or side(state, "backbone.pos_embed", 2, 3) or usual.dim
    ratio = backbone.number("mlp_ratio")
    hidden = side(state, "backbone.blocks.0.mlp.fc1.weight", 0, 2)
    outputs = ("neck.down_4.5", "neck.down_8.2", "neck.down_16.0", "neck.down_32.2")
    widths = [side(state, f"{name}.weight", 0, 4) or 1 for name in outputs]
    return {
        "size": backbone.wholes("img_size", 2) or _size(state, patch),
        "vit": {
            "patch": patch,
            "dim": dim,
            "depth": backbone.whole("depth") or count(state, r"backbone\.blocks\.(\d+)\.") or usual.depth,
            "heads": backbone.whole("num_heads") or HEADS.get(dim) or max(1, dim // 64),
            "mlp_ratio": ratio or (hidden / dim if hidden else usual.mlp_ratio),
        },
        "neck_widths": neck.wholes("out_dims", 4) or widths,
        "head_width": head.whole("channels") or side(state, "head.fusion_conv.conv.weight", 0, 4) or 256,
    }


def _check(backbone: Params, neck: Params, head: Params) -> None:
    sizes = ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")
    training = ("drop_rate", "attn_drop_rate", "drop_path_rate", "num_classes", "global_pool")
    backbone.check((*sizes, *training), {"in_chans": 3, "qkv_bias": True})
    neck.check(("in_dim", "out_dims"), {})
    fixed: dict[str, Any] = {"in_index": (0, 1, 2, 3), "num_classes": 1, "align_corners": False, "upsample": "x1"}
    if (widths := neck.wholes("out_dims", 4)) is not None:
        fixed["in_channels"] = widths
    head.check(("channels", "dropout_ratio", "loss_decode", "in_channels"), fixed)


def _size(state: Mapping[str, Tensor], patch: list[int]) -> list[int]:
    positions = (side(state, "backbone.pos_embed", 1, 3) or 0) - 1
    grid = math.isqrt(max(positions, 0))
    return [grid * patch[0], grid * patch[1]] if grid > 0 and grid * grid == positions else [448, 448]
