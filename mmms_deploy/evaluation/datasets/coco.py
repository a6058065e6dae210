"""COCO and files in its format (LVIS too): objects as polygons or run lengths in one JSON file.

T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np

from mmms_deploy.annotations.rle import draw_runs
from mmms_deploy.errors import FileReadError
from mmms_deploy.evaluation.datasets.files import file_named, nonempty, partner, plain_name
from mmms_deploy.evaluation.datasets.kind import Kind, Layout, Option, min_area_option
from mmms_deploy.evaluation.datasets.listed import ListedDataset
from mmms_deploy.evaluation.datasets.photo import fitted, read_photo
from mmms_deploy.evaluation.datasets.surfaces import Mask
from mmms_deploy.evaluation.errors import DatasetFileError, DatasetLibraryError
from mmms_deploy.evaluation.scene import Scene, Surface
from mmms_deploy.files import GIB, read_bytes
from mmms_deploy.installed import pip_install

TREE = """\
PATH/
  val2017/NAME.jpg                            or where the option images says
  annotations/instances_val2017.json          or where the option annotations says"""

LAYOUT = Layout("coco", TREE)
LIMIT = 4 * GIB
"""The most bytes of the JSON file; LVIS has 1.2 GB."""


class RunLengths(msgspec.Struct, frozen=True):
    """A mask as lengths of runs down the columns; ``counts`` is text when they are compressed."""

    size: tuple[int, int]
    counts: str | tuple[int, ...]


class Annotation(msgspec.Struct, frozen=True):
    """One object of an image; polygons are x, y, x, y, ... in pixels."""

    id: int
    image_id: int
    category_id: int
    segmentation: RunLengths | tuple[tuple[float, ...], ...] | None = None
    iscrowd: int = 0


class ImageEntry(msgspec.Struct, frozen=True):
    """One image; LVIS gives the name of its file only in the address."""

    id: int
    height: int
    width: int
    file_name: str | None = None
    coco_url: str | None = None


class Category(msgspec.Struct, frozen=True):
    """One class."""

    id: int
    name: str


class Instances(msgspec.Struct, frozen=True):
    """The parts of the JSON file that are read."""

    images: tuple[ImageEntry, ...]
    annotations: tuple[Annotation, ...]
    categories: tuple[Category, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """An image and its objects, in the order of their ids, with their names."""

    image: Path
    size: tuple[int, int]
    objects: tuple[tuple[str, Annotation], ...]


def open_coco(
    path: Path, *, name: str, split: str, annotations: str | None, images: str | None, min_area: int
) -> ListedDataset[Item]:
    """Open a data set in COCO's format; the keywords are the options of :data:`KIND`.

    Raises:
        DatasetLayoutError: The JSON file or the folder of images is missing, or no image has objects.
        DatasetFileError: The JSON file has another format, or an image is missing.
        DatasetLibraryError: pycocotools is not installed.
    """
    _coco_mask()
    root = LAYOUT.root(path)
    file = root / (annotations or f"annotations/instances_{split}.json")
    if not file.is_file():
        raise LAYOUT.error(root, f"there is no file {file.relative_to(root)}")
    folder = LAYOUT.folder(root, images or split)
    items = nonempty(LAYOUT, root, _items(_decode(file), file, folder), f"images with objects in {file.name}")
    return ListedDataset(name, items, partial(_read, file=file, min_area=min_area))


def _decode(file: Path) -> Instances:
    try:
        return msgspec.json.decode(read_bytes(file, LIMIT), type=Instances, strict=False)
    # msgspec raises UnicodeDecodeError for bytes that are not UTF-8, and RecursionError for deep nesting.
    except (FileReadError, msgspec.DecodeError, ValueError, RecursionError) as error:
        raise DatasetFileError(
            f"{file} cannot be read: {error.reason if isinstance(error, FileReadError) else error}",
            expected="JSON in COCO's format: images, annotations with segmentation, categories",
            fix="give the file of the object instances, not the captions or keypoints",
        ) from error


def _items(instances: Instances, file: Path, folder: Path) -> dict[str, Item]:
    categories = {category.id: category.name for category in instances.categories}
    objects: defaultdict[int, list[Annotation]] = defaultdict(list)
    for annotation in instances.annotations:
        if not annotation.iscrowd and annotation.segmentation:
            objects[annotation.image_id].append(annotation)
    entries: dict[str, ImageEntry] = {}
    for image in instances.images:
        if image.id in objects:
            name = _file_name(image, file)
            if entries.setdefault(name, image) is not image:
                raise DatasetFileError(
                    f"{file} lists {name} twice", expected="every image once", fix="remove the second entry"
                )

    found = partner(entries, partial(file_named, folder), "file", folder)
    items = {}
    for name, image in sorted(entries.items()):
        own = sorted(objects[image.id], key=lambda annotation: annotation.id)
        scene = plain_name(PurePosixPath(name).with_suffix("").as_posix())
        items[scene] = Item(found[name], (image.height, image.width), _named(own, categories))
    return items


def _file_name(image: ImageEntry, file: Path) -> str:
    # LVIS: http://images.cocodataset.org/val2017/000000397133.jpg
    name = image.file_name or "/".join((image.coco_url or "").split("/")[-2:])
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or PurePosixPath(name).is_absolute():
        raise DatasetFileError(
            f"{file} names the file {name!r} for image {image.id}",
            expected="a path inside the folder of images",
            fix="correct file_name",
        )
    return name


def _named(own: Sequence[Annotation], categories: dict[int, str]) -> tuple[tuple[str, Annotation], ...]:
    """Name objects by their classes, and number them within these: ``person-2``."""
    counts: Counter[str] = Counter()
    named = []
    for annotation in own:
        category = categories.get(annotation.category_id, str(annotation.category_id))
        counts[category] += 1
        named.append((f"{category}-{counts[category]}", annotation))
    return tuple(named)


def _read(name: str, item: Item, *, file: Path, min_area: int) -> Scene:
    photo = read_photo(item.image, name)
    if item.size not in (photo.size, photo.stored_size):
        raise DatasetFileError(
            f"the image {item.image} has {photo.size[0]} rows and {photo.size[1]} columns",
            expected=f"{item.size[0]} rows and {item.size[1]} columns, as {file.name} says",
            fix="nothing is resized here: give the images that were annotated",
        )
    surfaces = []
    for surface, annotation in item.objects:
        mask = fitted(_mask(annotation, item.size, file), "segmentation in", file, photo)
        if np.count_nonzero(mask) >= min_area:
            surfaces.append(Surface(surface, mask))
    return Scene(name, photo.pixels, tuple(surfaces))


def _mask(annotation: Annotation, size: tuple[int, int], file: Path) -> Mask:
    """Draw an object: polygons as COCO's own library does."""
    shape = annotation.segmentation
    try:
        if isinstance(shape, RunLengths):
            if shape.size != size:
                raise ValueError(f"it is for {shape.size[0]}x{shape.size[1]} pixels, the image has {size[0]}x{size[1]}")
            return draw_runs(shape.counts, size)
        # The library would read four numbers as a box.
        polygons = [list(polygon) for polygon in shape or () if len(polygon) >= 6]
        mask = np.zeros(size, np.bool_)
        for polygon in polygons:
            _check_polygon(polygon, size)
            (drawn,) = _coco_mask().frPyObjects([polygon], *size)
            mask |= draw_runs(drawn["counts"].decode("ascii"), size)
    except ValueError as error:
        raise DatasetFileError(
            f"the segmentation of annotation {annotation.id} in {file} cannot be drawn: {error}",
            expected="polygons around the object, or run lengths of the image's size",
            fix="correct or remove the annotation",
        ) from error
    return mask


def _check_polygon(polygon: Sequence[float], size: tuple[int, int]) -> None:
    """Refuse coordinates for which the library would use up all memory."""
    reach = 2 * max(size)
    if not all(-reach <= value <= reach for value in polygon):
        raise ValueError(f"a polygon reaches from {min(polygon)} to {max(polygon)}")


def _coco_mask() -> Any:
    """COCO's own library for masks."""
    try:
        import pycocotools.mask
    except ImportError as error:
        raise DatasetLibraryError(
            "COCO's polygons need pycocotools, which is not installed",
            expected="the package pycocotools",
            fix=pip_install("eval"),
        ) from error
    return pycocotools.mask


KIND = Kind(
    name="coco",
    description="COCO, LVIS, or any JSON file in their format: every object a surface; they may overlap",
    tree=TREE,
    options=(
        Option("split", "names the JSON file and the folder of images", "val2017"),
        Option("annotations", "the JSON file in PATH, where it has another name"),
        Option("images", "the folder of images in PATH, where it has another name; '.' for PATH itself"),
        min_area_option(1),
    ),
    open=open_coco,
)
