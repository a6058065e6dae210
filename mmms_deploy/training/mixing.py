"""The image part of a batch in which every picture may have other modalities."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mmms_deploy.models.network import InteractiveNetwork


def mix_batch(
    network: InteractiveNetwork,
    maps: tuple[Tensor, ...],
    modalities: Mapping[str, Tensor],
    present: Mapping[str, Tensor],
) -> tuple[Tensor, ...]:
    """Compute a network's features; pictures without a modality bypass its part of the fuser.

    Args:
        network: The network.
        maps: The backbone's maps, (B, C, h, w) each.
        modalities: By name, (B, C, H, W), normalised; ignored where there is none.
        present: By name, (B,) bool: which pictures have the modality.

    Returns:
        The features (B, ...), in the order of the batch.
    """
    count = len(maps[0])
    patterns = [tuple(name for name in modalities if bool(present[name][i])) for i in range(count)]
    if len(set(patterns)) == 1:
        return network.mix(maps, {name: modalities[name] for name in patterns[0]})
    parts, order = [], []
    for pattern in sorted(set(patterns)):
        chosen = torch.tensor([i for i in range(count) if patterns[i] == pattern], device=maps[0].device)
        given = {name: modalities[name][chosen] for name in pattern}
        parts.append(network.mix(tuple(m[chosen] for m in maps), given))
        order.append(chosen)
    back = torch.argsort(torch.cat(order))
    return tuple(torch.cat(same)[back] for same in zip(*parts, strict=True))
