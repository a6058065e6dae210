"""Official iCMFormer checkpoints: recognised by their weights, described by their config or by the weights alone.

The weights decide what they can decide: widths, depths, patches, a Swin's heads and window, the number of
cross-modality blocks (the paper and the released code differ there). The config says the rest, and where it contradicts
a tensor, the error names both.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.documents import document
from mmms_deploy.errors import DescriptionError
from mmms_deploy.models.config import RITM_CLICKS, RITM_IMAGE
from mmms_deploy.models.icmformer_config import SWIN_CROSS
from mmms_deploy.models.swin import relative_position_index

State = Mapping[str, Tensor]

VIT_CLASS = "isegm.model.is_icmformer_plainvit_model.PlainVitModel"
SWIN_CLASS = "isegm.model.is_icmformer_swinformer_model.SwinformerModel"
MARK = "backbone.blocks2.0.attn2.qkv.weight"
"""A weight that every iCMFormer has, and no other network."""
_SWIN_MARK = "backbone.layers."
_UNREAD = re.compile(
    r"backbone\.(cls_token|fc_norm\..*|head\..*|patch_embed_coords\..*|layers\..*\.relative_position_index)"
    r"|head\.up_conv[12]\..*"
)
"""Layers of the official classes that never run, and indices that follow from the window's size."""
_FIXED = {"use_disks": True, "with_prev_mask": True, "with_aux_output": False, "random_split": False}
_TABLES = ("backbone_params", "neck_params", "head_params")
_OTHERS = ("norm_radius", "norm_mean_std", "cpu_dist_maps", "use_rgb_conv", "use_leaky_relu", "binary_prev_mask")
_VIT_HEADS = {768: 12, 1024: 16, 1280: 16}
"""Attention heads of the published ViTs, by width; the weights do not show them."""
_SWIN_SIZES = {96: 224, 128: 384}
"""The sizes that the released Swins were trained at, by width."""
_SIZE = 448


def is_icmformer(names: Collection[str]) -> bool:
    """Whether these are the names of an iCMFormer's weights."""
    return MARK in names


