"""Scenes of an image, a semantic label map and modalities: the multi-surface sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt

from mmms_deploy.evaluation.datasets.labels import Channel, read_fitted_labels
from mmms_deploy.evaluation.datasets.listed import ListedDataset
from mmms_deploy.evaluation.datasets.photo import Photo, read_modality, read_photo
from mmms_deploy.evaluation.datasets.surfaces import Rule
from mmms_deploy.evaluation.scene import Scene

ReadModality = Callable[[Path, str, Photo], npt.NDArray[Any]]
"""Reads a modality from its file, its name and its scene's image, as ``read_modality``."""


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
    photo = read_photo(item.image, name)
    labels = read_fitted_labels(item.labels, photo, "label map", channel)
    surfaces, void = rule.split(labels, item.labels)
    modalities = {key: modality(file, key, photo) for key, file in item.modalities.items()}
    return Scene(name, photo.pixels, surfaces, modalities, void)
