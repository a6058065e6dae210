"""A click, and the answer to it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mmms_deploy.bundle.contract import ResizeRule
from mmms_deploy.errors import ClickError
from mmms_deploy.imaging.resize import BoolArray, FloatArray, resize


@dataclass(frozen=True)
class Click:
    """A click in the image's own pixels.

    Attributes:
        x: Column, to the right; the centre of the first column is 0.
        y: Row, downwards; the centre of the first row is 0.
        positive: True on the object, False off it.
    """

    x: float
    y: float
    positive: bool = True


@dataclass(frozen=True)
class Timings:
    """Where the time of a click went, in milliseconds of wall time.

    Attributes:
        engine: Uploading the click, running the click stage, and downloading its answer; undo and redo only download.
        mask: Resizing the answer to the image's size.
        total: The whole call.
    """

    engine: float
    mask: float
    total: float


@dataclass(frozen=True)
class ImageTimings:
    """Where the time of ``set_image`` went, in milliseconds of wall time.

    Attributes:
        prepare: Reading, checking, resizing and normalising.
        engine: Running the stages that take the image and its modalities.
        total: The whole call.
    """

    prepare: float
    engine: float
    total: float


@dataclass(frozen=True, eq=False)
class ClickResult:
    """The answer to the clicks so far.

    Attributes:
        mask: (H0, W0) bool, read-only, at the image's own resolution: True where the object is.
        click: The newest click; None when there is none (after an undo of the first).
        index: How many clicks led here; 0 for none.
        timings: Where the time went.
        network_probability: (H, W) float32, read-only: the network's answer at its own resolution, in [0, 1].
    """

    mask: BoolArray = field(repr=False)
    click: Click | None
    index: int
    timings: Timings
    network_probability: FloatArray = field(repr=False)
    _resize: ResizeRule = field(repr=False)

    @cached_property
    def probability(self) -> FloatArray:
        """(H0, W0) float32, read-only, in [0, 1]: the probability of every pixel; computed on first use."""
        height, width = self.mask.shape
        probability = resize(self.network_probability, (height, width), self._resize)
        probability.setflags(write=False)
        return probability


def checked_click(x: object, y: object, positive: object, size: tuple[int, int]) -> Click:
    """Return a click, checked.

    Args:
        x: Column; must be a finite number from -0.5 to W0 - 0.5, the far edge excluded.
        y: Row; likewise, up to H0 - 0.5.
        positive: Must be a bool.
        size: (H0, W0) of the image.

    Raises:
        ClickError: One of them has another type or value.
    """
    height, width = size
    given = f"click ({x!r}, {y!r})"
    numbers = []
    for value in (x, y):
        if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
            raise ClickError(given, expected="two numbers, x and y in image pixels", fix="pass click(x, y)")
        try:
            numbers.append(float(value))
        except OverflowError:
            numbers.append(math.inf)
    if not isinstance(positive, bool | np.bool_):
        raise ClickError(
            f"{given} with positive={positive!r}", expected="True or False", fix="pass positive=True or positive=False"
        )
    column, row = numbers
    if not (math.isfinite(column) and math.isfinite(row)):
        raise ClickError(given, expected="finite numbers", fix="check how the click was computed")
    if not (-0.5 <= column < width - 0.5 and -0.5 <= row < height - 0.5):
        swapped = -0.5 <= row < width - 0.5 and -0.5 <= column < height - 0.5
        raise ClickError(
            f"{given} is outside of the image",
            expected=f"-0.5 <= x < {width - 0.5} and -0.5 <= y < {height - 0.5} (x is the column, y the row)",
            fix="click inside the image" + (", and pass (x, y), not (row, column)" if swapped else ""),
            command_fix="click inside the image" + (", and pass X,Y, not row,column" if swapped else ""),
        )
    return Click(column, row, bool(positive))
