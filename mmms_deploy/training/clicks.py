"""Simulated clicks for training: RITM's iterative scheme, with a centred first click.

K. Sofiiuk, I. Petrov, A. Konushin, "Reviving Iterative Training with Mask Guidance for Interactive Segmentation",
ICIP 2022 (RITM): the next click falls into the larger error region, away from its border, and the last mask is fed
back. Here most clicks fall exactly on the point farthest from the border, as the evaluation's annotator clicks.

Beside them there are guard clicks: negative ones on what is background already, in the truth and in the mask. A person
makes them to protect a place, and the mask must not grow.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator

RADIUS = 5.0
"""Disk radius in network pixels by default; a pixel belongs when its squared distance to the click is at most 25."""

CENTRE_SHARE = 0.7
"""Share of the clicks on the farthest point of a region; the others fall anywhere in its inner half."""


def squared_depth(region: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Squared Euclidean distance of each pixel to the border of its region; the picture's border is one too.

    Squared, because squared distances are whole numbers: OpenCV's roots differ in their last bit from call to call, and
    equally deep pixels must stay equal for a step to be repeatable.
    """
    padded = np.pad(region.astype(np.uint8), 1)
    roots = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    return np.asarray(np.rint(roots * roots), np.float32)


def draw_disk(channel: NDArray[np.float32], x: float, y: float, radius: float = RADIUS) -> None:
    """Set the pixels of a click's disk to one, in place.

    Args:
        channel: (H, W) float32, one of the two click maps.
        x: Column of the click in network pixels, pixel centres at integers.
        y: Row.
        radius: Radius of the disk in network pixels.
    """
    height, width = channel.shape
    top, bottom = max(int(np.ceil(y - radius)), 0), min(int(np.floor(y + radius)), height - 1)
    left, right = max(int(np.ceil(x - radius)), 0), min(int(np.floor(x + radius)), width - 1)
    if top > bottom or left > right:
        return
    dy = np.arange(top, bottom + 1, dtype=np.float32)[:, None] - np.float32(y)
    dx = np.arange(left, right + 1, dtype=np.float32)[None] - np.float32(x)
    channel[top : bottom + 1, left : right + 1][dx * dx + dy * dy <= radius**2] = 1


class ClickMaps:
    """The click maps of a batch of targets, and the annotator that adds to them.

    Args:
        targets: (N, H, W) uint8 or bool, the true masks.
        rng: Random generator of this step.
        radius: Radius of the disks in network pixels.
        void: (N, H, W) bool, true where a pixel is neither target nor background and is never clicked; None for
            nowhere.

    Attributes:
        targets: (N, H, W) bool.
        maps: (N, 2, H, W) float32, the disks of positive and of negative clicks.
    """

    def __init__(
        self,
        targets: NDArray[np.uint8] | NDArray[np.bool_],
        rng: Rng,
        *,
        radius: float = RADIUS,
        void: NDArray[np.bool_] | None = None,
    ) -> None:
        self.targets = targets.astype(bool)
        self.maps = np.zeros((len(targets), 2, *targets.shape[1:]), np.float32)
        self._rng = rng
        self._radius = radius
        self._void = void

    def first(self) -> None:
        """A positive click on every target; one target in five gets up to three more clicks at once."""
        empty = np.zeros_like(self.targets)
        for n in range(len(self.targets)):
            more = int(self._rng.integers(1, 4)) if self._rng.random() < 0.2 else 0
            self._add(n, empty[n], 1)
            if more:
                # A coarse mask: the clicks then fall on its two kinds of error.
                grown = cv2.dilate(self.targets[n].astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
                self._add(n, grown & ~self.targets[n] if self._rng.random() < 0.4 else empty[n], more)

    def correct(self, predictions: NDArray[np.bool_], but: NDArray[np.bool_] | None = None) -> None:
        """Clicks on the errors of the last masks: one a target, and for one target in four two or three.

        Args:
            predictions: (N, H, W) bool.
            but: (N,) bool, targets that get none; None for no target.
        """
        for n in range(len(self.targets)):
            count = int(self._rng.integers(2, 4)) if self._rng.random() < 0.25 else 1
            if but is None or not but[n]:
                self._add(n, predictions[n], count)

    def guard(self, predictions: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
        """Negative clicks on what is background in the truth and in the mask, for a share of the targets.

        The disks touch neither the target nor the mask. Half of the clicks fall near one of them.

        Args:
            predictions: (N, H, W) bool, the last masks.
            share: Share of the targets, 0..1.

        Returns:
            (N,) bool, which targets got one: those that were drawn and have a mask and room for a disk.
        """
        clicked = np.zeros(len(self.targets), bool)
        for n in range(len(self.targets)):
            if self._rng.random() >= share or not predictions[n].any():
                continue
            background = ~self.targets[n] & ~predictions[n]
            if self._void is not None:
                background &= ~self._void[n]
            field = squared_depth(background)
            free = field >= (self._radius + 1.5) ** 2
            near = free & (field <= (4 * self._radius) ** 2)
            places = np.flatnonzero(near if near.any() and self._rng.random() < 0.5 else free)
            if len(places):
                y, x = divmod(int(self._rng.choice(places)), field.shape[1])
                draw_disk(self.maps[n, 1], x, y, self._radius)
                clicked[n] = True
        return clicked

    def iou(self, predictions: NDArray[np.bool_]) -> float:
        """Mean IoU of the masks (N, H, W) bool with the targets, void left out."""
        axes = (1, 2)
        masks = predictions if self._void is None else predictions & ~self._void
        union = (self.targets | masks).sum(axes)
        return float(((self.targets & masks).sum(axes) / np.maximum(union, 1)).mean())

    def _add(self, n: int, prediction: NDArray[np.bool_], count: int) -> None:
        wrong = ~self.targets[n] & prediction
        if self._void is not None:
            wrong &= ~self._void[n]
        missing = squared_depth(self.targets[n] & ~prediction)
        surplus = squared_depth(wrong)
        for _ in range(count):
            positive = bool(missing.max() > surplus.max())
            field = missing if positive else surplus
            deepest = float(field.max())
            if deepest < 1.0:
                return
            if self._rng.random() < CENTRE_SHARE:
                at = int(field.argmax())
            else:
                at = int(self._rng.choice(np.flatnonzero(field > deepest / 4)))
            y, x = divmod(at, field.shape[1])
            shift = self._rng.uniform(-0.5, 0.5, 2)  # clicks come from another pixel grid
            draw_disk(self.maps[n, 0 if positive else 1], x + float(shift[0]), y + float(shift[1]), self._radius)
            # No further click of this round inside the disk that this click explains.
            cv2.circle(field, (x, y), max(int(deepest**0.5), 3), 0.0, -1)
