"""Several objects in one image, each with its own clicks and history, and the label map of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt

from mmms_deploy.arguments import shown
from mmms_deploy.errors import SurfaceError
from mmms_deploy.session.history import History
from mmms_deploy.session.interactions import Snapshot
from mmms_deploy.session.result import ClickResult

FIRST = "1"
"""Name of the surface that an image begins with."""

Labels: TypeAlias = npt.NDArray[np.int32]


@dataclass(eq=False)
class Surface:
    """One object at one moment. Only ``result`` is ever assigned; a step makes a new surface.

    Attributes:
        label: Its number in the label map; no label is used twice on an image.
        history: Its interactions, and the click stage's state after each.
        changed: When it changed last, counted in changes of any surface; 0 for never.
        result: The answer to its clicks so far, kept once it was requested; None before.
    """

    label: int
    history: History[Snapshot]
    changed: int = 0
    result: ClickResult | None = None


@dataclass(eq=False)
class Surfaces:
    """The surfaces of an image at one moment; one of them is the current one.

    Only ``labels`` is ever assigned. Every step returns new surfaces, so that an interrupt leaves either the old or the
    new ones.

    Attributes:
        blank: The snapshot that every surface begins with.
        limit: How many interactions with a surface can be undone; None for all of them.
        all: Every surface by name, oldest first.
        name: Name of the current surface.
        given: How many labels were given on this image.
        changes: How many changes there were.
        labels: The label map, kept once it was requested; None before.
    """

    blank: Snapshot
    limit: int | None
    all: Mapping[str, Surface]
    name: str
    given: int
    changes: int = 0
    labels: Labels | None = None

    @classmethod
    def first(cls, blank: Snapshot, limit: int | None) -> Surfaces:
        """Return the surfaces that an image begins with: one without interactions."""
        return cls(blank, limit, {FIRST: Surface(1, History(blank, limit))}, FIRST, 1)

    @classmethod
    def loaded(
        cls, blank: Snapshot, limit: int | None, histories: Mapping[str, tuple[int, History[Snapshot]]], labels: Labels
    ) -> Surfaces:
        """Return the surfaces that a label map holds; the first one is the current one.

        Args:
            blank: The snapshot that every surface begins with.
            limit: How many interactions can be undone; None for all of them.
            histories: The label of every surface, and its history; without any, there is one blank surface.
            labels: The label map that their masks make.
        """
        if not histories:
            return cls.first(blank, limit)
        surfaces = {
            name: Surface(label, history, number if history.can_undo else 0)
            for number, (name, (label, history)) in enumerate(histories.items(), start=1)
        }
        greatest = max(label for label, _ in histories.values())
        return cls(blank, limit, surfaces, next(iter(surfaces)), greatest, len(surfaces), labels)

    @property
    def current(self) -> Surface:
        """The current surface."""
        return self.all[self.name]

    @property
    def names(self) -> dict[str, int]:
        """The label of every surface by name, oldest first."""
        return {name: surface.label for name, surface in self.all.items()}

    def select(self, name: str) -> Self:
        """Return them with another surface as the current one; a new one when there is none of that name."""
        if name in self.all:
            return replace(self, name=name)
        surface = Surface(self.given + 1, History(self.blank, self.limit))
        return replace(self, name=name, all={**self.all, name: surface}, given=self.given + 1)

    def rename(self, name: str, to: str) -> Self:
        """Return them with another name of a surface; everything else of it stays, its place among them, too.

        Raises:
            SurfaceError: There is none of that name, or another one has the new name.
        """
        self._check_known(name)
        if to != name and to in self.all:
            raise SurfaceError(
                f"surface {name!r} was renamed to {to!r}, the name of another one",
                expected=f"a name that is none of {', '.join(map(repr, self.all))}",
                fix="choose another name, or remove the other surface first",
            )
        renamed = {to if other == name else other: surface for other, surface in self.all.items()}
        return replace(self, all=renamed, name=to if self.name == name else self.name)

    def remove(self, name: str) -> Self:
        """Return them without a surface. If it was the current one, the one that changed last takes its place.

        Raises:
            SurfaceError: There is none of that name.
        """
        self._check_known(name)
        left = {other: surface for other, surface in self.all.items() if other != name}
        rest = replace(self, all=left, labels=None)
        if name != self.name:
            return rest
        return rest.select(max(rest.all, key=lambda other: rest.all[other].changed, default=FIRST))

    def reset(self) -> Surfaces:
        """Return them with the current surface as it was before its interactions; this is a change of it."""
        return self.change(History(self.blank, self.limit), None)

    def change(self, history: History[Snapshot], result: ClickResult | None) -> Surfaces:
        """Return them with another history of the current surface, and its answer.

        Args:
            history: The history that replaces the old one.
            result: The answer to it; None when it is not known yet.
        """
        changed = Surface(self.current.label, history, self.changes + 1, result)
        return replace(self, all={**self.all, self.name: changed}, changes=self.changes + 1, labels=None)

    def extend(self, name: str, history: History[Snapshot], result: ClickResult) -> Surfaces:
        """Return them with another history of any surface, whose place in the order of changes stays as it is.

        Args:
            name: Its name.
            history: The history that replaces the old one.
            result: The answer to it.
        """
        old = self.all[name]
        surface = Surface(old.label, history, old.changed, result)
        return replace(self, all={**self.all, name: surface}, labels=None)

    def rebuild(self, blank: Snapshot, history: Callable[[History[Snapshot]], History[Snapshot]]) -> Surfaces:
        """Return the same surfaces with other histories.

        Args:
            blank: The snapshot that new surfaces begin with.
            history: Returns the new history that replaces an old one.
        """
        rebuilt = {
            name: Surface(surface.label, history(surface.history), surface.changed)
            for name, surface in self.all.items()
        }
        return replace(self, blank=blank, all=rebuilt, labels=None)

    def _check_known(self, name: str) -> None:
        if name not in self.all:
            raise SurfaceError(
                f"surface {name!r}", expected=f"one of {', '.join(map(repr, self.all))}", fix="check its name"
            )


def checked_name(name: object) -> str:
    """Return the name of a surface, checked.

    Raises:
        SurfaceError: It is no text, or empty.
    """
    if not isinstance(name, str) or not name:
        raise SurfaceError(
            f"surface {shown(name)}", expected="a name, such as 'car'", fix="pass a text that is not empty"
        )
    # A subclass of str, such as NumPy's, is a plain text from here on: JSON knows no other.
    return str.__str__(name)


def label_map(results: list[tuple[int, ClickResult]], size: tuple[int, int]) -> Labels:
    """Return the label of each pixel's surface; where masks overlap, the later one has the pixel.

    Args:
        results: Label and answer of every surface, in the order in which they changed.
        size: (H, W).

    Returns:
        (H, W) int32, read-only; 0 is background.
    """
    labels = np.zeros(size, dtype=np.int32)
    for label, result in results:
        # Results keep their boxes: of many objects, only what each of them covers is looked at again.
        left, top, right, bottom = result.xyxy
        np.copyto(labels[top:bottom, left:right], label, where=result.mask[top:bottom, left:right])
    labels.setflags(write=False)
    return labels
