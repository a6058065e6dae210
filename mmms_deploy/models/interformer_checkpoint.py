"""Official InterFormer checkpoints: what network a file holds, found from the names and shapes of its weights.

Such a file is mmcv's: ``torch.save({"meta": ..., "state_dict": ..., "optimizer": ...})``. Its configuration is Python
code as text, which is not read: the weights say what there is to know.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmms_deploy.errors import CheckpointKeysError
from mmms_deploy.models.interformer_config import PATCH, InterFormerConfig
from mmms_deploy.models.interformer_vit import position_index
from mmms_deploy.models.vit_checkpoint import count

State = dict[str, Tensor]

_INDEX = "attn.relative_position_index"
_UNREAD = "auxiliary_head."
"""A second head, which only the training uses."""
_NUMBERED = re.compile(r"^(backbone\.layers\.(\d+)\.ffn\.layers)\.\2\.(?=weight|bias)")
_MARKS = ("neck.patch_embed", "neck.stages.0.blocks.0.attn.key_value_proj.weight")
_SCALES = range(4)


def is_interformer(names: Mapping[str, Any]) -> bool:
    """Whether weights are an InterFormer's, by names that no other network has."""
    return any(name in names for name in _MARKS) and any(name.startswith("decode_head.") for name in names)


def native_names(state: State, source: str) -> State:
    """Leave out what is no weight of the network: the training's second head, and tables of indices.

    A published list of InterFormer-Tiny's keys numbers the second linear of an FFN by its block. Such names are taken
    for the second linear's, whose number is 1 in the authors' code.

    Args:
        state: An InterFormer's weights, as the file has them.
        source: Where they come from, for messages.

    Raises:
        CheckpointKeysError: As :func:`check_indices`.
    """
    check_indices(state, source)
    return {
        _NUMBERED.sub(r"\1.1.", name): tensor
        for name, tensor in state.items()
        if not name.startswith(_UNREAD) and not name.endswith(_INDEX)
    }


def check_indices(state: State, source: str) -> None:
    """Check that the file pairs queries, keys and relative positions as this network does.

    The tables of indices in a file are no weights, and others than ours would change every answer.

    Args:
        state: An InterFormer's weights, as the file has them.
        source: Where they come from, for messages.

    Raises:
        CheckpointKeysError: A table differs; the message names it.
    """
    expected: Tensor | None = None
    for name, index in state.items():
        if not name.endswith(_INDEX) or index.is_floating_point() or index.ndim != 2:
            continue
        grid = math.isqrt(max(len(index) - 1, 0))
        if expected is None or expected.shape != index.shape:
            expected = position_index(grid)
        if expected.shape != index.shape or not torch.equal(expected, index.long()):
            raise CheckpointKeysError(
                f"{source}: {name} pairs queries and keys with other relative positions",
                expected="InterFormer's order: patches row by row, the class token first, its three entries last",
                fix="take the official file, or save it again without these tables",
            )


def describe_interformer(state: State) -> dict[str, Any]:
    """Return the description of the network that these weights belong to.

    What cannot be read, because a weight is missing or has another shape, is as in InterFormer-Light; the comparison of
    all keys names it afterwards.

    Args:
        state: An InterFormer's weights, under the official names.

    Returns:
        A description for :func:`~mmms_deploy.models.checkpoint.parse_description`.
    """
    plain = InterFormerConfig()

    def side(name: str, axis: int, dims: int, default: int) -> int:
        tensor = state.get(name)
        return default if tensor is None or tensor.ndim != dims else int(tensor.shape[axis])

    positions = side("backbone.pos_embed", 1, 3, 0) - 1
    grid = math.isqrt(max(positions, 0))
    trained = PATCH * grid if grid > 0 and grid**2 == positions else plain.trained_size
    widths = [side(f"neck.norm{i}.weight", 0, 1, plain.widths[i]) for i in _SCALES]
    hidden = [side(f"neck.stages.{i}.blocks.0.mlp.0.weight", 0, 4, 0) for i in _SCALES]
    ratios = zip(hidden, widths, plain.mlp_ratios, strict=True)
    return {
        "family": plain.family,
        "size": [trained, trained],
        "trained_size": trained,
        "dim": side("backbone.pos_embed", 2, 3, plain.dim),
        "depth": count(state, r"backbone\.layers\.(\d+)\.") or plain.depth,
        "heads": side("backbone.layers.0.attn.relative_position_bias_table", 1, 2, plain.heads),
        "widths": widths,
        "depths": [count(state, rf"neck\.stages\.{i}\.blocks\.(\d+)\.") or plain.depths[i] for i in _SCALES],
        "refine_depths": [count(state, rf"neck\.refine_stages\.{i}\.blocks\.(\d+)\.") or 0 for i in _SCALES],
        "mlp_ratios": [h // w if h and h % w == 0 else ratio for h, w, ratio in ratios],
        "head_width": side("decode_head.bottleneck.conv.weight", 0, 4, plain.head_width),
    }