def drop_unread(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out what an official file holds beside the weights that run; other networks' weights stay as they are."""
    if not is_icmformer(state):
        return state
    return {name: tensor for name, tensor in state.items() if not _UNREAD.fullmatch(name)}


def describe_icmformer(config: object, state: State, source: str) -> dict[str, Any]:
    """Turn an official checkpoint into a description of the family ``icmformer``.

    Args:
        config: The file's entry ``config``; None when it has none.
        state: Its weights, as the file names them.
        source: Where it comes from, for messages.

    Returns:
        A description for :func:`~mmms_deploy.models.description.parse_description`.

    Raises:
        DescriptionError: The config is for another class, contradicts a tensor, or has values that no released network
            has.
    """
    params = _params(config, state, source)
    swin = any(name.startswith(_SWIN_MARK) for name in state)
    description = _swin(params, state, source) if swin else _vit(params, state, source)
    head = params.get("head_params", {})
    width = _shape(state, "head.fusion_conv.conv.weight", source)[0]
    _agree(head, "channels", width, "head.fusion_conv.conv.weight", state, source)
    for name, value in (("upsample", "x1"), ("num_classes", 1), ("align_corners", False)):
        if head.get(name, value) != value:
            raise _unknown(source, f"head_params.{name}", head[name], repr(value))
    description |= {"family": "icmformer", "head_width": width, "cross_depth": _count(state, "backbone.blocks2.")}
    radius = params.get("norm_radius", 5)
    if isinstance(radius, bool) or not isinstance(radius, int | float) or radius <= 0:
        raise _unknown(source, "norm_radius", radius, "a positive number")
    # Everything else of the section is the family's default.
    clicks = to_builtins(RITM_CLICKS) | {"radius": float(radius)}
    return description | {"clicks": clicks} | _statistics(params, source)


def _statistics(params: Mapping[str, Any], source: str) -> dict[str, Any]:
    if "norm_mean_std" not in params:
        return {}
    value = params["norm_mean_std"]
    try:
        mean, std = ([float(x) for x in values] for values in value)
    except (TypeError, ValueError):
        raise _unknown(source, "norm_mean_std", value, "three means and three standard deviations") from None
    return {"image": to_builtins(RITM_IMAGE) | {"mean": mean, "std": std}}


# --- a Swin -----------------------------------------------------------------------------------------------------------

_SWIN_KNOWN = {"pretrain_img_size", "patch_size", "in_chans", "in_coord_chans", "embed_dim", "depths", "num_heads"} | {
    *("window_size", "mlp_ratio", "qkv_bias", "qk_scale", "ape", "patch_norm", "out_indices", "frozen_stages"),
    *("drop_rate", "attn_drop_rate", "drop_path_rate", "use_checkpoint", "norm_layer"),
}
_SWIN_FIXED: dict[str, object] = {"in_chans": 3, "in_coord_chans": 3, "qkv_bias": True, "qk_scale": None}
_SWIN_FIXED |= {"ape": False, "patch_norm": True}


def _swin(params: Mapping[str, Any], state: State, source: str) -> dict[str, Any]:
    table = params.get("backbone_params", {})
    _check(table, _SWIN_KNOWN, _SWIN_FIXED, source)
    embedding = "backbone.patch_embed.proj.weight"
    width, _, patch, _ = _shape(state, embedding, source, 4)
    _agree(table, "embed_dim", width, embedding, state, source)
    _agree(table, "patch_size", patch, embedding, state, source)
    if patch != 4:
        raise _unknown(source, "backbone_params.patch_size", patch, "4")
    depths, heads = [], []
    said = {name: _list_of(table, name, source) for name in ("depths", "num_heads")}
    window = 0
    for stage in range(4):
        prefix = f"{_SWIN_MARK}{stage}.blocks."
        depths.append(said["depths"][stage] if said["depths"] else _count(state, prefix))
        biases = f"{prefix}0.attn.relative_position_bias_table"
        rows, columns = _shape(state, biases, source, 2)
        side = round(rows**0.5)
        if side * side != rows or side % 2 == 0:
            raise _contradiction(source, "a Swin's table of relative positions", biases, state, "(2 w - 1)^2 rows")
        window = (side + 1) // 2
        _agree(table, "window_size", window, biases, state, source)
        if said["num_heads"] and said["num_heads"][stage] != columns:
            raise _contradiction(
                source, f"num_heads = {said['num_heads']}", biases, state, f"{said['num_heads'][stage]} columns"
            )
        heads.append(columns)
    fc1 = f"{_SWIN_MARK}0.blocks.0.mlp.fc1.weight"
    ratio = _shape(state, fc1, source)[0] // width
    _agree(table, "mlp_ratio", ratio, fc1, state, source)
    _check_indices(state, window, source)
    side = table.get("pretrain_img_size", _SWIN_SIZES.get(width, _SIZE))
    return {
        "size": _size(side, source, "backbone_params.pretrain_img_size"),
        "swin": {"width": width, "depths": depths, "heads": heads, "window": window, "mlp_ratio": ratio},
        "cross_heads": SWIN_CROSS,
    }


def _check_indices(state: State, window: int, source: str) -> None:
    expected = relative_position_index(window)
    for name, tensor in state.items():
        if name.endswith(".relative_position_index") and not (
            tensor.shape == expected.shape and torch.equal(tensor.long(), expected)
        ):
            raise _contradiction(
                source, f"its tables of biases are for windows of {window} x {window}", name, state, "their index"
            )


# --- a ViT ------------------------------------------------------------------------------------------------------------

_VIT_KNOWN = {"img_size", "patch_size", "in_chans", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias"}
_VIT_FIXED = {"in_chans": 3, "qkv_bias": True}


def _vit(params: Mapping[str, Any], state: State, source: str) -> dict[str, Any]:
    table = params.get("backbone_params", {})
    _check(table, _VIT_KNOWN, _VIT_FIXED, source)
    embedding = "backbone.patch_embed.proj.weight"
    dim, _, rows, columns = _shape(state, embedding, source, 4)
    _agree(table, "embed_dim", dim, embedding, state, source)
    said = table.get("patch_size", (rows, columns))
    if (tuple(said) if isinstance(said, list | tuple) else (said, said)) != (rows, columns):
        raise _contradiction(source, f"backbone_params.patch_size = {said}", embedding, state, "patches of that size")
    fc1 = "backbone.blocks.0.mlp.fc1.weight"
    ratio = _shape(state, fc1, source)[0] / dim
    _agree(table, "mlp_ratio", ratio, fc1, state, source)
    heads = table.get("num_heads", _VIT_HEADS.get(dim))
    if heads is None:
        raise DescriptionError(
            f"{source}: an iCMFormer on a ViT of width {dim}, without a config that says its attention heads",
            expected=f"a config beside the weights, or a published width ({', '.join(map(str, _VIT_HEADS))})",
            **_advice(),
        )
    if not isinstance(heads, int) or isinstance(heads, bool) or heads < 1 or dim % heads:
        raise _unknown(source, "backbone_params.num_heads", heads, f"a whole number that divides {dim}")
    depth = table.get("depth", _count(state, "backbone.blocks."))
    if not isinstance(depth, int) or isinstance(depth, bool) or not 4 <= depth <= 1000:
        raise _unknown(source, "backbone_params.depth", depth, "a number of blocks")
    positions = _shape(state, "backbone.pos_embed", source, 3)[1] - 1
    side = round(positions**0.5)
    size = table.get("img_size", (side * rows, side * columns))
    neck = params.get("neck_params", {})
    layers = {0: "neck.down_4.5", 1: "neck.down_8.2", 2: "neck.down_16.0", 3: "neck.down_32.2"}
    widths = []
    for level, layer in layers.items():
        weight = f"{layer}.weight"
        widths.append(_shape(state, weight, source)[0])
        said = neck.get("out_dims")
        if isinstance(said, list | tuple) and len(said) == 4 and said[level] != widths[level]:
            raise _contradiction(source, f"neck_params.out_dims = {list(said)}", weight, state, f"{said[level]} rows")
    return {
        "size": _size(size, source, "backbone_params.img_size"),
        "vit": {"patch": [rows, columns], "dim": dim, "depth": depth, "heads": heads, "mlp_ratio": ratio},
        "neck_widths": widths,
    }


# --- config and weights -----------------------------------------------------------------------------------------------


def _params(config: object, state: State, source: str) -> dict[str, Any]:
    """Return the config's parameters, checked; nothing where a file has no config."""
    if config is None:
        return {}
    described = config if isinstance(config, Mapping) else {}
    name, params = described.get("class"), described.get("params")
    swin = any(key.startswith(_SWIN_MARK) for key in state)
    expected = SWIN_CLASS if swin else VIT_CLASS
    if name != expected or not isinstance(params, Mapping):
        raise DescriptionError(
            f"{source}: an iCMFormer's weights ({MARK}) with a config of the class {_short(name)}",
            expected=f"a config of the class {expected}, as the official software saves it, or none",
            **_advice(),
        )
    for key, entry in params.items():
        if not isinstance(key, str) or not isinstance(entry, Mapping) or "value" not in entry:
            raise _unknown(source, f"params[{key!r}]", entry, "a table with type, value and specified")
    values = {key: entry["value"] for key, entry in params.items()}
    for key, value in values.items():
        if key in _TABLES:
            if not isinstance(value, Mapping):
                raise _unknown(source, key, value, "a table of parameters")
        elif key in _FIXED:
            if value is not _FIXED[key]:
                raise _unknown(source, key, value, repr(_FIXED[key]))
        elif key not in _OTHERS and value is not None and value is not False:
            raise _unknown(source, key, value, "no such parameter")
    return values


def _check(table: Mapping[str, Any], known: Collection[str], fixed: Mapping[str, Any], source: str) -> None:
    for name, value in table.items():
        if name not in known and value is not None and value is not False:
            raise _unknown(source, f"backbone_params.{name}", value, "no such parameter")
        if name in fixed and value != fixed[name]:
            raise _unknown(source, f"backbone_params.{name}", value, repr(fixed[name]))


def _shape(state: State, name: str, source: str, rank: int | None = None) -> tuple[int, ...]:
    tensor = state.get(name)
    if tensor is None or (rank is not None and tensor.ndim != rank) or tensor.ndim == 0 or 0 in tensor.shape:
        found = "is missing" if tensor is None else f"is {list(tensor.shape)}"
        raise DescriptionError(
            f"{source}: {name} {found} in an iCMFormer's weights",
            expected=f"that tensor{f' with {rank} dimensions' if rank else ''}, as the official software saves it",
            fix="copy the file again and compare its hash with the source's",
        )
    return tuple(tensor.shape)


def _count(state: State, prefix: str) -> int:
    """Return how many blocks are numbered after a prefix."""
    return 1 + max(_numbers(state, prefix), default=-1)


def _numbers(state: State, prefix: str) -> Iterator[int]:
    for name in state:
        number = name.removeprefix(prefix).partition(".")[0]
        if name.startswith(prefix) and number.isdecimal() and len(number) < 4:
            yield int(number)


def _agree(table: Mapping[str, Any], name: str, found: float, tensor: str, state: State, source: str) -> None:
    """Check that a parameter, where the config has it, says what a tensor shows."""
    if name in table and table[name] != found:
        raise _contradiction(source, f"{name} = {_short(table[name])}", tensor, state, f"{name} {found:g} there")


def _list_of(table: Mapping[str, Any], name: str, source: str) -> list[int]:
    value = table.get(name)
    if value is None:
        return []
    if not isinstance(value, list | tuple) or len(value) != 4 or not all(_whole(n) for n in value):
        raise _unknown(source, f"backbone_params.{name}", value, "four whole numbers")
    return list(value)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1000


def _size(value: object, source: str, name: str) -> list[int]:
    pair = value if isinstance(value, list | tuple) else (value, value)
    sides = [n for n in pair if isinstance(n, int) and not isinstance(n, bool) and n > 0]
    if len(pair) != 2 or len(sides) != 2:
        raise _unknown(source, name, value, "height and width, such as (448, 448)")
    return sides


def _contradiction(source: str, said: str, tensor: str, state: State, expected: str) -> DescriptionError:
    return DescriptionError(
        f"{source}: {said}, but {tensor} is {list(state[tensor].shape)}",
        expected=f"a config that fits the weights: {expected}",
        **_advice(),
    )


def _unknown(source: str, name: str, value: object, expected: str) -> DescriptionError:
    return DescriptionError(f"{source}: its config says {name} = {_short(value)}", expected=expected, **_advice())


def _advice() -> dict[str, str]:
    place = document("families")
    return {
        "fix": f'describe the network in a file and pass it as description (family = "icmformer"), see {place}',
        "command_fix": f'describe the network with --description (family = "icmformer"), see {place}',
    }


def _short(value: object) -> str:
    return repr(value)[:200]
