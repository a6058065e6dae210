"""A mask that is put in by hand, as the map of labels that a network with such a memory sees at the next click."""

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
    """Return the labels after a mask was put in the place of the network's answer.

    The clicks so far stay: in their disks the labels are as the clicks set them. A mask that a person put in says more
    than one answer of the network does, so all other pixels become ``LIKELY_OBJECT`` in the mask and
    ``LIKELY_BACKGROUND`` outside of it, whatever they were before.

    Args:
        probability: (H, W) at the network's size: the mask as a probability.
        clicks: The clicks before the mask, oldest first.
        image_size: (H0, W0) of the image.
        rule: The radius of a click's disk, the threshold, and how image pixels become network pixels.

    Returns:
        (1, 1, H, W) uint8, values of :class:`~mmms_deploy.bundle.contract.ClickLabel`.
    """
    inside = probability > np.float32(rule.threshold)
    labels = np.where(inside, ClickLabel.LIKELY_OBJECT, ClickLabel.LIKELY_BACKGROUND).astype(np.uint8)
    size = (labels.shape[0], labels.shape[1])
    columns = np.arange(size[1], dtype=np.float32)[None, :]
    rows = np.arange(size[0], dtype=np.float32)[:, None]
    for click in clicks:
        # In float32, as in the click stage, so that both draw the same pixels.
        x, y = to_network(click.x, click.y, image=image_size, network=size, rule=rule.coordinates)
        near = (columns - np.float32(x)) ** 2 + (rows - np.float32(y)) ** 2 <= np.float32(rule.radius**2)
        labels[near] = ClickLabel.OBJECT if click.positive else ClickLabel.BACKGROUND
    return labels[None, None]
