"""The box of a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.annotations.masks import checked_bool


def xyxy_of(mask: npt.NDArray[Any]) -> tuple[int, int, int, int]:
    """Return the box of a mask by its edges.

    Args:
        mask: (H, W) bool, or whole numbers 0 and 1 or 0 and 255.

    Returns:
        x0, y0, x1, y1 in pixel edges: the first column and row of the object, and the ones after its last, so that
        ``mask[y0:y1, x0:x1]`` is the object. (0, 0, 0, 0) for an empty mask.

    Raises:
        AnnotationError: It is no mask.
    """
    checked = checked_bool(mask)
    rows = np.flatnonzero(checked.any(axis=1))
    if not rows.size:
        return 0, 0, 0, 0
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(checked[y0:y1].any(axis=0))
    return int(columns[0]), y0, int(columns[-1]) + 1, y1


def bbox_of(mask: npt.NDArray[Any]) -> tuple[int, int, int, int]:
    """Return the box of a mask as COCO writes it.

    Args:
        mask: (H, W) bool, or whole numbers 0 and 1 or 0 and 255.

    Returns:
        x, y, width and height in pixels; (0, 0, 0, 0) for an empty mask.

    Raises:
        AnnotationError: It is no mask.
    """
    x0, y0, x1, y1 = xyxy_of(mask)
    return x0, y0, x1 - x0, y1 - y0
