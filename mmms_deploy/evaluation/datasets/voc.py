"""Pascal VOC and folders like it. M. Everingham et al., IJCV 2010."""

from __future__ import annotations

from pathlib import Path

from mmms_deploy.evaluation.datasets.files import nonempty, partner, read_list, stems
from mmms_deploy.evaluation.datasets.kind import Kind, Layout, Option, min_area_option
from mmms_deploy.evaluation.datasets.listed import ListedDataset
from mmms_deploy.evaluation.datasets.pairs import Pair, match, paired
from mmms_deploy.evaluation.datasets.surfaces import SurfaceRule

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The 20 classes, of values 1 to 20."""

VOID = 255
ALL = "all"
OBJECT, CLASS = "object", "class"
FOLDERS = {OBJECT: "SegmentationObject", CLASS: "SegmentationClass"}
NAMES = {
    OBJECT: {value: f"object-{value}" for value in range(1, VOID)},
    CLASS: {value: str(value) for value in range(1, VOID)} | dict(enumerate(CLASSES, start=1)),
}

TREE = """\
PATH/                                  VOCdevkit, VOC2012, or any folder with
  JPEGImages/NAME.jpg
  SegmentationObject/NAME.png          palette PNG: 0 background, 255 void, else the number of the object
  SegmentationClass/NAME.png           instead, with annotations=class
  ImageSets/Segmentation/val.txt       names, one a line; not needed with split=all"""

LAYOUT = Layout("voc", TREE)


def open_voc(path: Path, *, name: str, split: str, annotations: str, min_area: int) -> ListedDataset[Pair]:
    """Open a folder in the layout of Pascal VOC; the keywords are the options of :data:`KIND`.

    Raises:
        DatasetLayoutError: A folder or the split's list is missing.
        DatasetFileError: A listed image or its mask is missing.
    """
    root = LAYOUT.root(path, "VOCdevkit/VOC2012", "VOC2012")
    folder, images = LAYOUT.folder(root, FOLDERS[annotations]), LAYOUT.folder(root, "JPEGImages")
    masks, found = stems(folder), stems(images)
    # Most images of VOC have no masks; without a list, only those with masks are taken.
    wanted = masks if split == ALL else _list(root, split)
    chosen = nonempty(LAYOUT, root, partner(wanted, found.get, "image", images), f"images in split {split!r}")
    rule = SurfaceRule(names=NAMES[annotations], void=frozenset({VOID}), min_area=min_area)
    return paired(name, match(chosen, masks, folder), rule)


def _list(root: Path, split: str) -> list[str]:
    file = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not file.is_file():
        raise LAYOUT.error(root, f"there is no list ImageSets/Segmentation/{split}.txt (split=all needs none)")
    return read_list(file)


KIND = Kind(
    name="voc",
    description="Pascal VOC and folders in its layout: every object a surface, 255 void",
    tree=TREE,
    options=(
        Option("split", "list in ImageSets/Segmentation; 'all' for every image with masks", "val"),
        Option("annotations", "a surface is an object, or a class", OBJECT, choices=(OBJECT, CLASS)),
        min_area_option(1),
    ),
    open=open_voc,
)
