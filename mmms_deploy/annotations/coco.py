"""COCO files: images, categories and annotations of one or several images.

pycocotools and everything built on it read them. Masks are compressed run lengths, which every mask fits into, or
polygons. COCO's polygons know no holes; an object that has one is written as run lengths in both cases. Objects may
overlap: every annotation has its own whole mask. ``clicks`` and ``surface`` are keys of ours; other tools pass over
them.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.annotations.boxes import bbox_of
from mmms_deploy.annotations.clicks import ClickLike, clicks_to_json
from mmms_deploy.annotations.masks import checked_bool
from mmms_deploy.annotations.polygons import checked_size, checked_tolerance, plain, polygons_of
from mmms_deploy.annotations.record import check_new, checked_suffix, write_json
from mmms_deploy.annotations.rle import draw_runs, mask_of_rle, rle_of
from mmms_deploy.arguments import flag, items, shown
from mmms_deploy.errors import AnnotationError
from mmms_deploy.files import PathLike, as_path
from mmms_deploy.imaging.resize import BoolArray
from mmms_deploy.version import __version__

_DATASET = "a COCO data set: a dict with the lists 'images', 'annotations' and 'categories'"


@dataclass(frozen=True, eq=False)
class CocoObject:
    """One object of an image.

    Attributes:
        mask: (H, W) bool, or whole numbers 0 and 1 or 0 and 255.
        category: Name of its category.
        clicks: The clicks that led to it, as (x, y, positive) or ``Click``.
        surface: Its name in a session; empty for none.
    """

    mask: npt.NDArray[Any]
    category: str
    clicks: Sequence[ClickLike] = ()
    surface: str = ""


class CocoWriter:
    """Collects the annotations of several images into one COCO data set.

    Images, annotations and categories are numbered from 1 in the order in which they come. Categories of the same name
    are one.

    Args:
        categories: Names that get the first numbers, whether they occur or not; so the numbers stay the same from file
            to file.
        polygons: Whether masks are written as polygons where these are exact, that is for objects without holes.
        tolerance: How far their outlines may move, in image pixels, to have fewer corners.

    Raises:
        AnnotationError: The tolerance is no number of 0 or more, or there are no polygons to simplify; or a category is
            no text.
    """

    def __init__(self, categories: Sequence[str] = (), *, polygons: bool = False, tolerance: float = 0.0) -> None:
        self._polygons = flag("polygons", polygons, AnnotationError)
        self._tolerance = checked_tolerance(tolerance)
        if self._tolerance and not self._polygons:
            raise AnnotationError(
                f"the tolerance is {tolerance}, and masks are written as run lengths",
                expected="a tolerance for polygons",
                fix="pass polygons=True, or no tolerance",
                command_fix="leave the tolerance out, or ask for polygons",
            )
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._categories: dict[str, dict[str, Any]] = {}
        for name in _names(categories):
            self._category({"name": name})

    def add_image(self, file_name: PathLike, size: tuple[int, int], objects: Iterable[CocoObject] = ()) -> int:
        """Add an image and its objects; all of them or none.

        Args:
            file_name: Its name or path, as tools will look for it.
            size: (H, W).
            objects: Its objects, each with a mask of that size.

        Returns:
            Its number.

        Raises:
            AnnotationError: A mask has another size, or is no mask; a click is none; or a name is no text.
        """
        place = _file_name(file_name)
        height, width = checked_size(size)
        every = items("the objects are", objects, AnnotationError, expected="a list of CocoObject")
        made = [self._made(one, (height, width)) for one in every]
        number = len(self._images) + 1
        self._images.append({"id": number, "file_name": place, "height": height, "width": width})
        for name, annotation in made:
            category = self._category({"name": name})
            numbers = {"id": len(self._annotations) + 1, "image_id": number, "category_id": category}
            self._annotations.append({**numbers, **annotation})
        return number

    def add(self, dataset: Mapping[str, Any]) -> None:
        """Add all images of another data set, such as ``session.to_coco(...)`` or a file that was read; all or none.

        Args:
            dataset: ``images``, ``annotations`` and ``categories``; everything is numbered anew.

        Raises:
            AnnotationError: It is no COCO data set, or names an image or a category that it has not.
        """
        try:
            images, annotations, categories = (
                [dict(one) for one in dataset[key]] for key in ("images", "annotations", "categories")
            )
            names = {one["id"]: str(one["name"]) for one in categories}
            first = len(self._images) + 1
            numbers = {one["id"]: number for number, one in enumerate(images, first)}
            placed = [(one, numbers[one["image_id"]], names[one["category_id"]]) for one in annotations]
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            said = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise AnnotationError(f"the data set cannot be added: {said}", expected=_DATASET, fix="check it") from error
        for one in categories:
            self._category(one)
        self._images += [{**one, "id": numbers[one["id"]]} for one in images]
        for one, image, name in placed:
            category = self._category({"name": name})
            number = len(self._annotations) + 1
            self._annotations.append({**one, "id": number, "image_id": image, "category_id": category})

    def dataset(self) -> dict[str, Any]:
        """Return the data set so far.

        Returns:
            ``info``, ``images``, ``annotations`` and ``categories``, JSON-able, the caller's own.
        """
        whole = {
            "info": {"description": f"annotated with mmms-deploy {__version__}"},
            "licenses": [],
            "images": self._images,
            "annotations": self._annotations,
            "categories": list(self._categories.values()),
        }
        return copy.deepcopy(whole)

    def write(self, path: PathLike, *, overwrite: bool = False) -> None:
        """Write the data set so far as a JSON file, whole or not at all.

        Args:
            path: The file; its name ends in ``.json``.
            overwrite: Whether an existing file may be replaced.

        Raises:
            OutputFormatError: The path ends in another suffix.
            OutputExistsError: The file exists, and may not be replaced.
            OutputWriteError: It cannot be written.
        """
        place = as_path(path)
        checked_suffix(place, (".json",))
        check_new(place, overwrite=overwrite)
        write_json(place, self.dataset(), overwrite=overwrite)

    def _category(self, category: Mapping[str, Any]) -> int:
        """Return the number of a category, which is given to it when it is new."""
        name = str(category["name"])
        if name not in self._categories:
            number = len(self._categories) + 1
            self._categories[name] = {"supercategory": "", **category, "id": number, "name": name}
        return int(self._categories[name]["id"])

    def _made(self, one: object, size: tuple[int, int]) -> tuple[str, dict[str, Any]]:
        if not isinstance(one, CocoObject):
            raise _no_object(one)
        return _name(one.category), self._annotation(one, size)

    def _annotation(self, one: CocoObject, size: tuple[int, int]) -> dict[str, Any]:
        surface = _name(one.surface)
        mask = checked_bool(one.mask)
        if mask.shape != tuple(size):
            raise AnnotationError(
                f"the mask of {surface or one.category!r} has shape {mask.shape}",
                expected=f"{tuple(size)}, the size of the image",
                fix="pass masks of the image's own size",
            )
        annotation: dict[str, Any] = {
            "bbox": list(bbox_of(mask)),
            "area": int(np.count_nonzero(mask)),
            "iscrowd": 0,
            "segmentation": self._segmentation(mask),
            "clicks": clicks_to_json(one.clicks),
        }
        return {**annotation, "surface": surface} if surface else annotation

    def _segmentation(self, mask: npt.NDArray[np.bool_]) -> Any:
        if self._polygons and mask.any():
            found = polygons_of(mask, self._tolerance)
            if not any(polygon.holes for polygon in found):
                return [plain(polygon.outer.reshape(-1)) for polygon in found]
        return rle_of(mask)


def _no_object(given: object) -> AnnotationError:
    return AnnotationError(
        f"an object of the image is {shown(given, 80)}",
        expected="a list of CocoObject",
        fix="pass [CocoObject(mask, category)]",
    )


def _file_name(name: object) -> str:
    if not isinstance(name, str | os.PathLike):
        raise AnnotationError(
            f"the image's name is {shown(name)}",
            expected="its name or path, as a text",
            fix="pass a text, such as 'photo.jpg'",
        )
    return name.as_posix() if isinstance(name, PurePath) else os.fsdecode(name)


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise AnnotationError(
            f"a category is {shown(name)}",
            expected="its name, as a text",
            fix="pass names; COCO's numbers are given here",
        )
    return str.__str__(name)


def _names(names: object) -> list[str]:
    fix = 'pass ["dog", "cat"]'
    given = items("the categories are", names, AnnotationError, expected="a list of names", fix=fix)
    return [_name(name) for name in given]


def mask_of_segmentation(segmentation: object, size: tuple[int, int]) -> BoolArray:
    """Draw the segmentation of an annotation, as COCO's own library does.

    Args:
        segmentation: Run lengths, or polygons as lists [x, y, x, y, ...] in pixel edges.
        size: (H, W) of the image.

    Returns:
        (H, W) bool.

    Raises:
        AnnotationError: It is neither, or for an image of another size.
    """
    height, width = checked_size(size)
    if isinstance(segmentation, Mapping):
        mask = mask_of_rle(segmentation)
        if mask.shape != (height, width):
            raise AnnotationError(
                f"the run lengths are for {mask.shape[0]} rows and {mask.shape[1]} columns",
                expected=f"{height} rows and {width} columns",
                fix="pass the size of the annotated image",
            )
        return mask
    import pycocotools.mask

    drawn = np.zeros((height, width), dtype=np.bool_)
    for polygon in segmentation if isinstance(segmentation, list | tuple) else (segmentation,):
        points = _checked_flat(polygon, max(height, width))
        (rle,) = pycocotools.mask.frPyObjects([points], height, width)
        drawn |= draw_runs(rle["counts"].decode("ascii"), (height, width))
    return drawn


def _checked_flat(polygon: object, longest: int) -> list[float]:
    """Return a flat polygon; the library would read four numbers as a box, and use up all memory for huge ones."""
    try:
        points = np.asarray(polygon, dtype=np.float64)
        if points.ndim != 1 or points.size < 6 or points.size % 2 or not (np.abs(points) <= 2 * longest).all():
            raise ValueError(f"{points.size} numbers" if points.ndim == 1 else f"shape {points.shape}")
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise AnnotationError(
            f"a polygon cannot be drawn: {error}",
            expected="run lengths; or a list of polygons, each [x, y, x, y, ...], of 3 points or more, in the image",
            fix="check where it comes from",
        ) from error
    found: list[float] = points.tolist()
    return found


def coco_dataset(*datasets: Mapping[str, Any], categories: Sequence[str] = ()) -> dict[str, Any]:
    """Join COCO data sets into one: images and annotations are numbered anew, categories of the same name are one.

    Args:
        *datasets: Such as ``session.to_coco(...)`` of several images.
        categories: Names of categories that get the first numbers.

    Returns:
        The data set, JSON-able.

    Raises:
        AnnotationError: One of them is no COCO data set.
    """
    writer = CocoWriter(categories)
    for dataset in datasets:
        writer.add(dataset)
    return writer.dataset()
