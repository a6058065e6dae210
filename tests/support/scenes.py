"""Small scenes and predictors that the tests of the evaluation share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmms_deploy.evaluation.scene import Scene, Surface

SIZE = (40, 60)


def scene(index: int, surfaces: int = 2, modalities: Sequence[str] = ()) -> Scene:
    """A grey picture with ellipses that do not overlap, in other places for every index."""
    rng = np.random.default_rng(index)
    yy, xx = np.mgrid[: SIZE[0], : SIZE[1]]
    masks = []
    width = SIZE[1] / surfaces
    for number in range(surfaces):
        centre = (width * (number + 0.5), SIZE[0] / 2 + rng.uniform(-4, 4))
        axes = rng.uniform(0.25, 0.45) * width, rng.uniform(8, 14)
        masks.append(((xx - centre[0]) / axes[0]) ** 2 + ((yy - centre[1]) / axes[1]) ** 2 <= 1)
    image = rng.integers(60, 120, (*SIZE, 3)).astype(np.uint8)
    for mask in masks:
        image[mask] += 80
    return Scene(
        f"scene/{index:03}",
        image,
        tuple(Surface(f"object-{n}", mask) for n, mask in enumerate(masks, start=1)),
        {name: rng.random(SIZE).astype(np.float32) for name in modalities},
    )


@dataclass
class Scenes:
    """A data set of such scenes; remembers which were read."""

    count: int = 4
    name: str = "ellipses"
    surfaces: int = 2
    modalities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Scene:
        self.read.append(index)
        return scene(index, self.surfaces, self.modalities)


def disks(radius: float):
    """A function that answers with disks around the positive clicks, without those around the negative ones."""

    def answer(image: np.ndarray, clicks, previous: np.ndarray, **modalities) -> np.ndarray:
        yy, xx = np.mgrid[: image.shape[0], : image.shape[1]]
        mask = np.zeros(image.shape[:2], bool)
        for click in clicks:
            mask[(xx - click.x) ** 2 + (yy - click.y) ** 2 <= radius**2] = click.positive
        return mask

    return answer
