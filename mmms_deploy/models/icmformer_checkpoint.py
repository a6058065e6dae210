"""What the weights and the config of an official iCMFormer file say of its network.

The weights decide what they can decide: widths, depths, patches, a Swin's heads and window, the number of
cross-modality blocks (the paper and the released code differ there). The config says the rest, and where it contradicts
a tensor, the error names both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmms_deploy.errors import DescriptionError
from mmms_deploy.models.icmformer_config import SWIN_CROSS
from mmms_deploy.models.ritm_params import Params, describe_it, short
from mmms_deploy.models.swin import relative_position_index
from mmms_deploy.models.vit_checkpoint import count

State = Mapping[str, Tensor]

VIT_CLASS = "isegm.model.is_icmformer_plainvit_model.PlainVitModel"
SWIN_CLASS = "isegm.model.is_icmformer_swinformer_model.SwinformerModel"
MARK = "backbone.blocks2.0.attn2.qkv.weight"
"""A weight that every iCMFormer has, and no other network."""
SWIN_STAGES = "backbone.layers."
"""How the names of a Swin's blocks begin."""
ICMFORMER_UNREAD = re.compile(
    r"backbone\.(cls_token|fc_norm\..*|head\..*|patch_embed_coords\..*|layers\..*\.relative_position_index)"
    r"|head\.up_conv[12]\..*"
)
"""Layers of the official classes that never run, and indices that follow from the window's size."""
_OWN = ("backbone_params", "neck_params", "head_params")
_FIXED = {"with_aux_output": False}
_VIT_HEADS = {768: 12, 1024: 16, 1280: 16}
"""Attention heads of the published ViTs, by width; the weights do not show them."""
_SWIN_SIZES = {96: 224, 128: 384}
"""The sizes that the released Swins were trained at, by width."""
_SIZE = 448


def describe_icmformer_vit(state: State, params: Params) -> dict[str, Any]:
    """Describe an iCMFormer on a ViT.

    Args:
        state: The weights, under the official names.
        params: The parameters of the class; empty without a config.

    Returns:
        The family's fields of a description.

    Raises:
        DescriptionError: The config contradicts a tensor, or has values that no released network has.
    """
    params.check_outermost(_OWN, _FIXED)
    return _vit(params, state) | _shared(params, state)


def describe_icmformer_swin(state: State, params: Params) -> dict[str, Any]:
    """Describe an iCMFormer on a Swin Transformer; as :func:`describe_icmformer_vit`."""
    params.check_outermost(_OWN, _FIXED)
    return _swin(params, state) | _shared(params, state)


def _shared(params: Params, state: State) -> dict[str, Any]:
    """Return what both have: the head, and the number of cross-modality blocks."""
    head, fusion = params.table("head_params"), "head.fusion_conv.conv.weight"
    width = _shape(state, fusion, params)[0]
    _agree(head, "channels", width, fusion, state)
    for name, value in (("upsample", "x1"), ("num_classes", 1), ("align_corners", False)):
        if head.values.get(name, value) != value:
            raise head.unknown(name, head.values[name], repr(value))
    return {"head_width": width, "cross_depth": count(state, r"backbone\.blocks2\.(\d+)\.") or 0}


# --- a Swin -----------------------------------------------------------------------------------------------------------

_SWIN_KNOWN = {"pretrain_img_size", "patch_size", "in_chans", "in_coord_chans", "embed_dim", "depths", "num_heads"} | {
    *("window_size", "mlp_ratio", "qkv_bias", "qk_scale", "ape", "patch_norm", "out_indices", "frozen_stages"),
    *("drop_rate", "attn_drop_rate", "drop_path_rate", "use_checkpoint", "norm_layer"),
}
_SWIN_FIXED: dict[str, object] = {"in_chans": 3, "in_coord_chans": 3, "qkv_bias": True, "qk_scale": None}
_SWIN_FIXED |= {"ape": False, "patch_norm": True}


