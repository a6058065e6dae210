"""The data of a run: which scenes are trained on, which are held out, and what identifies them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmms_deploy.evaluation.datasets.listed import ListedDataset
from mmms_deploy.evaluation.scene import Scene
from mmms_deploy.training.errors import TrainingDataError


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """Some scenes of a data set, in order; a data set itself.

    Attributes:
        dataset: The data set.
        indices: Which of its scenes.
        label: What tells it from others that are read otherwise: its kind and options, without its path.
    """

    dataset: ListedDataset[Any]
    indices: tuple[int, ...]
    label: str

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.dataset.name

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities that its scenes have."""
        return self.dataset.modalities

    @property
    def scene_names(self) -> tuple[str, ...]:
        """Names of its scenes."""
        return tuple(self.dataset.scene_names[index] for index in self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Scene:
        return self.dataset[self.indices[index]]

    def identity(self, index: int) -> str:
        """Return what identifies a scene without reading it: how it is read, its name, its files' sizes and times."""
        name = self.dataset.scene_names[self.indices[index]]
        facts: list[object] = [self.label, name]
        for path in _paths(self.dataset.items[name]):
            try:
                found = path.stat()
            except OSError as error:
                raise TrainingDataError(
                    f"{path} of scene {name!r} cannot be read: {error.strerror or error}",
                    expected="the files that were there when the folder was listed",
                    fix="start again once they are back",
                ) from error
            facts += [path.name, found.st_size, found.st_mtime_ns]
        return hashlib.sha256(json.dumps(facts).encode("utf-8", "backslashreplace")).hexdigest()


def _paths(item: object) -> Iterator[Path]:
    """Yield the paths that an item of a data set holds, at any depth."""
    if isinstance(item, Path):
        yield item
    elif isinstance(item, Mapping):
        for value in item.values():
            yield from _paths(value)
    elif isinstance(item, list | tuple):
        for value in item:
            yield from _paths(value)
    elif dataclasses.is_dataclass(item) and not isinstance(item, type):
        for one in dataclasses.fields(item):
            yield from _paths(getattr(item, one.name))


def split(dataset: ListedDataset[Any], label: str, held_out: float) -> tuple[Part, Part]:
    """Split a data set into scenes to train on and held-out ones.

    Scenes of one folder, such as the frames of a video, stay together; the choice depends on the names alone.

    Args:
        dataset: The data set.
        label: Its kind and options.
        held_out: Share of the scenes to hold out, 0..1.

    Returns:
        The scenes to train on, and the held-out ones.
    """
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(dataset.scene_names):
        groups.setdefault(name.rpartition("/")[0] or name, []).append(index)
    if len(groups) == 1:  # one folder of everything: its pictures are what there is to split
        groups = {name: [index] for index, name in enumerate(dataset.scene_names)}
    order = sorted(groups, key=lambda name: hashlib.sha256(name.encode("utf-8", "backslashreplace")).digest())
    chosen: list[int] = []
    wanted = held_out * len(dataset)
    for name in order[:-1]:  # something is always left to train on
        if len(chosen) + len(groups[name]) / 2 > wanted:
            break
        chosen += groups[name]
    kept = sorted(set(range(len(dataset))) - set(chosen))
    return Part(dataset, tuple(kept), label), Part(dataset, tuple(sorted(chosen)), label)


def whole(dataset: ListedDataset[Any], label: str) -> Part:
    """Return all scenes of a data set."""
    return Part(dataset, tuple(range(len(dataset))), label)


def fingerprint(parts: Sequence[Part]) -> str:
    """Return a hash of all scenes of some parts."""
    ids = [part.identity(index) for part in parts for index in range(len(part))]
    return hashlib.sha256("".join(ids).encode()).hexdigest()
