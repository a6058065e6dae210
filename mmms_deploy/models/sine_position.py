"""Sine and cosine positions, as DETR (Carion et al., ECCV 2020, appendix A.4) and Mask2Former code them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TEMPERATURE = 10_000
"""Ratio of the longest to the shortest wavelength."""
EPS = 1e-6


def sine_code(values: Tensor, width: int) -> Tensor:
    """Code numbers by sines and cosines of falling frequency.

    Args:
        values: (...), angles of the highest frequency, in radians.
        width: C, channels of the code; even.

    Returns:
        (..., C): channel k is the sine (k even) or cosine (k odd) of value / 10000^(2 floor(k / 2) / C).
    """
    exponents = 2 * torch.arange(width // 2, dtype=values.dtype, device=values.device) / width
    angles = values.unsqueeze(-1) / TEMPERATURE**exponents
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def sine_angle(places: Tensor, length: int) -> Tensor:
    """Return the angles of places on an axis.

    Args:
        places: (...), whole or fractional places in float; 0 is the first.
        length: Number of places on the axis.

    Returns:
        (...), in radians: 2 pi (place + 1) / (length + 1e-6).
    """
    return 2 * math.pi * ((places + 1) / (length + EPS))


def sine_positions(grid: tuple[int, int], dim: int) -> Tensor:
    """Return the positions of a map's pixels.

    Args:
        grid: Height and width of the map.
        dim: C, channels; a multiple of 4.

    Returns:
        (H*W, C) float32, rows first: the first half of the channels codes y, the second x.
    """
    (height, width), half = grid, dim // 2
    y, x = (sine_code(sine_angle(torch.arange(n, dtype=torch.float32), n), half) for n in grid)
    both = (y[:, None].expand(height, width, half), x[None, :].expand(height, width, half))
    return torch.cat(both, dim=2).flatten(0, 1)