def _swin(params: Params, state: State) -> dict[str, Any]:
    table = params.table("backbone_params")
    table.check(_SWIN_KNOWN, _SWIN_FIXED)
    embedding = "backbone.patch_embed.proj.weight"
    width, _, patch, _ = _shape(state, embedding, params, 4)
    _agree(table, "embed_dim", width, embedding, state)
    _agree(table, "patch_size", patch, embedding, state)
    if patch != 4:
        raise table.unknown("patch_size", patch, "4")
    depths, heads = [], []
    said = {name: table.wholes(name, 4) for name in ("depths", "num_heads")}
    window = 0
    for stage in range(4):
        prefix = f"{SWIN_STAGES}{stage}.blocks."
        depths.append(said["depths"][stage] if said["depths"] else count(state, rf"{re.escape(prefix)}(\d+)\.") or 0)
        biases = f"{prefix}0.attn.relative_position_bias_table"
        rows, columns = _shape(state, biases, params, 2)
        side = round(rows**0.5)
        if side * side != rows or side % 2 == 0:
            raise _contradiction(table, "a Swin's table of relative positions", biases, state, "(2 w - 1)^2 rows")
        window = (side + 1) // 2
        _agree(table, "window_size", window, biases, state)
        if said["num_heads"] and said["num_heads"][stage] != columns:
            raise _contradiction(
                table, f"num_heads = {said['num_heads']}", biases, state, f"{said['num_heads'][stage]} columns"
            )
        channels = width << stage
        if channels % columns:
            has = f"the stage has {channels} channels"
            raise _contradiction(table, has, biases, state, f"columns that divide {channels}")
        heads.append(columns)
    fc1 = f"{SWIN_STAGES}0.blocks.0.mlp.fc1.weight"
    ratio = max(1, _shape(state, fc1, params)[0] // width)
    _agree(table, "mlp_ratio", ratio, fc1, state)
    _check_indices(state, window, table)
    side = table.values.get("pretrain_img_size", _SWIN_SIZES.get(width, _SIZE))
    return {
        "size": _size(side, table, "pretrain_img_size"),
        "swin": {"width": width, "depths": depths, "heads": heads, "window": window, "mlp_ratio": ratio},
        "cross_heads": SWIN_CROSS,
    }


def _check_indices(state: State, window: int, table: Params) -> None:
    expected = relative_position_index(window)
    for name, tensor in state.items():
        if name.endswith(".relative_position_index") and not (
            tensor.shape == expected.shape and torch.equal(tensor.long(), expected)
        ):
            raise _contradiction(
                table, f"its tables of biases are for windows of {window} x {window}", name, state, "their index"
            )


# --- a ViT ------------------------------------------------------------------------------------------------------------

_VIT_KNOWN = {"img_size", "patch_size", "in_chans", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias"}
_VIT_FIXED = {"in_chans": 3, "qkv_bias": True}


def _vit(params: Params, state: State) -> dict[str, Any]:
    table = params.table("backbone_params")
    table.check(_VIT_KNOWN, _VIT_FIXED)
    embedding = "backbone.patch_embed.proj.weight"
    dim, _, rows, columns = _shape(state, embedding, params, 4)
    _agree(table, "embed_dim", dim, embedding, state)
    said = table.values.get("patch_size", (rows, columns))
    if (tuple(said) if isinstance(said, list | tuple) else (said, said)) != (rows, columns):
        raise _contradiction(table, f"backbone_params.patch_size = {said}", embedding, state, "patches of that size")
    fc1 = "backbone.blocks.0.mlp.fc1.weight"
    ratio = _shape(state, fc1, params)[0] / dim
    _agree(table, "mlp_ratio", ratio, fc1, state)
    heads = table.whole("num_heads") or _VIT_HEADS.get(dim)
    if heads is None:
        raise DescriptionError(
            f"{params.source}: an iCMFormer on a ViT of width {dim}, without a config that says its attention heads",
            expected=f"a config beside the weights, or a published width ({', '.join(map(str, _VIT_HEADS))})",
            **describe_it("icmformer"),
        )
    if dim % heads:
        raise table.unknown("num_heads", heads, f"a whole number that divides {dim}")
    depth = table.whole("depth") or count(state, r"backbone\.blocks\.(\d+)\.") or 0
    positions = _shape(state, "backbone.pos_embed", params, 3)[1] - 1
    side = round(positions**0.5)
    size = table.values.get("img_size", (side * rows, side * columns))
    neck = params.table("neck_params")
    layers = {0: "neck.down_4.5", 1: "neck.down_8.2", 2: "neck.down_16.0", 3: "neck.down_32.2"}
    widths = []
    for level, layer in layers.items():
        weight = f"{layer}.weight"
        widths.append(_shape(state, weight, params)[0])
        said = neck.wholes("out_dims", 4)
        if said is not None and said[level] != widths[level]:
            raise _contradiction(table, f"neck_params.out_dims = {said}", weight, state, f"{said[level]} rows")
    return {
        "size": _size(size, table, "img_size"),
        "vit": {"patch": [rows, columns], "dim": dim, "depth": depth, "heads": heads, "mlp_ratio": ratio},
        "neck_widths": widths,
    }


# --- config and weights -----------------------------------------------------------------------------------------------


def _shape(state: State, name: str, params: Params, rank: int | None = None) -> tuple[int, ...]:
    tensor = state.get(name)
    if tensor is None or (rank is not None and tensor.ndim != rank) or tensor.ndim == 0 or 0 in tensor.shape:
        found = "is missing" if tensor is None else f"is {list(tensor.shape)}"
        raise DescriptionError(
            f"{params.source}: {name} {found} in an iCMFormer's weights",
            expected=f"that tensor{f' with {rank} dimensions' if rank else ''}, as the official software saves it",
            fix="copy the file again and compare its hash with the source's",
        )
    return tuple(tensor.shape)


def _agree(table: Params, name: str, found: float, tensor: str, state: State) -> None:
    """Check that a parameter, where the config has it, says what a tensor shows."""
    said = table.values.get(name, found)
    if said != found:
        raise _contradiction(table, f"{name} = {short(said)}", tensor, state, f"{name} {found:g} there")


def _size(value: object, table: Params, name: str) -> list[int]:
    pair = value if isinstance(value, list | tuple) else (value, value)
    sides = [n for n in pair if isinstance(n, int) and not isinstance(n, bool) and n > 0]
    if len(pair) != 2 or len(sides) != 2:
        raise table.unknown(name, value, "height and width, such as (448, 448)")
    return sides


def _contradiction(table: Params, said: str, tensor: str, state: State, expected: str) -> DescriptionError:
    return DescriptionError(
        f"{table.source}: {said}, but {tensor} is {list(state[tensor].shape)}",
        expected=f"a config that fits the weights: {expected}",
        **describe_it("icmformer"),
    )
