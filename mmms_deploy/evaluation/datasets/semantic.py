"""Scenes of an image, a semantic label map and modalities: the multi-surface sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.evaluation.datasets.files import check_size, read_image, read_modality
from mmms_deploy.evaluation.datasets.labels import Channel, read_labels
from mmms_deploy.evaluation.datasets.listed import ListedDataset
from mmms_deploy.evaluation.datasets.surfaces import Rule
from mmms_deploy.evaluation.scene import Scene

ReadModality = Callable[[Path, str, npt.NDArray[np.uint8], str], npt.NDArray[Any]]
"""Reads a modality from its file, its name, its scene's image and its scene's name, as ``read_modality``."""


@dataclass(frozen=True, slots=True)
class SemanticItem:
    """Where the files of a scene are; modalities by name."""

    image: Path
    labels: Path
    modalities: Mapping[str, Path]


def assemble(
    images: Mapping[str, Path], labels: Mapping[str, Path], modalities: Mapping[str, Mapping[str, Path]]
) -> dict[str, SemanticItem]:
    """Return the items of all scenes.

    Args:
        images: By scene name.
        labels: By scene name, for every image.
        modalities: By modality and scene name, for every image.
    """
    return {
        name: SemanticItem(image, labels[name], {modality: files[name] for modality, files in modalities.items()})
        for name, image in images.items()
    }


def labelled(
    name: str,
    items: Mapping[str, SemanticItem],
    modalities: tuple[str, ...],
    rule: Rule,
    *,
    channel: Channel | None = None,
    read: ReadModality = read_modality,
) -> ListedDataset[SemanticItem]:
    """Return the data set of these items.

    Args:
        name: What results are filed under.
        items: By scene name.
        modalities: Names of the modalities that the items have.
        rule: What the labels mean.
        channel: Which channel counts in a label map saved in colour; None when all must be equal.
        read: How a modality is read.
    """
    return ListedDataset(name, items, partial(_read, rule=rule, channel=channel, modality=read), modalities)


def _read(name: str, item: SemanticItem, *, rule: Rule, channel: Channel | None, modality: ReadModality) -> Scene:
    image = read_image(item.image)
    labels = read_labels(item.labels, channel)
    check_size("label map", item.labels, labels, image, name)
    surfaces, void = rule.split(labels, item.labels)
    modalities = {key: modality(file, key, image, name) for key, file in item.modalities.items()}
    return Scene(name, image, surfaces, modalities, void)
