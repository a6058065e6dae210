"""A box around an object as the start of its clicks, for networks that take one.

Decoders of SAM's kind do: to them a box is two more points, its first corner with the label 2 and its second one with
the label 3, as in ``SAM2ImagePredictor`` (transformed as points are, and put before them) and in SAM's ONNX example.
The click contract says so (``PointList.box``). No other network of this package has a box in its paper, and none is
made of anything else here.
"""

from __future__ import annotations

import numpy as np

from mmms_deploy.arguments import shown
from mmms_deploy.bundle import Manifest
from mmms_deploy.bundle.contract import BOX_CORNERS, ClickContract
from mmms_deploy.engines.protocol import Array
from mmms_deploy.errors import ClickError
from mmms_deploy.imaging.coordinates import to_network
from mmms_deploy.session.interactions import BoxInput, Snapshot

_EXPECTED = "x0, y0, x1, y1 in image pixels, with x0 < x1 and y0 < y1"
CORNERS = 2
"""Rows of a list of points that a box takes."""


def takes_boxes(rule: ClickContract) -> bool:
    """Whether a network takes a box."""
    return rule.points is not None and bool(rule.points.box)


def checked_box(corners: object, size: tuple[int, int], *, pixels: bool = True) -> BoxInput:
    """Return a box, checked.

    Args:
        corners: x0, y0, x1, y1; also as an array (4,) or (1, 4).
        size: (H0, W0) of the image.
        pixels: Whether they are in image pixels; else they are parts of its width and height, from 0 to 1.

    Raises:
        ClickError: It is no box, or reaches beyond the image.
    """
    try:
        numbers = np.asarray(corners, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ClickError(f"a box is {shown(corners, 80)}", expected=_EXPECTED, fix="pass four numbers") from error
    if numbers.shape != (4,):
        several = numbers.size > 4 and numbers.size % 4 == 0
        fix = "one box for each object: select(name) before it" if several else "pass four numbers"
        raise ClickError(f"a box has {numbers.size} numbers", expected=_EXPECTED, fix=fix)
    height, width = size
    if not pixels:
        numbers = numbers * (width, height, width, height)
    x0, y0, x1, y1 = (float(number) for number in numbers)
    if not (-0.5 <= x0 < x1 <= width and -0.5 <= y0 < y1 <= height):
        raise ClickError(
            f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g})",
            expected=f"{_EXPECTED}, inside of the image: x to {width}, y to {height}",
            fix="order its corners, and cut it to the image",
        )
    return BoxInput(x0, y0, x1, y1)


def no_boxes(box: BoxInput, manifest: Manifest) -> ClickError:
    """Return the error for a box and a network that takes none.

    Args:
        box: The box.
        manifest: The bundle's manifest.
    """
    x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
    points = manifest.clicks.points is not None
    export = ", or export the pair again with 'box = true' in the description of its decoder" if points else ""
    return ClickError(
        f"a box was put in, and {manifest.name} takes clicks, no boxes",
        expected="a network that takes boxes, such as SAM 2 as mmms-export --ckpt sam2-tiny makes it",
        fix=f"click inside instead, e.g. in its middle: click({x:g}, {y:g}){export}",
        command_fix=f"click inside instead, e.g. in its middle: --pos {x:g},{y:g}",
    )


def check_for_box(box: BoxInput, current: Snapshot, manifest: Manifest) -> None:
    """Check that a network takes a box, and that it comes before the clicks.

    Raises:
        ClickError: It takes none, or there are clicks or another box before it.
    """
    if not takes_boxes(manifest.clicks):
        raise no_boxes(box, manifest)
    if current.prompts:
        what = "another box" if any(isinstance(one, BoxInput) for one in current.prompts) else "clicks"
        raise ClickError(
            f"a box after {what} on the same object",
            expected="one box at the start of an object, and clicks after it",
            fix="call reset() first, or select(name) for another object",
        )
    assert manifest.clicks.points is not None
    if manifest.clicks.points.most < CORNERS:
        raise ClickError(
            "a box, which takes two points",
            expected=f"at most {manifest.clicks.points.most}: {manifest.name} was exported with a list of so many",
            fix="export again with more 'most_points' in the description",
        )


def with_corners(points: Array, box: BoxInput, size: tuple[int, int], manifest: Manifest) -> Array:
    """Return a list of points with the corners of a box behind the points that are there.

    Args:
        points: (1, N, 4), as the click stage keeps it.
        box: The box.
        size: (H0, W0) of the image.
        manifest: The bundle's manifest.
    """
    listed = np.array(points, dtype=np.float32, copy=True)
    used = int((listed[0, :, 3] > 0.5).sum())
    rule = manifest.clicks.coordinates
    for row, (x, y, kind) in enumerate(
        ((box.x0, box.y0, BOX_CORNERS[0]), (box.x1, box.y1, BOX_CORNERS[1])), start=used
    ):
        place = to_network(x, y, image=size, network=manifest.size, rule=rule)
        listed[0, row] = (*place, kind, 1.0)
    return listed
