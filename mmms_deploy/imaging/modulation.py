"""MFP's modulation of the previous probability around the newest click (Lee et al., CVPR 2024, section 3.2).

Points are in the types of the official software: clicks, and distances between them, are float32; distances from
pixels to clicks are float64. A pixel on the rim of a window is in or out by these roundings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle.contract import Modulation
from mmms_deploy.imaging.resize import FloatArray

LEAST_RADIUS = 10.0
"""The least radius of a window, in network pixels."""
_SURE, _UNSURE = 0.99, 0.01
"""The probability that a positive click's pixel, and a negative one's, gets at least."""
_RANGE = 1000.0
"""The squared differences of probabilities are brought to 0..1000."""

Distances = npt.NDArray[np.float64]
Inside = npt.NDArray[np.bool_]


class Point(NamedTuple):
    """A click in network pixels.

    Attributes:
        x: Column.
        y: Row.
        positive: Whether it is on the object.
    """

    x: float
    y: float
    positive: bool


def modulate(probability: FloatArray, clicks: Sequence[Point], rule: Modulation) -> FloatArray:
    """Raise the probability around the newest click if it is positive, or lower it if it is negative.

    Args:
        probability: (H, W) float32 in [0, 1]: the previous answer. It is left as it is.
        clicks: All clicks so far, oldest first, at least one, in network pixels.
        rule: The network's N and R_max.

    Returns:
        (H, W) float32 in [0, 1]. Outside of the window around the newest click it is the probability; so it is
        everywhere if that click has a negative coordinate, as one outside of a crop has. Where the official formula
        divides by zero (all of the window, or more than half of it, is as probable as the click's pixel), the
        exponent is 1.
    """
    height, width = probability.shape
    newest = clicks[-1]
    x, y = np.float32(newest.x), np.float32(newest.y)
    out = probability.astype(np.float32, copy=True)
    if x < 0 or y < 0:
        return out
    radius, holes = _window(x, y, [click for click in clicks if click.positive != newest.positive], rule)
    top, bottom = _span(y, radius, height)
    left, right = _span(x, radius, width)
    rows, columns = np.ogrid[top:bottom, left:right]
    distance = _distances(rows, columns, x, y)
    inside = distance <= radius
    for hole_x, hole_y, reach in holes:
        inside &= _distances(rows, columns, hole_x, hole_y) > reach
    if not inside.any():
        return out
    part = out[top:bottom, left:right]
    value = float(probability[_clamped(int(y), height), _clamped(int(x), width)])
    if value == (0.0 if newest.positive else 1.0):
        ramp = distance[inside] / max(float(distance[inside].max()), np.finfo(np.float64).tiny)
        part[inside] = 1.0 - ramp if newest.positive else ramp
        return out
    power = _powers(part[inside], distance[inside], value, float(radius), len(clicks) - 1, newest.positive, rule)
    part[inside] = part[inside].astype(np.float64) ** power
    out[_clamped(round(float(y)), height), _clamped(round(float(x)), width)] = float(newest.positive)
    return out


def _window(
    x: np.float32, y: np.float32, opposite: Sequence[Point], rule: Modulation
) -> tuple[np.float32, list[tuple[np.float32, np.float32, np.float32]]]:
    """Return the radius of the window, and what is cut out of it: columns, rows and radii."""
    if not opposite:
        return np.float32(rule.radius), []
    others = [(np.float32(click.x), np.float32(click.y)) for click in opposite]
    apart = [np.sqrt((row - y) * (row - y) + (column - x) * (column - x)) for column, row in others]
    nearest, least = min(apart), np.float32(LEAST_RADIUS)
    if nearest / 2 >= least:
        return nearest / np.float32(2), []
    holes = [(column, row, far) for (column, row), far in zip(others, apart, strict=True) if far < least]
    return least, holes


def _powers(
    seen: FloatArray, distance: Distances, value: float, radius: float, number: int, positive: bool, rule: Modulation
) -> Distances:
    """Return the exponent of every pixel of the window: 1 / e for a positive click, e for a negative one."""
    if positive:
        gamma = 1.0 / (math.log(_SURE) / math.log(value) + 1e-8) if value < _SURE else 1.0
    else:
        gamma = math.log(_UNSURE) / math.log(value) if value > _UNSURE else 1.0
    if number < rule.similar_clicks:
        apart = (seen.astype(np.float64) - value) ** 2
        largest = float(apart.max())
        apart = apart / largest * _RANGE if largest > 0 else apart
        middle = float(np.partition(apart, (apart.size - 1) // 2)[(apart.size - 1) // 2])
        if not middle > 0:
            return np.ones_like(distance)
        exponent = np.maximum(1.0, 1.0 - (gamma - 1.0) / middle**3 * (apart - middle) ** 3)
    else:
        exponent = gamma * (1.0 - distance / radius) + distance / radius
    return 1.0 / exponent if positive else exponent


def _distances(rows: npt.NDArray[Any], columns: npt.NDArray[Any], x: np.float32, y: np.float32) -> Distances:
    squared: Distances = (rows - np.float64(y)) ** 2 + (columns - np.float64(x)) ** 2
    return np.sqrt(squared)


def _span(centre: np.float32, radius: np.float32, length: int) -> tuple[int, int]:
    """Return the first pixel within a radius along an axis, and the one after the last."""
    low, high = math.floor(centre - radius), math.ceil(centre + radius) + 1
    return min(max(low, 0), length), max(min(high, length), 0)


def _clamped(place: int, length: int) -> int:
    return min(max(place, 0), length - 1)
