"""Narrow InterFormers with the full topology, and files as the official training software writes them."""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmms_deploy.models import InterFormer, InterFormerConfig
from mmms_deploy.models.checkpoint import random_network, release_state
from mmms_deploy.models.interformer_vit import position_index
from tests.support.families import GoldenFile


def tiny_interformer(**fields: Any) -> InterFormerConfig:
    """A network of 0.1 M parameters at 64 x 96, trained at 64 x 64; keyword arguments replace fields."""
    settings: dict[str, Any] = {
        "size": (64, 96),
        "trained_size": 64,
        "dim": 24,
        "depth": 1,
        "heads": 2,
        "widths": (8, 16, 16, 32),
        "refine_depths": (0, 0, 1, 0),
        "neck_heads": (1, 2, 4, 8),
        "head_width": 8,
    }
    return InterFormerConfig(**(settings | fields))


def official_state(network: InterFormer, *, auxiliary: bool = True) -> OrderedDict[str, Tensor]:
    """A state dict under the official names, with tables of indices, counters and the training's second head."""
    state = release_state(network)
    grid = network.config.trained_size // 16
    for name in [name for name in state if name.endswith("relative_position_bias_table")]:
        state[name.replace("bias_table", "index")] = position_index(grid)
    for name in [name for name in state if name.endswith("running_mean")]:
        state[name.replace("running_mean", "num_batches_tracked")] = torch.tensor(320_000)
    if auxiliary:
        state["auxiliary_head.conv_seg.weight"] = torch.ones(2, 8, 1, 1)
        state["auxiliary_head.conv_seg.bias"] = torch.zeros(2)
    return OrderedDict(sorted(state.items()))


def save_official(path: Path, state: dict[str, Tensor]) -> None:
    """Write a file as mmcv does: notes about the run, the weights, the optimizer."""
    first = next(iter(state.values()))
    meta = {
        "env_info": "sys.platform: linux",
        "mmseg_version": "0.26.0",
        "seed": None,
        "CLASSES": ("background", "foreground"),
        "PALETTE": [[0, 0, 0], [255, 255, 255]],
        "config": "model = dict(type='ClickSegmentorZoomIn', pretrained='pretrain/mae.pth')\n",
        "iter": 320_000,
        "epoch": 9,
        "hook_msgs": {},
    }
    optimizer = {
        "state": {0: {"step": 320_000, "exp_avg": torch.zeros_like(first), "exp_avg_sq": torch.zeros_like(first)}},
        "param_groups": [{"lr": 0.0, "betas": (0.9, 0.999), "params": [0]}],
    }
    torch.save({"meta": meta, "state_dict": OrderedDict(state), "optimizer": optimizer}, path)


def tiny_official(path: Path, **fields: Any) -> OrderedDict[str, Tensor]:
    """Write a narrow official file; returns its state dict. The file's network is square, as the trained one is."""
    network = random_network(tiny_interformer(**({"size": (64, 64)} | fields)), 0)
    assert isinstance(network, InterFormer)
    state = official_state(network)
    save_official(path, state)
    return state


def golden_file(golden: GoldenFile, path: Path) -> None:
    """Write the weights of a golden file as the official software would, with all that its key list names."""
    weights = {name: torch.from_numpy(values) for name, values in golden.weights().items()}
    for name, index, addend in golden.meta["add"]:
        weights[name][index] += addend
    for name, shape in golden.keys.items():
        if name.endswith("relative_position_index"):
            weights[name] = position_index(math.isqrt(shape[0] - 1))
        elif name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(320_000)
    assert {name: list(tensor.shape) for name, tensor in weights.items()} == golden.keys
    save_official(path, weights)


def expected_labels(golden: GoldenFile, step: int) -> np.ndarray:
    """(H, W) uint8: the labels that the authors' network saw; the golden file has three bits a pixel."""
    height, width = golden.meta["size"]
    bits = np.unpackbits(golden.arrays[f"ref_in{step}"])[: 3 * height * width].reshape(-1, 3)
    return (bits @ np.array([4, 2, 1], dtype=np.uint8)).reshape(height, width)


def expected_mask(golden: GoldenFile, step: int) -> np.ndarray:
    """(H, W) bool: the mask that the authors' network answered."""
    height, width = golden.meta["size"]
    bits = np.unpackbits(golden.arrays[f"mask{step}"])[: height * width]
    return bits.reshape(height, width).astype(np.bool_)
