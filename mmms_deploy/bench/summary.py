"""Robust statistics of repeated measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """What a list of measurements says, in their own unit.

    Attributes:
        count: How many there are, at least 1.
        mean: Their mean.
        p50: Their median.
        p95: 95 % of them are not above this.
        p99: 99 % of them are not above this; with fewer than 100 it leans on the largest.
        low: The smallest.
        high: The largest.
        spread: Median distance to the median, times 1.4826, so that it estimates a standard deviation without being
            moved by outliers.
    """

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    low: float
    high: float
    spread: float


def summarise(samples: Sequence[float]) -> Summary:
    """Return the statistics of measurements.

    Args:
        samples: At least one finite number, in any unit.

    Raises:
        ValueError: There is none, or one is not finite.
    """
    if not samples or not all(math.isfinite(value) for value in samples):
        raise ValueError(f"expected finite measurements, got {list(samples)[:5]}")
    ordered = sorted(samples)
    middle = percentile(ordered, 50)
    return Summary(
        count=len(ordered),
        mean=math.fsum(ordered) / len(ordered),
        p50=middle,
        p95=percentile(ordered, 95),
        p99=percentile(ordered, 99),
        low=ordered[0],
        high=ordered[-1],
        spread=1.4826 * percentile(sorted(abs(value - middle) for value in ordered), 50),
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return a percentile, linear between neighbours (NumPy's default rule).

    Args:
        ordered: At least one number, ascending.
        percent: 0 to 100.
    """
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])
