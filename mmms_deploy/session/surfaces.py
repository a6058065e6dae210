"""Several objects in one image, each with its own clicks and history, and the label map of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mmms_deploy.errors import SurfaceError
from mmms_deploy.imaging.resize import BoolArray
from mmms_deploy.session.history import History
from mmms_deploy.session.interactions import Snapshot
from mmms_deploy.session.result import ClickResult

FIRST = "1"
"""Name of the surface that an image begins with."""

Labels: TypeAlias = npt.NDArray[np.int32]


@dataclass(eq=False)
class Surface:
    """One object.

    Attributes:
        label: Its number in the label map; no label is used twice on an image.
        history: Its interactions, and the click stage's state after each.
        result: The answer to its clicks so far; None before it is requested.
        changed: When it changed last, counted in changes of any surface; 0 for never.
    """

    label: int
    history: History[Snapshot]
    result: ClickResult | None = None
    changed: int = 0


class Surfaces:
    """The surfaces of an image; one of them is the current one.

    Args:
        blank: The snapshot that every surface begins with.
        limit: How many interactions with a surface can be undone; None for all of them.
    """

    def __init__(self, blank: Snapshot, limit: int | None) -> None:
        self._blank = blank
        self._limit = limit
        self._all: dict[str, Surface] = {}
        self._labels = self._changes = 0
        self.select(FIRST)

    @property
    def current(self) -> Surface:
        """The current surface."""
        return self._all[self.name]

    @property
    def all(self) -> Mapping[str, Surface]:
        """Every surface by name, oldest first."""
        return MappingProxyType(self._all)

    def select(self, name: str) -> None:
        """Make a surface the current one; a new one when there is none of that name."""
        if name not in self._all:
            self._labels += 1
            self._all[name] = Surface(self._labels, History(self._blank, self._limit))
        self.name = name

    def remove(self, name: str) -> None:
        """Forget a surface. If it was the current one, the surface that changed last takes its place.

        Raises:
            SurfaceError: There is none of that name.
        """
        if name not in self._all:
            raise SurfaceError(
                f"surface {name!r}", expected=f"one of {', '.join(map(repr, self._all))}", fix="check its name"
            )
        del self._all[name]
        if name == self.name:
            self.select(max(self._all, key=lambda other: self._all[other].changed, default=FIRST))

    def reset(self) -> None:
        """Forget the interactions with the current surface."""
        self.current.history = History(self._blank, self._limit)
        self.changed(None)

    def changed(self, result: ClickResult | None) -> None:
        """Record that the current surface changed, and its new answer."""
        self._changes += 1
        self.current.result = result
        self.current.changed = self._changes

    def rebuilt(self, blank: Snapshot, history: Callable[[History[Snapshot]], History[Snapshot]]) -> Surfaces:
        """Return the same surfaces with other histories.

        Args:
            blank: The snapshot that new surfaces begin with.
            history: Returns the new history that replaces an old one.
        """
        other = copy(self)
        other._blank = blank
        other._all = {
            name: Surface(surface.label, history(surface.history), changed=surface.changed)
            for name, surface in self._all.items()
        }
        return other


def checked_name(name: object) -> str:
    """Return the name of a surface, checked.

    Raises:
        SurfaceError: It is no text, or empty.
    """
    if not isinstance(name, str) or not name:
        raise SurfaceError(f"surface {name!r}", expected="a name, such as 'car'", fix="pass a text that is not empty")
    return name


def label_map(masks: list[tuple[int, BoolArray]], size: tuple[int, int]) -> Labels:
    """Return the label of each pixel's surface; where masks overlap, the later one has the pixel.

    Args:
        masks: Label and mask (H, W) of every surface, in the order in which they changed.
        size: (H, W).

    Returns:
        (H, W) int32, read-only; 0 is background.
    """
    labels = np.zeros(size, dtype=np.int32)
    for label, mask in masks:
        np.copyto(labels, label, where=mask)
    labels.setflags(write=False)
    return labels
