"""DeLiVER: street scenes with depth, lidar and events, simulated in bad weather and with failing sensors.

J. Zhang et al., "Delivering Arbitrary-Modal Semantic Segmentation", CVPR 2023, and its public code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.evaluation.datasets.files import nonempty, partner, stems
from mmms_deploy.evaluation.datasets.kind import Kind, Layout, Option, modalities_option, split_option
from mmms_deploy.evaluation.datasets.labels import Channel
from mmms_deploy.evaluation.datasets.listed import ListedDataset
from mmms_deploy.evaluation.datasets.photo import Photo, fitted, read_numbers
from mmms_deploy.evaluation.datasets.semantic import SemanticItem, assemble, labelled
from mmms_deploy.evaluation.datasets.surfaces import VOID, class_options, class_rule

CLASSES = (
    "building", "fence", "other", "pedestrian", "pole", "road-line", "road", "sidewalk", "vegetation", "car", "wall",
    "traffic-sign", "sky", "ground", "bridge", "rail-track", "guard-rail", "traffic-light", "static", "dynamic",
    "water", "terrain", "two-wheeler", "bus", "truck",
)  # fmt: skip
"""The 25 classes, of values 1 to 25."""

NO_CLASS = frozenset({0, 255})

TREE = """\
PATH/
  img/WEATHER/SPLIT/MAP/NNNNNN_rgb_front.png             WEATHER: cloud, fog, night, rain, sun
  hha/WEATHER/SPLIT/MAP/NNNNNN_depth_front.png           SPLIT: train, val, test
  depth/WEATHER/SPLIT/MAP/NNNNNN_depth_front.png         instead of hha, with depth=depth
  lidar/WEATHER/SPLIT/MAP/NNNNNN_lidar_front.png
  event/WEATHER/SPLIT/MAP/NNNNNN_event_front.png
  semantic/WEATHER/SPLIT/MAP/NNNNNN_semantic_front.png   red channel: 1 to 25 a class, 0 and 255 none"""

LAYOUT = Layout("deliver", TREE)


def open_deliver(
    path: Path,
    *,
    name: str,
    split: str,
    modalities: tuple[str, ...],
    depth: str,
    case: str | None,
    surfaces: str,
    min_area: int,
    unlabelled: str,
) -> ListedDataset[SemanticItem]:
    """Open DeLiVER; the keywords are the options of :data:`KIND`.

    Raises:
        DatasetLayoutError: A folder is missing, or has no image of the split and case.
        DatasetFileError: An image has no labels or lacks a modality.
    """
    root = LAYOUT.root(path, "DELIVER")
    images = _of_split(LAYOUT.folder(root, "img"), "rgb", split)
    images = {key: file for key, file in images.items() if case is None or case in key}
    what = f"images of split {split!r}" + (f" and case {case!r}" if case else "")
    nonempty(LAYOUT, root, images, what)

    def files(folder: str, word: str) -> dict[str, Path]:
        found = _of_split(LAYOUT.folder(root, folder), word, split)
        return partner(images, found.get, f"{word} file", root / folder)

    labels = files("semantic", "semantic")
    extra = {modality: files(depth if modality == "depth" else modality, modality) for modality in modalities}
    items = assemble(images, labels, extra)
    names = dict(enumerate(CLASSES, start=1))
    rule = class_rule(names, NO_CLASS, surfaces=surfaces, min_area=min_area, unlabelled=unlabelled)
    # The simulator writes the class into the red channel of a colour image.
    return labelled(name, items, modalities, rule, channel=Channel.FIRST, read=_read_modality)


def _of_split(folder: Path, word: str, split: str) -> Mapping[str, Path]:
    """Return a split's files by scene: WEATHER/MAP/NNNNNN_front."""
    found = {}
    for key, file in stems(folder).items():
        weather, *places, own = key.split("/")
        if places[:1] == [split]:
            # Replaced in the file's own name only: there are folders MAP_..._eventlowres.
            found["/".join([weather, *places[1:], own.replace(f"_{word}", "")])] = file
    return dict(sorted(found.items()))


def _read_modality(file: Path, modality: str, photo: Photo) -> npt.NDArray[Any]:
    """Read a modality without the simulator's alpha channel, and events at the image's size.

    Events of the case of low resolution are stored small; DeLiVER's own code enlarges them to the nearest pixel.
    """
    array, oriented = read_numbers(file, modality)
    if array.shape[2] == 4:
        array = array[:, :, :3]
    if modality == "event" and array.shape[:2] != photo.size:
        rows, columns = (np.arange(n) * small // n for n, small in zip(photo.size, array.shape[:2], strict=True))
        array = array[rows[:, None], columns]
    return np.ascontiguousarray(fitted(array, modality, file, photo, oriented=oriented))


KIND = Kind(
    name="deliver",
    description="DeLiVER: 25 classes of street scenes, with depth, lidar and event images",
    tree=TREE,
    options=(
        split_option("val", "train", "val", "test"),
        modalities_option("depth", "lidar", "event"),
        Option("depth", "folder that the modality depth is read from", "hha", choices=("hha", "depth")),
        Option("case", "weather or sensor failure: scenes whose folders' names hold this text, e.g. fog, motionblur"),
        *class_options(VOID),
    ),
    open=open_deliver,
)
