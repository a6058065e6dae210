"""Loading weights into another network: one of another picture size, or one with a fuser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timm.layers import resample_abs_pos_embed
from torch import Tensor

from mmms_deploy.models import MMMS
from mmms_deploy.training.network import FUSER
from training.predictor import load_network


def resized_state(state: dict[str, Tensor], model: MMMS) -> dict[str, Tensor]:
    """A state for the same network at another picture size: the position table is resampled, all else stays."""
    key = "backbone.vit.pos_embed"
    vit: Any = model.backbone.vit
    table = resample_abs_pos_embed(
        state[key], new_size=list(vit.patch_embed.grid_size), num_prefix_tokens=vit.num_prefix_tokens
    )
    return {**state, key: table}


def warm_start(model: MMMS, path: Path) -> None:
    """Fill a network with a checkpoint's weights; its fuser keeps its own when the checkpoint has none.

    Args:
        model: The network.
        path: A checkpoint of the same network, with or without a fuser, of any picture size.

    Raises:
        ValueError: The checkpoint is of another network.
    """
    state = resized_state(load_network(path).state_dict(), model)
    own = model.state_dict()
    missing = sorted(name for name in own.keys() - state.keys() if not name.startswith(FUSER))
    strange = sorted(n for n in state if n not in own or own[n].shape != state[n].shape)
    if missing or strange:
        raise ValueError(f"{path} is of another network: {(missing + strange)[:4]} differ")
    model.load_state_dict(state, strict=False)
