"""How a network starts: so that it notices disks, compares features, and hardly hears its modalities."""

from __future__ import annotations

import math

import torch
from torch import nn

from mmms_deploy.models import MMMS
from mmms_deploy.models.fpn import SCALES
from mmms_deploy.models.fuser import MMFuser
from mmms_deploy.models.segformer import EfficientAttention

FIRST_SHARE = 0.1
"""Size of a modality's features at the start, as a share of a normalised feature."""


@torch.no_grad()
def initialise(model: MMMS) -> MMMS:
    """Initialise a fresh network.

    The click part's attention begins as a likeness (keys are projected as queries are, and its reduction begins as a
    mean), so that a click at one place also affects the places that look alike.

    A disk covers all of a 4x4 patch and 8 % of a 32x32 patch. With torch's initialisation, its embedding on the coarse
    scales would be an order of magnitude smaller than the features it is added to, so every kernel also gets a constant
    share.

    Args:
        model: The network; its weights are changed, those of the backbone are not.

    Returns:
        The same network.
    """
    for attention in model.csnet.modules():
        if isinstance(attention, EfficientAttention):
            attention.kv.weight[: attention.q.out_features] = attention.q.weight
            if attention.reduction > 1:
                mean = torch.eye(attention.sr.out_channels)[..., None, None] / attention.reduction**2
                attention.sr.weight.mul_(0.3).add_(mean)
    disk = math.pi * model.config.clicks.radius**2
    for name, module in model.patch_embed.named_modules():
        if isinstance(module, nn.Conv2d):
            covered = min(disk, float(module.weight.shape[-1] ** 2))
            module.weight += torch.randn(module.weight.shape[:2])[..., None, None] * 0.5 / covered
        elif name:
            raise TypeError(f"unexpected module {name} in the click embedding")
    if model.fuser is not None:
        quieten(model.fuser)
    return model


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
