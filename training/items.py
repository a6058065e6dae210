"""The objects to measure a checkpoint on: held-out drawn scenes and frames, single objects, real thermal pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mmms_deploy.evaluation.datasets.labels import read_labels
from mmms_deploy.imaging.io import load_modality, load_rgb
from training.conditions import Condition, disguise, expose
from training.davis import TrainingDataError, read_frames, split
from training.samples import TELLING, SampleMaker
from training.thermal import THERMAL, thermal_image

VOID, OBJECT = 128, 255
DRAWN_SIDE = 320
DRAWN_SEED = 99
"""Seed of the drawn scenes to measure on; no training run uses it."""

MFNET_CLASSES = ("car", "person", "bike", "curve", "car stop", "guardrail", "cone", "bump")
MFNET_MIN_AREA = 0.005
"""Connected parts of a class that are smaller, as a share of the picture, are left out."""


@dataclass(frozen=True, slots=True)
class Item:
    """One object to segment.

    Attributes:
        name: For reports.
        image: (H, W, 3) uint8, RGB.
        truth: (H, W) bool.
        void: (H, W) bool, pixels that do not count.
        modalities: (H, W) numbers by name, registered to the image.
        kind: Objects of one kind are averaged together, apart from all others.
    """

    name: str
    image: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    void: NDArray[np.bool_]
    modalities: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    kind: str = ""


def held_out_items(root: Path) -> Iterator[Item]:
    """The annotated frames of the held-out DAVIS sequences."""
    for frame in read_frames(root, split(root)[1]):
        if frame.mask.any():
            truth = frame.mask.astype(bool)
            yield Item(f"{frame.sequence}/{frame.name}", frame.image, truth, np.zeros_like(truth))


def thermal_frame_items(root: Path) -> Iterator[Item]:
    """The held-out frames, one under each condition in turn, with a thermal image made from the object's mask."""
    conditions = list(Condition)
    for index, item in enumerate(held_out_items(root)):
        rng = np.random.default_rng([DRAWN_SEED, index])
        condition = conditions[index % len(conditions)]
        rgb, masks = item.image.astype(np.float32), [item.truth.astype(np.float32)]
        if condition is Condition.CAMOUFLAGE:
            rgb = disguise(rng, rgb, rgb, masks, own=1)
        image = expose(rng, rgb, condition).astype(np.uint8)
        thermal = thermal_image(rng, rgb, masks, TELLING[condition is not Condition.PLAIN])
        yield Item(item.name, image, item.truth, item.void, {THERMAL.name: thermal}, condition.value)


def drawn_items(each: int, side: int = DRAWN_SIDE) -> Iterator[Item]:
    """Drawn scenes with thermal images.

    Args:
        each: Scenes under each condition.
        side: Side of the square pictures, pixels.
    """
    for condition in Condition:
        maker = SampleMaker([], side, 1, DRAWN_SEED, thermal=1.0, condition=condition)
        for index in range(each):
            sample = maker(index)
            assert sample.thermal is not None
            truth = sample.targets[0].astype(bool)
            yield Item(
                f"{condition}/{index}",
                sample.image,
                truth,
                np.zeros_like(truth),
                {THERMAL.name: sample.thermal},
                condition.value,
            )


def object_items(root: Path) -> Iterator[Item]:
    """A folder of single objects: ``images/`` and ``masks/`` (0 background, 128 void, 255 object)."""
    masks = sorted((root / "masks").glob("*.png"))
    if not masks:
        raise TrainingDataError(f"there are no masks in {root / 'masks'}")
    for mask_path in masks:
        found = sorted((root / "images").glob(f"{mask_path.stem}.*"))
        if not found:
            raise TrainingDataError(f"{mask_path} has no image in {root / 'images'}")
        mask, image = read_labels(mask_path), load_rgb(found[0])
        yield Item(mask_path.stem, image, mask == OBJECT, mask == VOID)


def mfnet_items(root: Path) -> Iterator[Item]:
    """MFNet's street scenes: ``images/`` (RGB and thermal in one PNG, ``D`` by day and ``N`` by night), ``labels/``.

    Objects are the connected parts of a class; the labels do not separate a person from another one behind.
    """
    labels = sorted((root / "labels").glob("*.png"))
    if not labels:
        raise TrainingDataError(f"there are no labels in {root / 'labels'}")
    for label_path in labels:
        label = read_labels(label_path)
        pixels = load_modality(root / "images" / label_path.name, "thermal")
        image, thermal = np.ascontiguousarray(pixels[..., :3]), np.ascontiguousarray(pixels[..., 3])
        for number, name in enumerate(MFNET_CLASSES, start=1):
            count, parts, stats, _ = cv2.connectedComponentsWithStats((label == number).astype(np.uint8))
            for part in range(1, count):
                if stats[part, cv2.CC_STAT_AREA] < MFNET_MIN_AREA * label.size:
                    continue
                truth = parts == part
                yield Item(
                    f"{label_path.stem}/{name} {part}",
                    image,
                    truth,
                    np.zeros_like(truth),
                    {THERMAL.name: thermal},
                    "night" if label_path.stem.endswith("N") else "day",
                )
