"""Where a pixel of the image lies in the network's input.

Pixel centres are at integers on both sides: pixel i covers [i - 0.5, i + 0.5).
"""

from __future__ import annotations

from mmms_deploy.bundle.contract import Coordinates


def to_network(
    x: float, y: float, *, image: tuple[int, int], network: tuple[int, int], rule: Coordinates
) -> tuple[float, float]:
    """Return the network pixel of an image pixel.

    Args:
        x: Column in the image, to the right.
        y: Row in the image, downwards.
        image: (H0, W0) of the image.
        network: (H, W) of the network's input.
        rule: The checkpoint's rule.

    Returns:
        (x, y) in network pixels.
    """
    return _along_axis(x, image[1], network[1], rule), _along_axis(y, image[0], network[0], rule)


def _along_axis(value: float, size: int, target: int, rule: Coordinates) -> float:
    factor = _factor(size, target, rule)
    return (value + 0.5) * factor - 0.5 if rule is Coordinates.HALF_PIXEL else value * factor


def _factor(size: int, target: int, rule: Coordinates) -> float:
    if rule is Coordinates.ALIGN_CORNERS:
        # One pixel has no extent between centres. Taking 1 for 0 keeps the map invertible and sends pixel 0 to 0, where
        # resizing with align_corners to or from one pixel reads.
        return max(target - 1, 1) / max(size - 1, 1)
    return target / size
