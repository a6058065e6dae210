"""ZoomIn: which part of the picture the network sees at a click. Pure functions of boxes, masks and clicks.

The crop follows the object: it is the box around the previous mask and the positive clicks, expanded, and it stays as
it is as long as the object does not ask for a very different one. Source: K. Sofiiuk, I. Petrov, A. Konushin,
"Reviving Iterative Training with Mask Guidance for Interactive Segmentation", ICIP 2022, and the evaluation code of
its family; :class:`~mmms_deploy.bundle.protocol.ZoomRule` has the numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mmms_deploy.annotations.clicks import HasPoint
from mmms_deploy.bundle.contract import Coordinates
from mmms_deploy.bundle.protocol import ZoomRule
from mmms_deploy.imaging.coordinates import to_network
from mmms_deploy.imaging.resize import BoolArray, FloatArray


class Box(NamedTuple):
    """A part of the picture, in pixels; both ends belong to it.

    Attributes:
        top: Its first row.
        bottom: Its last row.
        left: Its first column.
        right: Its last column.
    """

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) in pixels."""
        return self.bottom - self.top + 1, self.right - self.left + 1

    @property
    def slices(self) -> tuple[slice, slice]:
        """The rows and columns of an array (H0, W0, ...) that belong to it."""
        return slice(self.top, self.bottom + 1), slice(self.left, self.right + 1)

    @property
    def xyxy(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 in pixel edges: ``image[y0:y1, x0:x1]``."""
        return self.left, self.top, self.right + 1, self.bottom + 1

    def covers(self, other: Box) -> bool:
        """Whether every pixel of another box belongs to it."""
        rows = self.top <= other.top and other.bottom <= self.bottom
        return rows and self.left <= other.left and other.right <= self.right


def whole(size: tuple[int, int]) -> Box:
    """Return the box of a whole picture of (H0, W0)."""
    return Box(0, size[0] - 1, 0, size[1] - 1)


def bounds(mask: BoolArray) -> Box | None:
    """Return the box around the true pixels of a mask (H0, W0); None when there is none."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return Box(int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1]))


def wanted_box(mask: Box | None, clicks: Iterable[HasPoint], size: tuple[int, int], rule: ZoomRule) -> Box:
    """Return the crop that the object asks for.

    Args:
        mask: The box around the previous mask; None for an empty one.
        clicks: All clicks, the newest included.
        size: (H0, W0) of the picture.
        rule: The family's rule.

    Returns:
        The box around the mask and the positive clicks, expanded; the whole picture when the mask is empty.
    """
    if mask is None:
        return whole(size)
    points = [(int(click.y), int(click.x)) for click in clicks if click.positive]
    rows = [mask.top, mask.bottom, *(row for row, _ in points)]
    columns = [mask.left, mask.right, *(column for _, column in points)]
    top, bottom = _expanded(min(rows), max(rows), size[0], rule)
    left, right = _expanded(min(columns), max(columns), size[1], rule)
    return Box(top, bottom, left, right)


def next_box(
    current: Box | None, mask: Box | None, clicks: Sequence[HasPoint], size: tuple[int, int], rule: ZoomRule
) -> Box:
    """Return the crop in which a click is answered.

    Args:
        current: The crop of the answer before; None for none.
        mask: The box around the previous mask; None for an empty one.
        clicks: All clicks, the newest included.
        size: (H0, W0) of the picture.
        rule: The family's rule.

    Returns:
        The current crop, as long as every positive click lies in it and it is like the one that the object asks for.
    """
    wanted = wanted_box(mask, clicks, size, rule)
    if current is None or any(click.positive and not _inside(click, current) for click in clicks):
        return wanted
    return wanted if iou(wanted, current) < rule.iou else current


def iou(one: Box, other: Box) -> float:
    """Return the product of the IoU of the rows and that of the columns, as RITM's code compares boxes."""
    return _iou(one.top, one.bottom, other.top, other.bottom) * _iou(one.left, one.right, other.left, other.right)


def click_in(
    click: HasPoint, box: Box, network: tuple[int, int], rule: Coordinates, *, mirrored: bool = False
) -> tuple[float, float, float, float]:
    """Return a click as the click stage takes it: x and y in network pixels, positive, and whether it counts.

    A click outside of the crop lies outside of the network's pixels. One with two negative coordinates there does not
    count, because RITM's family takes these for no click.

    Args:
        click: The click, in the picture's pixels.
        box: The crop.
        network: (H, W) of the network.
        rule: How image pixels become network pixels.
        mirrored: Whether the network sees the crop's mirror image.
    """
    column, row = to_network(click.x - box.left, click.y - box.top, image=box.size, network=network, rule=rule)
    if mirrored:
        column = network[1] - 1 - column
    counts = row >= 0 or column >= 0 or _on(click, box)
    return column, row, float(click.positive), float(counts)


def draw_disks(
    clicks: Iterable[tuple[float, float, float, float]], network: tuple[int, int], radius: float
) -> FloatArray:
    """Return the disks of clicks, as the click stage draws one at every click.

    Args:
        clicks: What :func:`click_in` returned for each.
        network: (H, W) of the network.
        radius: Radius of a disk in network pixels.

    Returns:
        (1, 2, H, W) float32 of 0 and 1: the disks of the positive clicks, and those of the negative ones.
    """
    height, width = network
    maps = np.zeros((1, 2, height, width), dtype=np.float32)
    reach = np.float32(radius**2)
    for click in clicks:
        x, y, positive, counts = np.asarray(click, dtype=np.float32)  # the numbers that the click stage computes with
        if counts <= 0.5:
            continue
        columns = (np.arange(width, dtype=np.float32) - x) ** 2
        rows = (np.arange(height, dtype=np.float32) - y) ** 2
        near = np.flatnonzero(rows <= reach)
        if near.size:
            part = slice(near[0], near[-1] + 1)
            plane = maps[0, 0 if positive > 0.5 else 1, part]
            plane[columns + rows[part, None] <= reach] = 1.0
    return maps


def _expanded(first: int, last: int, length: int, rule: ZoomRule) -> tuple[int, int]:
    centre = (first + last) / 2
    side = max(rule.expansion * (last - first + 1), rule.smallest)
    # Python rounds halves to even numbers, as the published code does.
    return max(0, min(round(centre - side / 2), length - 1)), max(0, min(round(centre + side / 2), length - 1))


def _on(click: HasPoint, box: Box) -> bool:
    """Whether a click lies on a pixel of a box."""
    rows = box.top - 0.5 <= click.y < box.bottom + 0.5
    return rows and box.left - 0.5 <= click.x < box.right + 0.5


def _inside(click: HasPoint, box: Box) -> bool:
    # The last row and column count as outside, as in the published code.
    return box.top <= click.y < box.bottom and box.left <= click.x < box.right


def _iou(first: int, last: int, other_first: int, other_last: int) -> float:
    shared = max(0, min(last, other_last) - max(first, other_first) + 1)
    return shared / max(1, max(last, other_last) - min(first, other_first) + 1)
