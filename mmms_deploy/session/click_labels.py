"""Masks as the map of labels that a network with such a memory sees at the next click."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle.contract import ClickContract, ClickLabel
from mmms_deploy.imaging.coordinates import to_network
from mmms_deploy.imaging.resize import FloatArray
from mmms_deploy.session.result import Click


def labels_of_mask(
    probability: FloatArray, clicks: Iterable[Click], image_size: tuple[int, int], rule: ClickContract
) -> npt.NDArray[np.uint8]:
    """Return the labels after a mask was put in the place of the network's answer; see :func:`drawn_labels`.

    Args:
        probability: (H, W) at the network's size: the mask as a probability.
        clicks: The clicks before the mask, oldest first.
        image_size: (H0, W0) of the image.
        rule: The radius of a click's disk, the threshold, and how image pixels become network pixels.

    Returns:
        (1, 1, H, W) uint8, values of :class:`~mmms_deploy.bundle.contract.ClickLabel`.
    """
    size = (probability.shape[0], probability.shape[1])
    places = []
    for click in clicks:
        x, y = to_network(click.x, click.y, image=image_size, network=size, rule=rule.coordinates)
        places.append((x, y, float(click.positive), 1.0))
    return drawn_labels(probability, places, rule)


def drawn_labels(
    probability: FloatArray, clicks: Iterable[tuple[float, float, float, float]], rule: ClickContract
) -> npt.NDArray[np.uint8]:
    """Draw the labels that a mask and clicks stand for.

    The clicks stay: in their disks the labels are as the clicks set them. A mask says more than one answer of the
    network does, so all other pixels become ``LIKELY_OBJECT`` in the mask and ``LIKELY_BACKGROUND`` outside of it,
    whatever they were before.

    Args:
        probability: (H, W) at the network's size: the mask as a probability.
        clicks: The clicks as the click stage takes them, oldest first: x and y in network pixels, 1 positive or 0
            negative, 1.
        rule: The radius of a click's disk, and the threshold.

    Returns:
        (1, 1, H, W) uint8, values of :class:`~mmms_deploy.bundle.contract.ClickLabel`.
    """
    inside = probability > np.float32(rule.threshold)
    labels = np.where(inside, ClickLabel.LIKELY_OBJECT, ClickLabel.LIKELY_BACKGROUND).astype(np.uint8)
    columns = np.arange(labels.shape[1], dtype=np.float32)[None, :]
    rows = np.arange(labels.shape[0], dtype=np.float32)[:, None]
    for x, y, positive, _ in clicks:
        # In float32, as in the click stage, so that both draw the same pixels.
        near = (columns - np.float32(x)) ** 2 + (rows - np.float32(y)) ** 2 <= np.float32(rule.radius**2)
        labels[near] = ClickLabel.OBJECT if positive > 0.5 else ClickLabel.BACKGROUND
    return labels[None, None]
