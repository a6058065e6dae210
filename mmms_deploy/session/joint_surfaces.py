"""Objects that one network answers for at once: one list of clicks over all of them, and so one history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from mmms_deploy.errors import SessionError
from mmms_deploy.session.history import History
from mmms_deploy.session.interactions import Interaction
from mmms_deploy.session.result import Click
from mmms_deploy.session.rows import Decision, Rows
from mmms_deploy.session.saved import SavedInteraction, SavedSession, saved_click, written
from mmms_deploy.session.surfaces import Surface, Surfaces


@dataclass(frozen=True)
class OwnedClick:
    """A click, and the object that was the current one.

    Attributes:
        label: The label of that object.
        click: The click. A positive one is on the object; a negative one is on the background of all objects.
    """

    label: int
    click: Click


@dataclass(frozen=True, eq=False)
class JointSnapshot:
    """An annotation of all objects at one moment.

    Attributes:
        interactions: The clicks so far, oldest first.
        rows: The network's answer to them; None without a click, and while it was not wanted yet.
    """

    interactions: tuple[OwnedClick, ...] = ()
    rows: Rows | None = None

    @property
    def pending(self) -> bool:
        """Whether the answer is not computed yet: more clicks came with the newest one."""
        return self.rows is None and bool(self.interactions)


BLANK = JointSnapshot()
"""The moment before the first click."""


@dataclass(eq=False)
class JointSurfaces(Surfaces):
    """The surfaces of an image with one history; those of the surfaces themselves stay as they begin.

    Like ``labels``, ``decision`` is assigned once it was requested.

    Attributes:
        shared: The history of all of them.
        decision: Which of them has each pixel, kept once it was requested; None before.
    """

    shared: History[JointSnapshot] = field(default_factory=lambda: History(BLANK))
    decision: Decision | None = None

    @property
    def now(self) -> JointSnapshot:
        """The current snapshot."""
        return self.shared.current

    def own(self, label: int) -> tuple[Click, ...]:
        """Return the clicks that were made while an object was the current one, oldest first."""
        return tuple(one.click for one in self.now.interactions if one.label == label)

    def follow(self, shared: History[JointSnapshot], *changed: str | None) -> JointSurfaces:
        """Return them with another history. Every answer is another one then.

        Args:
            shared: The history that replaces the old one.
            *changed: Names of the surfaces whose clicks changed, in order; None is none.
        """
        places = {name: self.changes + number for number, name in enumerate(changed, start=1)}
        surfaces = {
            name: Surface(surface.label, surface.history, places.get(name, surface.changed))
            for name, surface in self.all.items()
        }
        changes = self.changes + max(1, len(changed))
        return replace(self, all=surfaces, changes=changes, labels=None, shared=shared, decision=None)


def saved_jointly(surfaces: JointSurfaces, size: tuple[int, int]) -> dict[str, Any]:
    """Return an annotation as plain dicts, lists, numbers and texts; the order of the clicks over all objects is in it.

    Args:
        surfaces: The surfaces.
        size: (H0, W0) of the image.
    """
    every = surfaces.shared.newest.interactions
    undone = every[len(surfaces.now.interactions) :]

    def made(surface: Surface) -> tuple[list[SavedInteraction], int]:
        own = [saved_click(one.click) for one in every if one.label == surface.label]
        return own, sum(one.label == surface.label for one in undone)

    return written(surfaces, size, made, order=tuple(one.label for one in every))


def ordered_clicks(
    found: SavedSession, given: Mapping[str, tuple[Interaction, ...]]
) -> tuple[tuple[OwnedClick, ...], int]:
    """Return the clicks of a saved annotation in their order, and how many of the last ones are undone.

    An annotation of a session whose objects had histories of their own has no order over them: its clicks follow object
    by object, and those that were undone come last.

    Args:
        found: The annotation.
        given: The interactions of every surface, by its name.

    Raises:
        SessionError: A mask was put in, or an answer chosen.
    """
    queues: dict[int, list[OwnedClick]] = {}
    for surface in found.surfaces:
        queues[surface.label] = []
        for number, one in enumerate(given[surface.name], start=1):
            if not isinstance(one, Click):
                raise SessionError(
                    f"interaction {number} of the surface {surface.name!r} is no click",
                    expected="an annotation of clicks: a network that answers for all objects at once takes no masks",
                    fix="restore it with the bundle that it was made with, or leave that surface out",
                )
            queues[surface.label].append(OwnedClick(surface.label, one))
    undone = sum(surface.undone for surface in found.surfaces)
    if not isinstance(found.order, msgspec.UnsetType):
        places = {label: iter(clicks) for label, clicks in queues.items()}
        return tuple(next(places[label]) for label in found.order), undone
    done = [one for s in found.surfaces for one in queues[s.label][: len(queues[s.label]) - s.undone]]
    later = [one for s in found.surfaces for one in queues[s.label][len(queues[s.label]) - s.undone :]]
    return (*done, *later), undone
