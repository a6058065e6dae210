"""A data set that lists its scenes when it is opened, and reads a scene when it is indexed."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from mmms_deploy.evaluation.scene import Scene

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class ListedDataset(Generic[T]):
    """A data set with only its list of scenes in memory. Deterministic: scenes are in the order of their names.

    Attributes:
        name: The name that its results are filed under.
        items: By scene name, in order: what ``read`` needs to find the scene's files.
        read: Reads one scene, from its name and its item.
        modalities: Names of the modalities that its scenes have.
    """

    name: str
    items: Mapping[str, T]
    read: Callable[[str, T], Scene]
    modalities: tuple[str, ...] = ()

    @cached_property
    def scene_names(self) -> tuple[str, ...]:
        """Names of all scenes, in order, without reading any."""
        return tuple(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Scene:
        """Read one scene from its files.

        Args:
            index: From 0; negative counts from the end.

        Raises:
            IndexError: There is no such scene.
            DatasetFileError: A file is unreadable, or does not fit the scene's image.
        """
        name = self.scene_names[operator.index(index)]
        return self.read(name, self.items[name])

    def __iter__(self) -> Iterator[Scene]:
        """Read the scenes one after the other; none is kept."""
        for index in range(len(self)):
            yield self[index]


Labels = npt.NDArray[np.integer[Any]]
"""(H, W) integers: which object or class a pixel belongs to."""
