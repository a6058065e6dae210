"""The ``config`` that RITM's code and what is built on it store beside the weights, in parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def vit_params(
    size: tuple[int, int], *, dim: int, depth: int, heads: int, patch: tuple[int, int], ratio: int = 4
) -> dict[str, Any]:
    """The parameters of a plain ViT."""
    return {
        "img_size": size,
        "patch_size": patch,
        "in_chans": 3,
        "embed_dim": dim,
        "depth": depth,
        "num_heads": heads,
        "mlp_ratio": ratio,
        "qkv_bias": True,
    }


def head_params(widths: Sequence[int], channels: int, loss: object = None) -> dict[str, Any]:
    """The parameters of the head: widths of the maps that it takes, and its own."""
    return {
        "in_channels": list(widths),
        "in_index": [0, 1, 2, 3],
        "dropout_ratio": 0.1,
        "num_classes": 1,
        "loss_decode": loss,
        "align_corners": False,
        "upsample": "x1",
        "channels": channels,
    }


def config_of(model_class: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The entry ``config``: a class and its parameters."""
    params = {name: {"type": "builtin", "value": value, "specified": True} for name, value in values.items()}
    return {"class": model_class, "params": params}
