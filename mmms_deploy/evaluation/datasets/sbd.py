"""SBD, the Semantic Boundaries Dataset: objects in MATLAB files. B. Hariharan et al., ICCV 2011."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from mmms_deploy.evaluation.datasets.files import file_named, nonempty, partner, read_list
from mmms_deploy.evaluation.datasets.kind import Kind, Layout, Option, min_area_option
from mmms_deploy.evaluation.datasets.listed import Labels, ListedDataset
from mmms_deploy.evaluation.datasets.mat_elements import check_elements
from mmms_deploy.evaluation.datasets.pairs import Pair
from mmms_deploy.evaluation.datasets.photo import fitted, read_photo
from mmms_deploy.evaluation.datasets.surfaces import SurfaceRule
from mmms_deploy.evaluation.datasets.voc import CLASSES, VOID
from mmms_deploy.evaluation.errors import DatasetFileError, DatasetLibraryError
from mmms_deploy.evaluation.scene import Scene
from mmms_deploy.files import MIB, read_bytes, unreadable
from mmms_deploy.installed import pip_install

TREE = """\
PATH/                     benchmark_RELEASE, its folder dataset, or any folder with
  img/NAME.jpg
  inst/NAME.mat           GTinst: Segmentation (number of the object, 0 background), Categories
  val.txt                 names, one a line; train.txt likewise"""

LAYOUT = Layout("sbd", TREE)
_LIMIT = 16 * MIB  # those of SBD have a few kilobytes
_EXPECTED = "a MATLAB file (version 5) with the struct GTinst and its fields Segmentation and Categories"


def open_sbd(path: Path, *, name: str, split: str, min_area: int) -> ListedDataset[Pair]:
    """Open SBD; the keywords are the options of :data:`KIND`.

    Raises:
        DatasetLayoutError: A folder or the split's list is missing.
        DatasetFileError: A listed image or its objects are missing.
        DatasetLibraryError: SciPy is not installed.
    """
    _scipy_io()
    root = LAYOUT.root(path, "benchmark_RELEASE/dataset", "dataset")
    images, objects = LAYOUT.folder(root, "img"), LAYOUT.folder(root, "inst")
    file = root / f"{split}.txt"
    if not file.is_file():
        raise LAYOUT.error(root, f"there is no list {split}.txt")
    names = read_list(file)
    found = nonempty(LAYOUT, root, partner(names, partial(_file, images, ".jpg"), "image", images), "names in the list")
    masks = partner(names, partial(_file, objects, ".mat"), "mask", objects)
    items = {key: Pair(image, masks[key]) for key, image in found.items()}
    return ListedDataset(name, items, partial(_read, rule=SurfaceRule(void=frozenset({VOID}), min_area=min_area)))


def _file(folder: Path, suffix: str, name: str) -> Path | None:
    return file_named(folder, f"{name}{suffix}")


def _read(name: str, pair: Pair, *, rule: SurfaceRule) -> Scene:
    photo = read_photo(pair.image, name)
    labels, names = read_instances(pair.masks)
    surfaces, void = replace(rule, names=names).split(fitted(labels, "mask", pair.masks, photo), pair.masks)
    return Scene(name, photo.pixels, surfaces, void=void)


def read_instances(file: Path) -> tuple[Labels, dict[int, str]]:
    """Read the objects of an image.

    Args:
        file: MATLAB file with ``GTinst``.

    Returns:
        (H, W) integers, the number of the object, 0 for none; and the name of every number, ``person-3`` for object 3.

    Raises:
        DatasetFileError: The file is not such a MATLAB file.
        DatasetLibraryError: SciPy is not installed.
    """
    io = _scipy_io()
    try:
        content = read_bytes(file, _LIMIT)
        check_elements(content)
        instances = io.loadmat(BytesIO(content), variable_names=["GTinst"])["GTinst"][0, 0]
        labels = np.asarray(instances["Segmentation"])
        categories = [int(category) for category in np.ravel(instances["Categories"])]
    # SciPy raises nearly anything for files that are broken, of another version, or hold something else.
    except Exception as error:
        raise DatasetFileError(
            f"the objects {file} cannot be read: {unreadable(file, error).reason}",
            expected=_EXPECTED,
            fix="check whether it is complete",
        ) from error
    if labels.ndim != 2 or labels.dtype.kind not in "ui" or not all(1 <= c <= len(CLASSES) for c in categories):
        raise DatasetFileError(
            f"{file} has a Segmentation of shape {labels.shape} and dtype {labels.dtype}, and Categories {categories}",
            expected=f"{_EXPECTED}; (H, W) integers, and categories from 1 to {len(CLASSES)}",
            fix="check whether it is complete",
        )
    return labels, {number: f"{CLASSES[c - 1]}-{number}" for number, c in enumerate(categories, start=1)}


def _scipy_io() -> Any:
    """SciPy's reader of MATLAB files."""
    try:
        import scipy.io
    except ImportError as error:
        raise DatasetLibraryError(
            "SBD's MATLAB files need SciPy, which is not installed",
            expected="the package scipy",
            fix=pip_install("eval"),
        ) from error
    return scipy.io


KIND = Kind(
    name="sbd",
    description="SBD: every object of the validation images a surface (MATLAB files)",
    tree=TREE,
    options=(Option("split", "list of names", "val"), min_area_option(1)),
    open=open_sbd,
)
