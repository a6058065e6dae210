"""The probability of every pixel of a picture, put together from answers for parts of it.

An answer covers the crop in which a click was answered. What lies outside of it is zero, or what it was before. A map
of a large photograph takes tens of MB and a history may hold a hundred, so a canvas keeps the answers themselves, at
the network's size, and draws what is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from mmms_deploy.bundle.contract import ResizeRule
from mmms_deploy.engines.protocol import Value
from mmms_deploy.imaging.resize import BoolArray, FloatArray, resize, resize_above
from mmms_deploy.session.zoom import Box, bounds, whole


class Whole(Protocol):
    """What a result asks for the whole picture, where that is more than its answer at the image's size."""

    def probability(self) -> FloatArray:
        """Return the probability (H0, W0) float32 of the whole picture."""
        ...

    def mask(self, threshold: float) -> BoolArray:
        """Return the pixels (H0, W0) whose probability is above a threshold."""
        ...


class Layer(Protocol):
    """What covers a part of the picture."""

    @property
    def box(self) -> Box:
        """The part."""
        ...

    def probability(self, rule: ResizeRule) -> FloatArray:
        """Return the probability (h, w) of the part's pixels."""
        ...

    def above(self, rule: ResizeRule, threshold: float) -> BoolArray:
        """Return which of them belong to the mask, (h, w)."""
        ...


@dataclass(frozen=True, eq=False)
class Answered:
    """The network's answer for a crop.

    Attributes:
        box: The crop.
        answer: (H, W) float32 at the network's size.
    """

    box: Box
    answer: FloatArray

    def probability(self, rule: ResizeRule) -> FloatArray:
        """Return the probability (h, w) of the crop's pixels, in [0, 1]."""
        enlarged = resize(self.answer, self.box.size, rule)
        return np.clip(enlarged, 0.0, 1.0, out=enlarged)

    def above(self, rule: ResizeRule, threshold: float) -> BoolArray:
        """Return which of the crop's pixels belong to the mask, (h, w)."""
        return resize_above(self.answer, self.box.size, rule, threshold)


@dataclass(frozen=True)
class Canvas:
    """A picture's probability. It never changes: every step returns a new one.

    Attributes:
        size: (H0, W0) of the picture.
        rule: How an answer is enlarged to its part of the picture.
        layers: What covers it, the newest last; zero where there is none.
    """

    size: tuple[int, int]
    rule: ResizeRule
    layers: tuple[Layer, ...] = ()

    def cover(self, layer: Layer, *, keep: bool) -> Canvas:
        """Return it with one more layer.

        Args:
            layer: The layer.
            keep: Whether the rest stays as it is; else it becomes zero.
        """
        kept = tuple(old for old in self.layers if not layer.box.covers(old.box)) if keep else ()
        return replace(self, layers=(*kept, layer))

    def part(self, box: Box) -> FloatArray:
        """Return the probability (h, w) float32 of a part of the picture."""
        out = np.zeros(box.size, dtype=np.float32)
        for layer in self.layers:
            shared = _shared(box, layer.box)
            if shared is not None:
                out[_within(shared, box)] = layer.probability(self.rule)[_within(shared, layer.box)]
        return out

    def probability(self) -> FloatArray:
        """Return the probability (H0, W0) float32 of the whole picture."""
        return self.part(whole(self.size))

    def mask(self, threshold: float) -> BoolArray:
        """Return the pixels (H0, W0) whose probability is above a threshold."""
        out = np.zeros(self.size, dtype=np.bool_)
        for layer in self.layers:
            out[layer.box.slices] = layer.above(self.rule, threshold)
        return out

    def bounds(self, threshold: float) -> Box | None:
        """Return the box around the pixels above a threshold; None when there is none."""
        if len(self.layers) != 1:
            return bounds(self.mask(threshold))
        (layer,) = self.layers
        found = bounds(layer.above(self.rule, threshold))
        if found is None:
            return None
        top, left = layer.box.top, layer.box.left
        return Box(found.top + top, found.bottom + top, found.left + left, found.right + left)


@dataclass(frozen=True, eq=False)
class Viewed:
    """What is kept of an answer between clicks.

    Attributes:
        canvas: The picture's probability.
        box: The crop that the states belong to; None after a mask that was put in, and before the first click.
        states: The click stage's state in that crop: as it is, and mirrored where the mean is taken.
        newest: (H, W), the newest answer at the network's size.
    """

    canvas: Canvas
    newest: FloatArray
    box: Box | None = None
    states: tuple[Mapping[str, Value], ...] = ()


def _shared(one: Box, other: Box) -> Box | None:
    top, bottom = max(one.top, other.top), min(one.bottom, other.bottom)
    left, right = max(one.left, other.left), min(one.right, other.right)
    return Box(top, bottom, left, right) if top <= bottom and left <= right else None


def _within(part: Box, box: Box) -> tuple[slice, slice]:
    """Return the slices of a part in an array of a box that covers it."""
    return Box(part.top - box.top, part.bottom - box.top, part.left - box.left, part.right - box.left).slices
