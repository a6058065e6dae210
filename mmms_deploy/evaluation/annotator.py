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

from mmms_deploy.errors import AnnotatorUnavailableError, MaskError

Mask = NDArray[np.bool_]


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


def _opencv() -> Any:
    """OpenCV's module, whose distance transform is exact and fast."""
    try:
        import cv2
    except ImportError as error:
        raise AnnotatorUnavailableError(
            "the simulated annotator needs OpenCV, which is not installed",
            expected="the package opencv-python-headless",
            fix="pip install 'mmms-deploy[eval]'",
        ) from error
    return cv2


def as_mask(name: str, values: object, shape: tuple[int, int] | None = None) -> Mask:
    """Check that an array is a mask, and view it as one.

    Args:
        name: What the array is called in the error's text.
        values: (H, W) bool, or integers of which zero is false and anything else true.
        shape: The (H, W) it must have; ``None`` for any.

    Returns:
        (H, W) bool.

    Raises:
        MaskError: It is no two-dimensional, non-empty array of bools or integers, or has another shape.
    """
    array = np.asarray(values)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "bui":
        raise MaskError(
            f"{name} is an array of shape {array.shape} and type {array.dtype}",
            expected="a mask (H, W) of bools or integers, at least one pixel large",
            fix="pass one mask, not a batch; threshold probabilities first (probability > 0.5)",
        )
    if shape is not None and array.shape != shape:
        raise MaskError(
            f"{name} is {array.shape[0]}x{array.shape[1]} pixels (H x W)",
            expected=f"{shape[0]}x{shape[1]} as the ground truth",
            fix="compare masks at the image's own resolution",
        )
    return array if array.dtype == np.bool_ else array != 0


def distance_to_border(region: Mask) -> NDArray[np.float32]:
    """Exact Euclidean distance of every pixel of a region to the nearest pixel outside of it.

    The image is surrounded by "outside": a region that touches the border has distance 1 there.

    Args:
        region: (H, W) bool.

    Returns:
        (H, W) float32 in pixels, right to the last bit or the one before; 0 outside of the region.

    Raises:
        AnnotatorUnavailableError: OpenCV is not installed.
    """
    cv2 = _opencv()
    distances = np.zeros(region.shape, np.float32)
    rows = np.flatnonzero(region.any(axis=1))
    if rows.size == 0:
        return distances
    columns = np.flatnonzero(region.any(axis=0))
    # Only the bounding box is transformed. All around it is outside, and the outside pixel nearest to a pixel of the
    # box is never more than one pixel beyond the box, so a rim of one pixel makes this exact.
    box = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    padded = np.pad(region[box].view(np.uint8), 1)
    transformed = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    distances[box] = transformed[1:-1, 1:-1]
    return distances


def _deepest(region: Mask, clicked: Mask | None) -> tuple[int, int]:
    """The deepest pixel of a region that was not clicked yet, the first of them in raster order.

    OpenCV's roots may differ from the true ones, and from call to call, in their last bit (seen with 5.0.0). Squared
    depths are whole numbers, so pixels that are close to the greatest depth are compared by those.

    Returns:
        Its squared depth, 0 when there is none, and its index in raster order.
    """
    distances = distance_to_border(region)
    if clicked is not None:
        distances[clicked] = 0
    greatest = distances.max()
    if greatest == 0:
        return 0, 0
    close = np.flatnonzero(distances >= greatest * np.float32(1 - 1e-6))
    squared = np.rint(distances.flat[close].astype(np.float64) ** 2)
    first = int(squared.argmax())
    return int(squared[first]), int(close[first])


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
        AnnotatorUnavailableError: OpenCV is not installed.
    """
    truth = as_mask("ground_truth", ground_truth)
    guess = as_mask("prediction", prediction, truth.shape)
    wrong = truth ^ guess
    if void is not None:
        wrong &= ~as_mask("void", void, truth.shape)
    done = None if clicked is None else as_mask("clicked", clicked, truth.shape)
    missing_depth, missing_index = _deepest(wrong & truth, done)
    surplus_depth, surplus_index = _deepest(wrong & guess, done)
    positive = missing_depth > surplus_depth
    depth, index = (missing_depth, missing_index) if positive else (surplus_depth, surplus_index)
    if depth <= 0:
        return None
    y, x = divmod(index, truth.shape[1])
    return SimulatedClick(x=x, y=y, positive=positive)


@dataclass(slots=True)
class Annotator:
    """A simulated annotator at work on one object of one image; remembers where it clicked.

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
            AnnotatorUnavailableError: OpenCV is not installed.
        """
        click = next_click(self.ground_truth, prediction, self._clicked, self.void)
        if click is not None:
            self._clicked[click.y, click.x] = True
            self.clicks.append(click)
        return click
