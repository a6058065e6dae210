"""Narrow DynaMITes with the full topology, lists of clicks, and files as detectron2 writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmms_deploy.models.checkpoint import random_network, release_state
from mmms_deploy.models.config import SwinConfig
from mmms_deploy.models.dynamite import DynaMITe
from mmms_deploy.models.dynamite_config import DynaMITeConfig, MiTConfig
from mmms_deploy.models.swin import relative_position_index

NARROW_SWIN = SwinConfig(width=8, depths=(2, 1, 1, 1), heads=(1, 2, 2, 4), window=2)
NARROW_MIT = MiTConfig(widths=(8, 8, 20, 16), depths=(1, 1, 1, 1))

Click = tuple[float, float, int, int]
"""x, y, running number, object."""


def tiny_dynamite(kind: str = "swin", **fields: Any) -> DynaMITeConfig:
    """A network of 0.1 M parameters at 40 x 60, which is filled up to 64 x 64; keyword arguments replace fields."""
    settings: dict[str, Any] = {
        "size": (40, 60),
        "width": 32,
        "points": 2,
        "pixel_depth": 1,
        "pixel_hidden": 32,
        "query_depth": 3,
        "query_hidden": 32,
        "mask_depth": 2,
        "mask_hidden": 32,
        "background_queries": 2,
        **({"mit": NARROW_MIT} if kind == "mit" else {"swin": NARROW_SWIN}),
    }
    return DynaMITeConfig(**(settings | fields))


def random_dynamite(kind: str = "swin", **fields: Any) -> DynaMITe:
    """A narrow network with weights of its own."""
    network = random_network(tiny_dynamite(kind, **fields), 0)
    assert isinstance(network, DynaMITe)
    return network


def click_list(clicks: Sequence[Click], rows: int | None = None) -> Tensor:
    """(1, Q, 5) float32; rows without a click are filled with numbers that must not matter."""
    found = [[*click, 1.0] for click in clicks]
    empty = [[37.0 * n, -5.0, n, 1.0, 0.0] for n in range((rows or len(found)) - len(found))]
    return torch.tensor([found + empty], dtype=torch.float32)


def official_state(network: DynaMITe) -> dict[str, Tensor]:
    """A state dict under the official names, with what the files hold beside the weights that run."""
    state = release_state(network)
    for name in [name for name in state if name.endswith("relative_position_bias_table")]:
        index = relative_position_index(network.config.swin.window)
        state[name.replace("bias_table", "index")] = index
    state["sem_seg_head.interactive_transformer.bg_query"] = torch.zeros(network.config.width)
    return dict(sorted(state.items()))


def save_official(path: Path, state: dict[str, Tensor]) -> None:
    """Write a file as detectron2's checkpointer does."""
    first = next(iter(state.values()))
    optimizer = {"state": {0: {"step": 9, "exp_avg": torch.zeros_like(first)}}, "param_groups": [{"lr": 0.1}]}
    scheduler = {"milestones": [327778, 355092], "last_epoch": 9}
    torch.save({"model": state, "optimizer": optimizer, "scheduler": scheduler, "iteration": 9}, path)


def golden_steps(meta: dict[str, Any]) -> Iterator[tuple[list[Click], int]]:
    """The clicks of a golden file's steps, objects first, and how many objects there are."""
    for step in meta["steps"]:
        clicks = [
            (x, y, t, number)
            for number, given in enumerate([step["background"] or [], *step["foreground"]])
            for y, x, t in given
        ]
        yield sorted(clicks, key=lambda click: click[3] or 1 << 8), len(step["foreground"])
