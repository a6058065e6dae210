"""How many annotators a host carries: one server, calls in their order, annotators that think between them (M/G/1).

An annotator thinks for Z seconds, clicks, and waits for the answer; once in k clicks another image is set before. A
click keeps the engine busy for s seconds, an image for i. All of it follows from N, Z, s, i and k:

    demand            D = s + i / k                       seconds of the engine for a click, its share of an image in it
    clicks a second   X = N / (Z + R + R_image / k)       R: what a click takes, waiting included
    utilisation       u = X D (N - 1) / N                 what an annotator finds: the work of all others
    mean wait         W = u m / (2 (1 - u)) (1 + c)       Pollaczek and Khinchine; m, c: mean and squared coefficient of
                                                          variation of a call's time
    a click           R = s + W
                      p95 = s + min(ln(u / 0.05) W / u, W + 1.645 sqrt(W m (1 + c))), at least s

The first of both takes the wait of those who wait for exponential, as it is while the engine is idle at times. The
second one is a crowd's: what is ahead of a call is the sum of many calls. With many annotators X D comes near 1, and
X near 1 / D: no host answers more. ``annotators`` finds the largest N whose p95 stays below a limit.

Rate and mean lie within a few per cent of a simulation of the same queue, the p95 within 40 %. It is too low where an
image takes many times as long as a click: most wait for nothing then, and a few for an image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_MOST = 100_000


@dataclass(frozen=True)
class Host:
    """What an engine needs, and what annotators do.

    Attributes:
        click: Seconds that a click keeps the engine busy.
        image: Seconds that an image does.
        clicks: Clicks on an image.
        think: Seconds that an annotator thinks between an answer and the next click, on average.
    """

    click: float
    image: float
    clicks: float
    think: float

    @property
    def demand(self) -> float:
        """Seconds of the engine for a click, its share of an image in it."""
        return self.click + self.image / self.clicks


@dataclass(frozen=True)
class Predicted:
    """What the model says of some annotators.

    Attributes:
        rate: Clicks a second of all.
        utilisation: Share of the time that the engine is busy.
        mean: Seconds of a click, waiting included.
        p95: 95 % of the clicks take no longer.
    """

    rate: float
    utilisation: float
    mean: float
    p95: float


def predicted(host: Host, annotators: int) -> Predicted:
    """Return what the model says.

    Args:
        host: The host and its annotators.
        annotators: How many, from 1 on.
    """
    if annotators == 1:
        rate = 1.0 / (host.think + host.demand)
        return Predicted(rate, rate * host.demand, host.click, host.click)
    share = 1.0 / (host.clicks + 1.0)
    mean = (1.0 - share) * host.click + share * host.image
    square = (1.0 - share) * host.click**2 + share * host.image**2
    calls = 1.0 + 1.0 / host.clicks

    def wait(found: float) -> float:
        return found * square / (2.0 * mean * (1.0 - found))

    def excess(found: float) -> float:
        """How much more an annotator finds than the clicks that follow from it bring."""
        rate = annotators / (host.think + host.demand + calls * wait(found))
        return found - rate * host.demand * (annotators - 1) / annotators

    low, high = 0.0, 1.0 - 1e-12
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    found = (low + high) / 2
    waited = wait(found)
    rate = annotators / (host.think + host.demand + calls * waited)
    crowded = waited + 1.645 * math.sqrt(waited * square / mean)
    tail = min(max(0.0, math.log(found / 0.05)) * waited / found, crowded)
    return Predicted(rate, rate * host.demand, host.click + waited, host.click + tail)


def annotators(host: Host, p95: float) -> int:
    """Return how many annotators a host carries.

    Args:
        host: The host and its annotators.
        p95: Seconds that 95 % of the clicks may take.
    """
    if predicted(host, 1).p95 > p95:
        return 0
    low, high = 1, 2
    while high < _MOST and predicted(host, high).p95 <= p95:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if predicted(host, middle).p95 <= p95 else (low, middle)
    return low
