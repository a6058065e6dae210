"""MFNet: street scenes with a thermal image. Q. Ha et al., "MFNet", IROS 2017."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.evaluation.datasets.files import nonempty, partner, read_list, stems
from mmms_deploy.evaluation.datasets.kind import Kind, Layout, modalities_option, split_option
from mmms_deploy.evaluation.datasets.listed import ListedDataset
from mmms_deploy.evaluation.datasets.photo import Photo, read_numbers
from mmms_deploy.evaluation.datasets.semantic import SemanticItem, assemble, labelled
from mmms_deploy.evaluation.datasets.surfaces import BACKGROUND, class_options, class_rule
from mmms_deploy.evaluation.errors import DatasetFileError

CLASSES = ("car", "person", "bike", "curve", "car-stop", "guardrail", "color-cone", "bump")
"""The 8 classes, of values 1 to 8."""

ALL, TEST = "all", "test"
_CHANNELS = 4

TREE = """\
PATH/                     ir_seg_dataset
  images/NAME.png         4 channels: red, green, blue, thermal
  labels/NAME.png         0 unlabelled, 1 to 8 a class
  test.txt                names, one a line; train.txt, val.txt likewise"""

LAYOUT = Layout("mfnet", TREE)


def open_mfnet(
    path: Path,
    *,
    name: str,
    split: str | None,
    modalities: tuple[str, ...],
    surfaces: str,
    min_area: int,
    unlabelled: str,
) -> ListedDataset[SemanticItem]:
    """Open MFNet; the keywords are the options of :data:`KIND`.

    Raises:
        DatasetLayoutError: A folder or the split's list is missing.
        DatasetFileError: A listed image or its labels are missing.
    """
    root = LAYOUT.root(path, "ir_seg_dataset")
    images, folder = LAYOUT.folder(root, "images"), LAYOUT.folder(root, "labels")
    found = stems(images)
    if split is None:
        split = TEST if (root / f"{TEST}.txt").is_file() else ALL
    if split != ALL:
        if not (root / f"{split}.txt").is_file():
            raise LAYOUT.error(root, f"there is no list {split}.txt (split=all needs none)")
        found = partner(read_list(root / f"{split}.txt"), found.get, "file", images)
    nonempty(LAYOUT, root, found, f"images in split {split!r}")
    labels = partner(found, stems(folder).get, "label map", folder)
    items = assemble(found, labels, dict.fromkeys(modalities, found))
    names = dict(enumerate(CLASSES, start=1))
    rule = class_rule(names, frozenset({0}), surfaces=surfaces, min_area=min_area, unlabelled=unlabelled)
    return labelled(name, items, modalities, rule, read=_read_thermal)


def _read_thermal(file: Path, modality: str, photo: Photo) -> npt.NDArray[Any]:
    """Return the fourth channel of a scene's image, which was read without it."""
    array, _ = read_numbers(file, modality)
    if array.shape[2] != _CHANNELS:
        raise DatasetFileError(
            f"the image {file} of scene {photo.scene!r} has {array.shape[2]} channels",
            expected="4 channels: red, green, blue, thermal",
            fix="give the images as they were published, or leave thermal out with modalities=none",
        )
    return np.ascontiguousarray(array[:, :, _CHANNELS - 1 :])


KIND = Kind(
    name="mfnet",
    description="MFNet: 8 classes of street scenes by day and night, with a thermal image",
    tree=TREE,
    options=(
        split_option(None, help="list of names; 'all' for every image; test unless given, all where there is no list"),
        modalities_option("thermal"),
        *class_options(BACKGROUND),
    ),
    open=open_mfnet,
)
