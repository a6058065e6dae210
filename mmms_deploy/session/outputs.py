"""What is taken out of a session: all its objects as a COCO data set or as arrays, and the picture for overlays."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

from PIL import Image

from mmms_deploy.annotations.coco import CocoObject, CocoWriter
from mmms_deploy.annotations.detections import Detections, detections_of
from mmms_deploy.arguments import flag
from mmms_deploy.errors import AnnotationError
from mmms_deploy.files import PathLike
from mmms_deploy.imaging.io import UInt8Array
from mmms_deploy.session.result import ClickResult


class Named(NamedTuple):
    """An object of an image: its name, its label, and the answer to its clicks."""

    name: str
    label: int
    result: ClickResult


def coco_of(
    objects: Iterable[Named],
    size: tuple[int, int],
    file_name: PathLike,
    *,
    polygons: bool,
    tolerance: float,
    categories: Mapping[str, str],
    empty: bool,
) -> dict[str, Any]:
    """Return a COCO data set of one image.

    Args:
        objects: Its objects; one is there at a time, because masks of large images are large.
        size: (H0, W0).
        file_name: Its name.
        polygons: Whether masks are polygons, where these are exact.
        tolerance: Of the polygons.
        categories: The category of a surface, by name; the others are their own.
        empty: Whether objects without a pixel are there too.
    """
    if not isinstance(categories, Mapping):
        raise AnnotationError(
            f"the categories are a {type(categories).__qualname__}",
            expected='the category of a surface, by its name: {"dog 1": "dog", "dog 2": "dog"}',
            fix="pass a dict; CocoWriter(categories=[...]) takes a list",
        )
    writer = CocoWriter(polygons=polygons, tolerance=tolerance)
    wanted = flag("empty", empty, AnnotationError)
    kept = (one for one in objects if wanted or one.result.area)
    writer.add_image(
        file_name,
        size,
        (
            CocoObject(one.result.mask, categories.get(one.name, one.name), one.result.clicks, surface=one.name)
            for one in kept
        ),
    )
    return writer.dataset()


def arrays_of(objects: Iterable[Named], size: tuple[int, int]) -> Detections:
    """Return the objects that have pixels as arrays."""
    kept = [one for one in objects if one.result.area]
    return detections_of(
        [one.result.mask for one in kept], [one.label for one in kept], [one.name for one in kept], size
    )


def kept_picture(pixels: UInt8Array, source: object) -> UInt8Array:
    """Return the pixels of an image that a session keeps, read-only.

    Args:
        pixels: What was read of it.
        source: What the caller passed. What may be an array is copied, because callers use their buffers again.
    """
    decoded = isinstance(source, str | os.PathLike | bytes | Image.Image) or hasattr(source, "read")
    picture = pixels if decoded else pixels.copy()
    picture.setflags(write=False)
    return picture


def file_name_of(source: object) -> str:
    """Return the name of the file that an image comes from; empty where it is none."""
    path = source
    if not isinstance(source, str | os.PathLike):
        # An uploaded file says "filename", an open one "name"; that of a temporary file is a number or None.
        path = getattr(source, "filename", "") or (getattr(source, "name", "") if hasattr(source, "read") else "")
    return PurePath(os.fsdecode(path)).name if isinstance(path, str | bytes | os.PathLike) else ""
