"""Boxes, equal to those of COCO's own library."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask

from mmms_deploy.annotations import bbox_of, rle_of, xyxy_of
from tests.support.masks import whole


def test_boxes_like_the_library() -> None:
    for mask in whole():
        assert list(bbox_of(mask)) == coco_mask.toBbox(rle_of(mask)).tolist()
        x0, y0, x1, y1 = xyxy_of(mask)
        assert np.count_nonzero(mask[y0:y1, x0:x1]) == np.count_nonzero(mask)
        assert bbox_of(mask) == (x0, y0, x1 - x0, y1 - y0)
        assert all(type(number) is int for number in bbox_of(mask))
