"""The images and clicks that are measured: made up, the same in every run, at the size of a screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle import Manifest
from mmms_deploy.imaging.modality import as_stored

Point = tuple[float, float, bool]
"""x, y in image pixels, and whether it lies on the object."""


@dataclass(frozen=True, eq=False)
class Picture:
    """An image with its modalities and clicks.

    Attributes:
        rgb: (H0, W0, 3) uint8.
        modalities: (H0, W0, C) numbers as they would be stored, by name.
        clicks: The clicks, the first one positive.
    """

    rgb: npt.NDArray[np.uint8]
    modalities: dict[str, npt.NDArray[Any]]
    clicks: tuple[Point, ...]


def make_pictures(manifest: Manifest, count: int, clicks: int, size: tuple[int, int]) -> list[Picture]:
    """Return pictures for a network: coarse noise, and modalities in the range that its normalisation expects.

    Args:
        manifest: The bundle's manifest.
        count: How many.
        clicks: Clicks on each.
        size: (H0, W0) in pixels.
    """
    return [_picture(manifest, seed, clicks, size) for seed in range(count)]


def _picture(manifest: Manifest, seed: int, clicks: int, size: tuple[int, int]) -> Picture:
    rng = np.random.default_rng(seed)
    height, width = size
    modalities = {}
    for spec in manifest.modalities:
        standard = _coarse(rng, size, spec.channels) * 4.0 - 2.0
        modalities[spec.name] = as_stored(standard * np.asarray(spec.std) + np.asarray(spec.mean), spec)
    places = rng.random((clicks, 2)) * [width - 1, height - 1]
    return Picture(
        rgb=(_coarse(rng, size, 3) * 255.0).astype(np.uint8),
        modalities=modalities,
        clicks=tuple((float(x), float(y), index % 3 != 1) for index, (x, y) in enumerate(places.tolist())),
    )


def _coarse(rng: np.random.Generator, size: tuple[int, int], channels: int) -> npt.NDArray[Any]:
    """(H0, W0, channels) in [0, 1): squares of 16 pixels."""
    height, width = size
    blocks = rng.random((-(-height // 16), -(-width // 16), channels))
    return blocks.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]
