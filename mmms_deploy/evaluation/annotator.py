"""The simulated annotator: where a person would click next, by RITM's evaluation protocol.

The next click falls on the point that lies deepest inside the larger error region. Rules, in the order they apply:

1. The error regions are the false negatives (object, not predicted) and the false positives (predicted, no object).
   Void pixels belong to neither.
2. A pixel's depth is its exact Euclidean distance to the nearest pixel outside its region, in pixels; everything
   beyond the image's border counts as outside.
3. Pixels that were clicked before are excluded; they still count as part of the region when depths are measured.
4. The click is positive only when the false negatives' greatest depth is strictly larger than the false positives'.
5. Among equally deep pixels the first in raster order (row by row) is taken.

Source: K. Sofiiuk, I. Petrov, A. Konushin, "Reviving Iterative Training with Mask Guidance for Interactive
Segmentation", ICIP 2022, and its public evaluation code; MMMS (arXiv 2509.12963, section V) uses the same protocol.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmms_deploy.evaluation.depth import Mask, bounds, deepest, pack
from mmms_deploy.replay.metrics import as_mask


@dataclass(frozen=True, slots=True)
class SimulatedClick:
    """A click of the simulated annotator.

    Attributes:
        x: Column in image pixels, 0 at the left; pixel centres are integers.
        y: Row in image pixels, 0 at the top.
        positive: True for "this belongs to the object", false for "this does not".
    """

    x: int
    y: int
    positive: bool


def next_click(
    ground_truth: NDArray[Any],
    prediction: NDArray[Any],
    clicked: NDArray[Any] | None = None,
    void: NDArray[Any] | None = None,
) -> SimulatedClick | None:
    """The click that the simulated annotator makes next.

    All masks are (H, W), bool or integers (nonzero is true), at the image's own resolution. Deterministic.

    Args:
        ground_truth: The object.
        prediction: The mask so far; all false before the first click.
        clicked: Pixels clicked before; ``None`` for none.
        void: Pixels that count neither as object nor as background; ``None`` for none.

    Returns:
        The click, or ``None`` when no error is left to click on.

    Raises:
        MaskError: A mask has the wrong shape or type.
    """
    object_mask = as_mask("ground_truth", ground_truth)
    shape = object_mask.shape
    truth, guess = pack(object_mask), pack(as_mask("prediction", prediction, shape))
    if void is not None:
        counted = ~pack(as_mask("void", void, shape))
        truth, guess = truth & counted, guess & counted
    done = None if clicked is None else pack(as_mask("clicked", clicked, shape))
    missing, surplus = truth & ~guess, guess & ~truth
    missing_bounds, surplus_bounds = bounds(missing, done), bounds(surplus, done)
    # The region that may be deeper goes first; the other one is searched only for pixels that are deeper still.
    if missing_bounds.high > surplus_bounds.high:
        positive = deepest(missing, done, missing_bounds, surplus_bounds.low + 1)
        negative = deepest(surplus, done, surplus_bounds, max(positive[0], 1))
    else:
        negative = deepest(surplus, done, surplus_bounds, max(missing_bounds.low, 1))
        positive = deepest(missing, done, missing_bounds, negative[0] + 1)
    depth, x, y = max(negative, positive, key=lambda place: place[0])  # the first of equals, so the negative one
    return SimulatedClick(x=x, y=y, positive=depth > negative[0]) if depth else None


@dataclass(slots=True)
class Annotator:
    """A simulated annotator of one object in one image; remembers where it clicked.

    Attributes:
        ground_truth: (H, W), bool or integers, nonzero on the object.
        void: (H, W), nonzero where a pixel counts neither as object nor as background; ``None`` for nowhere.
        clicks: The clicks made so far, in order.

    Raises:
        MaskError: A mask has the wrong shape or type.
    """

    ground_truth: NDArray[Any]
    void: NDArray[Any] | None = None
    clicks: list[SimulatedClick] = field(default_factory=list, init=False)
    _clicked: Mask = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.ground_truth = as_mask("ground_truth", self.ground_truth)
        if self.void is not None:
            self.void = as_mask("void", self.void, self.ground_truth.shape)
        self._clicked = np.zeros(self.ground_truth.shape, np.bool_)

    def click(self, prediction: NDArray[Any]) -> SimulatedClick | None:
        """Make and remember the next click.

        Args:
            prediction: (H, W), bool or integers, the mask so far; all zero before the first click.

        Returns:
            The click, or ``None`` when no error is left to click on.

        Raises:
            MaskError: The mask has the wrong shape or type.
        """
        click = next_click(self.ground_truth, prediction, self._clicked, self.void)
        if click is not None:
            self._clicked[click.y, click.x] = True
            self.clicks.append(click)
        return click
