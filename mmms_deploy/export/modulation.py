"""The modulation of the previous probability as the reference computes it: in torch, over the whole map.

It shares no code with :mod:`mmms_deploy.imaging.modulation`, which a session runs and which says what is computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mmms_deploy.bundle.contract import Modulation


def modulated(previous: Tensor, clicks: Sequence[tuple[float, float, bool]], rule: Modulation) -> Tensor:
    """Modulate a previous probability around the newest click.

    Args:
        previous: (1, 1, H, W) float32.
        clicks: x, y in network pixels and whether it is positive, oldest first, at least one.
        rule: The network's N and R_max.

    Returns:
        (1, 1, H, W) float32.
    """
    map_before = previous[0, 0]
    height, width = map_before.shape
    points = torch.tensor([[y, x] for x, y, _ in clicks], dtype=torch.float32)
    newest, positive = points[-1], clicks[-1][2]
    if newest.min() < 0:
        return previous
    grid = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")).double()

    def from_pixels(point: Tensor) -> Tensor:
        return (grid - point.double().reshape(2, 1, 1)).square().sum(0).sqrt()

    distance = from_pixels(newest)
    opposite = points[torch.tensor([kind != positive for _, _, kind in clicks])]
    apart = (opposite - newest).square().sum(1).sqrt()
    radius = torch.tensor(rule.radius) if not len(opposite) else (apart.min() / 2).clamp(min=10.0)
    window = distance <= radius
    if len(opposite) and apart.min() / 2 < 10.0:
        for point, far in zip(opposite, apart, strict=True):
            if far < 10.0:
                window &= from_pixels(point) > far
    if not window.any():
        return previous
    value = map_before[min(int(newest[0]), height - 1), min(int(newest[1]), width - 1)].item()
    after = map_before.double()
    if value == (0.0 if positive else 1.0):
        ramp = distance / distance[window].max().clamp(min=torch.finfo(torch.float64).tiny)
        after = torch.where(window, 1.0 - ramp if positive else ramp, after)
        return after.float()[None, None]
    exponent = _exponent(after, distance, window, value, radius.double(), len(clicks) - 1, positive, rule)
    after = torch.where(window, after ** (1.0 / exponent if positive else exponent), after)
    row, column = newest.round().int().tolist()
    after[min(row, height - 1), min(column, width - 1)] = float(positive)
    return after.float()[None, None]


def _exponent(
    before: Tensor,
    distance: Tensor,
    window: Tensor,
    value: float,
    radius: Tensor,
    order: int,
    positive: bool,
    rule: Modulation,
) -> Tensor:
    gamma = 1.0
    if positive and value < 0.99:
        gamma = 1.0 / (math.log(0.99) / math.log(value) + 1e-8)
    elif not positive and value > 0.01:
        gamma = math.log(0.01) / math.log(value)
    if order >= rule.similar_clicks:
        return gamma * (1.0 - distance / radius) + distance / radius
    unlike = (before - value).square()
    unlike = unlike / unlike[window].max() * 1000.0
    middle = unlike[window].median()
    if not middle > 0:  # nothing in the window, or less than half of it, differs
        return torch.ones_like(distance)
    return (1.0 - (gamma - 1.0) / middle**3 * (unlike - middle) ** 3).clamp(min=1.0)
