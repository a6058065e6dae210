"""The batch of every training step, a function of the recipe's seed and the step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.davis import Frame, read_frames, split, with_regions
from training.recipe import Recipe
from training.samples import Sample, SampleMaker


class Batch(NamedTuple):
    """Pictures and their targets.

    Attributes:
        images: (B, 3, S, S) uint8, RGB.
        targets: (B, T, S, S) uint8, 1 on the target.
        regions: (B, T) bool, true where a target is an unsupervised region.
        thermal: (B, 1, S, S) uint8; zeros where there is none.
        present: (B,) bool, whether a picture has a thermal image.
    """

    images: Tensor
    targets: Tensor
    regions: Tensor
    thermal: Tensor
    present: Tensor

    def share(self, number: int, of: int) -> Batch:
        """Every ``of``-th picture, from picture ``number`` on."""
        return Batch(*(part[number::of] for part in self))


def collate(samples: list[Sample]) -> Batch:
    """Put samples of one size together."""
    none = np.zeros(samples[0].image.shape[:2], np.uint8)
    return Batch(
        torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(np.stack([sample.targets for sample in samples])),
        torch.from_numpy(np.stack([sample.regions for sample in samples])),
        torch.from_numpy(np.stack([none if s.thermal is None else s.thermal for s in samples]))[:, None],
        torch.tensor([sample.thermal is not None for sample in samples]),
    )


class Batches(Dataset[Batch]):
    """The batch of every step. Frames are read on first use, in the process that uses them.

    Args:
        recipe: The run's settings.
        data: DAVIS folder; ``None`` draws everything.
        cache: File that keeps the region maps.
    """

    def __init__(self, recipe: Recipe, data: Path | None, cache: Path) -> None:
        self.recipe, self.data, self.cache = recipe, data, cache
        self._makers: dict[int, SampleMaker] = {}

    def _maker(self, size: int) -> SampleMaker:
        if size not in self._makers:
            frames = self._makers[next(iter(self._makers))].frames if self._makers else self._frames()
            recipe = self.recipe
            self._makers[size] = SampleMaker(
                frames, size, recipe.targets, recipe.seed, recipe.plain_until, thermal=recipe.thermal
            )
        return self._makers[size]

    def _frames(self) -> list[Frame]:
        if self.data is None:
            return []
        cv2.setNumThreads(1)
        return with_regions(read_frames(self.data, split(self.data)[0]), self.cache)

    def __len__(self) -> int:
        return self.recipe.steps

    def __getitem__(self, step: int) -> Batch:
        phase = self.recipe.phases[self.recipe.phase_at(step)]
        maker, first = self._maker(phase.size), self.recipe.first_image(step)
        return collate([maker(first + i) for i in range(phase.images)])


def stream(batches: Batches, first: int, workers: int) -> Iterator[Batch]:
    """The batches from step ``first`` on.

    Args:
        batches: All batches.
        first: Where to begin.
        workers: Processes that make pictures; 0 makes them in this one.
    """
    loader: DataLoader[Batch] = DataLoader(
        batches,
        batch_size=None,
        sampler=range(first, len(batches)),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
    yield from loader
