"""Loading weights into another network: one of another picture size, or one with a fuser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from mmms_deploy.models import MMMS
from mmms_deploy.models.fpn import SCALES
from mmms_deploy.models.fuser import MMFuser
from mmms_deploy.models.segformer import EfficientAttention
from training.predictor import load_network

FUSER = "fuser."
FIRST_SHARE = 0.1
"""Size of a modality's features at the start, as a share of a normalised feature."""


def resized_state(state: dict[str, Tensor], model: MMMS) -> dict[str, Tensor]:
    """A state for the same network at another picture size: the position table is resampled, all else stays."""
    key = "backbone.vit.pos_embed"
    vit: Any = model.backbone.vit
    table = resample_abs_pos_embed(
        state[key], new_size=list(vit.patch_embed.grid_size), num_prefix_tokens=vit.num_prefix_tokens
    )
    return {**state, key: table}


@torch.no_grad()
def quieten(fuser: MMFuser) -> None:
    """Initialise a fuser so that it hardly changes the features.

    A modality's features start at a tenth of their size, large enough for its encoder to get a gradient at once. The
    results of attention and MLP start at zero.
    """
    for encoder in fuser.encoders.values():
        for number in range(1, len(SCALES) + 1):
            norm = encoder.get_submodule(f"norm{number}")
            if not isinstance(norm, nn.LayerNorm):
                raise TypeError(f"norm{number} is no LayerNorm")
            norm.weight.fill_(FIRST_SHARE)
    for number in SCALES:
        block = fuser.get_submodule(f"cross_{number}")
        for name, module in block.named_modules():
            last = module.proj if isinstance(module, EfficientAttention) else module if name == "mlp.fc2" else None
            if isinstance(last, nn.Linear):
                last.weight.zero_()
                last.bias.zero_()


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
