"""The arrays that detection tools take: boxes, masks and numbers of classes, one row an object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmms_deploy.annotations.boxes import xyxy_of
from mmms_deploy.imaging.resize import BoolArray


@dataclass(frozen=True, eq=False)
class Detections:
    """N objects of an image as arrays, for ``supervision.Detections(xyxy=..., mask=..., class_id=...)`` and others.

    Attributes:
        xyxy: (N, 4) float32: x0, y0, x1, y1 of every box in pixel edges, so that a box has x1 - x0 columns.
        mask: (N, H, W) bool: the mask of every object; they may overlap.
        class_id: (N,) int64: the label of every object.
        names: The name of every object.
    """

    xyxy: npt.NDArray[np.float32]
    mask: BoolArray
    class_id: npt.NDArray[np.int64]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


def detections_of(
    masks: Sequence[BoolArray], labels: Sequence[int], names: Sequence[str], size: tuple[int, int]
) -> Detections:
    """Return objects as arrays.

    Args:
        masks: The mask (H, W) of every object.
        labels: Its label.
        names: Its name.
        size: (H, W) of the image.
    """
    stacked = np.zeros((len(masks), *size), dtype=np.bool_)
    for row, mask in zip(stacked, masks, strict=True):
        row[:] = mask
    boxes = np.array([xyxy_of(mask) for mask in masks], dtype=np.float32).reshape(-1, 4)
    return Detections(boxes, stacked, np.array(labels, dtype=np.int64), tuple(names))
