"""Scenes of an image and one file of masks: most of the classical sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mmms_deploy.evaluation.datasets.files import partner
from mmms_deploy.evaluation.datasets.labels import Channel, read_fitted_labels
from mmms_deploy.evaluation.datasets.listed import ListedDataset
from mmms_deploy.evaluation.datasets.photo import read_photo
from mmms_deploy.evaluation.datasets.surfaces import ObjectRule, Rule
from mmms_deploy.evaluation.scene import Scene


@dataclass(frozen=True, slots=True)
class Pair:
    """Where the image and the masks of a scene are."""

    image: Path
    masks: Path


def match(images: Mapping[str, Path], masks: Mapping[str, Path], folder: Path) -> dict[str, Pair]:
    """Pair images with masks of the same name.

    Args:
        images: By name.
        masks: By name; masks without an image do not count.
        folder: Where the masks are, for messages.

    Raises:
        DatasetFileError: An image has no mask.
    """
    return {name: Pair(images[name], mask) for name, mask in partner(images, masks.get, "mask", folder).items()}


def paired(name: str, pairs: Mapping[str, Pair], rule: Rule) -> ListedDataset[Pair]:
    """Return the data set of these pairs; a rule reads the masks. In masks of one object every colour counts."""
    channel = Channel.GREATEST if isinstance(rule, ObjectRule) else None
    return ListedDataset(name, pairs, partial(_read, rule=rule, channel=channel))


def _read(name: str, pair: Pair, *, rule: Rule, channel: Channel | None) -> Scene:
    photo = read_photo(pair.image, name)
    labels = read_fitted_labels(pair.masks, photo, channel=channel)
    surfaces, void = rule.split(labels, pair.masks)
    return Scene(name, photo.pixels, surfaces, void=void)
