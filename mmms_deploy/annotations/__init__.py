"""Annotations as other tools take them: run lengths, polygons, boxes, COCO files, label maps.

Pure functions of masks; nothing here knows a network, an engine or a session. In reading order:

- ``masks``: what counts as a mask, whoever made it
- ``boxes``: the box of a mask
- ``rle``: run lengths as COCO counts them
- ``outlines``: the rings along the pixel edges of a mask
- ``polygons``: polygons with holes, from masks and back
- ``clicks``: the clicks that go along with an annotation
- ``record``: one mask with its clicks, and its JSON file
- ``coco``: COCO files of one or several images
- ``labels``: label maps with names, and their PNG files
- ``detections``: the arrays that detection tools take

Coordinates of polygons and boxes are pixel edges, as in COCO: the pixel in column x and row y covers [x, x + 1] by
[y, y + 1]. Clicks have pixel centres at integers. So the centre of the first pixel is (0, 0) as a click and (0.5, 0.5)
in a polygon.

The names below load on first use.
"""

from typing import TYPE_CHECKING

from mmms_deploy.lazy import lazy_names

if TYPE_CHECKING:
    from mmms_deploy.annotations.boxes import bbox_of, xyxy_of
    from mmms_deploy.annotations.coco import CocoObject, CocoWriter, coco_dataset, mask_of_segmentation
    from mmms_deploy.annotations.detections import Detections
    from mmms_deploy.annotations.labels import read_labels, write_labels
    from mmms_deploy.annotations.polygons import Polygon, mask_of_polygons, polygons_of
    from mmms_deploy.annotations.record import Annotation, read_annotation, write_mask
    from mmms_deploy.annotations.rle import mask_of_rle, rle_of

__all__ = [
    "Annotation",
    "CocoObject",
    "CocoWriter",
    "Detections",
    "Polygon",
    "bbox_of",
    "coco_dataset",
    "mask_of_polygons",
    "mask_of_rle",
    "mask_of_segmentation",
    "polygons_of",
    "read_annotation",
    "read_labels",
    "rle_of",
    "write_labels",
    "write_mask",
    "xyxy_of",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Annotation": "record",
        "CocoObject": "coco",
        "CocoWriter": "coco",
        "Detections": "detections",
        "Polygon": "polygons",
        "bbox_of": "boxes",
        "coco_dataset": "coco",
        "mask_of_polygons": "polygons",
        "mask_of_rle": "rle",
        "mask_of_segmentation": "coco",
        "polygons_of": "polygons",
        "read_annotation": "record",
        "read_labels": "labels",
        "rle_of": "rle",
        "write_labels": "labels",
        "write_mask": "record",
        "xyxy_of": "boxes",
    },
)
