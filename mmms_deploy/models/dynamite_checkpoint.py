"""Official DynaMITe checkpoints: what network a file holds, found from the names and shapes of its weights.

Such a file is detectron2's: ``torch.save({"model": ..., "optimizer": ..., "iteration": ...})``. Its configuration is a
file of its own, and is not needed: the weights say what there is to know, but for the numbers of attention heads after
a Swin and inside a MiT, which are the published ones.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from mmms_deploy.errors import CheckpointKeysError
from mmms_deploy.models.dynamite_config import DynaMITeConfig, MiTConfig
from mmms_deploy.models.dynamite_transformer import LEVELS
from mmms_deploy.models.swin import relative_position_index
from mmms_deploy.models.vit_checkpoint import count, side

State = dict[str, Tensor]

_PIXELS, _CLICKS = "sem_seg_head.pixel_decoder.", "sem_seg_head.interactive_transformer."
_INDEX = ".relative_position_index"
_PADDING = f"{_CLICKS}bg_query"
"""What the training fills batches up with; no answer depends on it."""
_INSIDE = "backbone.bottom_up."
"""How detectron2 may name a backbone."""
_MARK = f"{_CLICKS}static_bg_query"
_MIT = "backbone.patch_embed1."
_STAGES = range(4)


def is_dynamite(names: Collection[str]) -> bool:
    """Whether these are the names of a DynaMITe's weights, by one that no other network has."""
    return _MARK in names


def dynamite_names(state: State, source: str) -> State:
    """Leave out what is no weight that runs: tables of indices, and the query that fills up batches.

    Args:
        state: A DynaMITe's weights, as the file has them.
        source: Where they come from, for messages.

    Raises:
        CheckpointKeysError: As :func:`check_windows`.
    """
    check_windows(state, source)
    return {
        f"backbone.{name.removeprefix(_INSIDE)}" if name.startswith(_INSIDE) else name: tensor
        for name, tensor in state.items()
        if name != _PADDING and not name.endswith(_INDEX)
    }


def check_windows(state: State, source: str) -> None:
    """Check that the file pairs positions in a Swin's windows as this network does.

    Args:
        state: A DynaMITe's weights, as the file has them.
        source: Where they come from, for messages.

    Raises:
        CheckpointKeysError: A table of indices differs; the message names it.
    """
    for name, index in state.items():
        if not name.endswith(_INDEX):
            continue
        window = math.isqrt(len(index)) if index.ndim else 0
        square = index.shape == (window**2, window**2)
        # The shape first: what a table should hold has the square of its length.
        if not square or not torch.equal(index.long(), relative_position_index(window)):
            raise CheckpointKeysError(
                f"{source}: {name} pairs queries and keys with other relative positions",
                expected="Swin's order: positions of a window row by row",
                fix="take the official file, or save it again without these tables",
            )


def describe_dynamite(state: State) -> dict[str, Any]:
    """Return the description of the network that these weights belong to.

    What cannot be read, because a weight is missing or has another shape, is as in the published network on Swin-T; the
    comparison of all keys names it afterwards.

    Args:
        state: A DynaMITe's weights, from :func:`dynamite_names`.

    Returns:
        The fields of a :class:`~mmms_deploy.models.dynamite_config.DynaMITeConfig`.
    """
    plain = DynaMITeConfig()
    layer = f"{_PIXELS}transformer.encoder.layers."
    sampled = side(state, f"{layer}0.self_attn.attention_weights.weight", 0, 2) or 0
    mit = any(name.startswith(_MIT) for name in state)
    return {
        "family": plain.family,
        **({"mit": _mit(state)} if mit else {"swin": _swin(state)}),
        "width": side(state, f"{_PIXELS}mask_features.weight", 0, 4) or plain.width,
        "heads": plain.heads,
        "points": sampled // (plain.heads * LEVELS) or plain.points,
        "pixel_depth": _count(state, layer) or plain.pixel_depth,
        "pixel_hidden": side(state, f"{layer}0.linear1.weight", 0, 2) or plain.pixel_hidden,
        "query_depth": _count(state, f"{_CLICKS}encoder.ffn_layers.") or plain.query_depth,
        "query_hidden": side(state, f"{_CLICKS}encoder.ffn_layers.0.linear1.weight", 0, 2) or plain.query_hidden,
        "mask_depth": _count(state, f"{_CLICKS}decoder.ffn_layers.") or plain.mask_depth,
        "mask_hidden": side(state, f"{_CLICKS}decoder.ffn_layers.0.linear1.weight", 0, 2) or plain.mask_hidden,
        "background_queries": side(state, _MARK, 0, 2) or plain.background_queries,
    }


def _swin(state: State) -> dict[str, Any]:
    plain = DynaMITeConfig().swin
    blocks = [f"backbone.layers.{stage}.blocks." for stage in _STAGES]
    table = "0.attn.relative_position_bias_table"
    width = side(state, "backbone.patch_embed.proj.weight", 0, 4) or plain.width
    rows = side(state, f"{blocks[0]}{table}", 0, 2)
    return {
        "width": width,
        "depths": [_count(state, blocks[stage]) or plain.depths[stage] for stage in _STAGES],
        "heads": [side(state, f"{blocks[stage]}{table}", 1, 2) or plain.heads[stage] for stage in _STAGES],
        "window": (math.isqrt(rows) + 1) // 2 if rows else plain.window,
        "mlp_ratio": (side(state, f"{blocks[0]}0.mlp.fc1.weight", 0, 2) or 0) // width or plain.mlp_ratio,
    }


def _mit(state: State) -> dict[str, Any]:
    plain = MiTConfig()
    blocks = [f"backbone.block{stage + 1}." for stage in _STAGES]
    embeddings = [f"backbone.patch_embed{stage + 1}.proj.weight" for stage in _STAGES]
    widths = [side(state, embeddings[stage], 0, 4) or plain.widths[stage] for stage in _STAGES]
    return {
        "widths": widths,
        "depths": [_count(state, blocks[stage]) or plain.depths[stage] for stage in _STAGES],
        "reductions": [side(state, f"{block}0.attn.sr.weight", 2, 4) or 1 for block in blocks],
        "mlp_ratio": (side(state, f"{blocks[0]}0.mlp.fc1.weight", 0, 2) or 0) // widths[0] or plain.mlp_ratio,
    }


def _count(state: State, prefix: str) -> int | None:
    """Return how many modules are numbered after a prefix; None without any."""
    return count(state, prefix.replace(".", r"\.") + r"(\d+)\.")
