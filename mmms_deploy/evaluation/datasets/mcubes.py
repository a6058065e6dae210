"""MCubeS: materials of street scenes, with polarisation and near infrared.

Y. Liang et al., "Multimodal Material Segmentation", CVPR 2022, and its public code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.evaluation.datasets.files import NUMBERS, nonempty, partner, read_list, stems
from mmms_deploy.evaluation.datasets.kind import Kind, Layout, Option, OptionType, modalities_option, split_option
from mmms_deploy.evaluation.datasets.labels import read_fitted_labels
from mmms_deploy.evaluation.datasets.listed import ListedDataset
from mmms_deploy.evaluation.datasets.photo import read_modality, read_photo
from mmms_deploy.evaluation.datasets.surfaces import VOID, SurfaceRule, class_options, class_rule
from mmms_deploy.evaluation.errors import DatasetFileError
from mmms_deploy.evaluation.scene import Scene

CLASSES = (
    "asphalt", "concrete", "metal", "road-marking", "fabric", "glass", "plaster", "plastic", "rubber", "sand", "gravel",
    "ceramic", "cobblestone", "brick", "grass", "wood", "leaf", "water", "human", "sky",
)  # fmt: skip
"""The 20 materials, of values 0 to 19."""

NO_CLASS = frozenset({255})
LEFT = 192
"""Columns that the set's own code cuts off at the left of everything."""
UNSEEN = -1
"""Label of pixels that the near-infrared camera did not see."""
SIN_COS, SIN_COS_SIN = "sin-cos", "sin-cos-sin"
FOLDERS = {
    "aolp": ("polL_aolp_sin", "polL_aolp_cos"),
    "dolp": ("polL_dolp",),
    "nir": ("NIR_warped",),
}

TREE = """\
PATH/                             multimodal_dataset
  polL_color/NAME.png
  polL_aolp_sin/NAME.npy          sine and
  polL_aolp_cos/NAME.npy          cosine of the angle of linear polarisation
  polL_dolp/NAME.npy              degree of linear polarisation
  NIR_warped/NAME.png             near infrared
  NIR_warped_mask/NAME.png        not 0 where NIR_warped shows nothing; for the modality nir
  GT/NAME.png                     0 to 19 a material, 255 none
  list_folder/test.txt            names, one a line; train.txt, val.txt, all.txt likewise"""

LAYOUT = Layout("mcubes", TREE)


@dataclass(frozen=True, slots=True)
class Item:
    """Where the files of a scene are; modalities by name, each of one file or more."""

    image: Path
    labels: Path
    modalities: Mapping[str, tuple[Path, ...]]
    unseen: Path | None


@dataclass(frozen=True, slots=True)
class Reading:
    """How scenes are read: what the labels mean, columns to cut off at the left, and the channels of aolp."""

    rule: SurfaceRule
    crop: int
    aolp: str


def open_mcubes(
    path: Path,
    *,
    name: str,
    split: str,
    modalities: tuple[str, ...],
    aolp: str,
    crop: int,
    surfaces: str,
    min_area: int,
    unlabelled: str,
) -> ListedDataset[Item]:
    """Open MCubeS; the keywords are the options of :data:`KIND`.

    Raises:
        DatasetLayoutError: A folder or the split's list is missing.
        DatasetFileError: A listed image, its labels or a modality is missing.
    """
    root = LAYOUT.root(path, "multimodal_dataset")
    listing = root / "list_folder" / f"{split}.txt"
    if not listing.is_file():
        raise LAYOUT.error(root, f"there is no list list_folder/{split}.txt")
    names = nonempty(LAYOUT, root, dict.fromkeys(read_list(listing)), f"names in list_folder/{split}.txt")

    def files(folder: str) -> dict[str, Path]:
        found = stems(LAYOUT.folder(root, folder), NUMBERS)
        return partner(names, found.get, "file", root / folder)

    images, labels = files("polL_color"), files("GT")
    extra = {modality: [files(folder) for folder in FOLDERS[modality]] for modality in modalities}
    unseen: Mapping[str, Path] = files("NIR_warped_mask") if "nir" in modalities else {}
    items = {
        key: Item(
            images[key],
            labels[key],
            {modality: tuple(part[key] for part in parts) for modality, parts in extra.items()},
            unseen.get(key),
        )
        for key in names
    }
    # 0 is asphalt here, so there is no background among the labels.
    names_of = dict(enumerate(CLASSES))
    rule = class_rule(names_of, NO_CLASS, surfaces=surfaces, min_area=min_area, unlabelled=unlabelled)
    how = Reading(replace(rule, void=rule.void | {UNSEEN}), crop, aolp)
    return ListedDataset(name, items, partial(_read, how=how), modalities)


def _read(name: str, item: Item, *, how: Reading) -> Scene:
    photo = read_photo(item.image, name)
    labels = read_fitted_labels(item.labels, photo, "label map").astype(np.int32)
    if item.unseen is not None:
        labels[read_fitted_labels(item.unseen, photo) > 0] = UNSEEN
    modalities = {}
    for modality, files in item.modalities.items():
        parts = [read_modality(file, modality, photo) for file in files]
        if modality == "aolp" and how.aolp == SIN_COS_SIN:
            parts.append(parts[0])
        modalities[modality] = _cut(np.concatenate(parts, axis=2), how.crop)
    if how.crop >= photo.size[1]:
        raise DatasetFileError(
            f"the image {item.image} has {photo.size[1]} columns",
            expected=f"more than the {how.crop} that are cut off at the left",
            fix="give the images as they were published, or crop=0",
        )
    surfaces, void = how.rule.split(_cut(labels, how.crop), item.labels)
    return Scene(name, _cut(photo.pixels, how.crop), surfaces, modalities, void)


def _cut(array: npt.NDArray[Any], columns: int) -> npt.NDArray[Any]:
    return np.ascontiguousarray(array[:, columns:])


KIND = Kind(
    name="mcubes",
    description="MCubeS: 20 materials in street scenes, with polarisation (aolp, dolp) and near infrared",
    tree=TREE,
    options=(
        split_option("test", "train", "val", "test", "all"),
        modalities_option("aolp", "dolp", "nir"),
        Option("aolp", "channels of aolp", SIN_COS, choices=(SIN_COS, SIN_COS_SIN)),
        Option("crop", "columns cut off at the left of everything", LEFT, OptionType.INTEGER),
        *class_options(VOID),
    ),
    open=open_mcubes,
)
