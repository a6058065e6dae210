"""What the calls of a session do with the objects of its image: the seam between the two kinds of networks.

A network of the usual kind answers for one object at a time, and every object has a history of its own
(:mod:`mmms_deploy.session.separate`). A network that answers for all objects at once has one list of clicks, and so one
history (:mod:`mmms_deploy.session.joint`). The calls themselves know neither.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mmms_deploy.imaging.resize import FloatArray
from mmms_deploy.session.answers import NetworkAnswer
from mmms_deploy.session.history import History
from mmms_deploy.session.inputs import ImageState
from mmms_deploy.session.interactions import BoxInput, Interaction, MaskInput, Snapshot
from mmms_deploy.session.result import Click, ClickResult
from mmms_deploy.session.saved import SavedSession
from mmms_deploy.session.surfaces import Labels, Surface, Surfaces

C = TypeVar("C")
"""A session as its steps see it; they import it, and it does not import them."""


@dataclass(frozen=True, eq=False)
class Step:
    """What a call leads to; the session assigns it at its end.

    Attributes:
        surfaces: The objects afterwards.
        result: The answer to the clicks on the current one.
    """

    surfaces: Surfaces
    result: ClickResult


@dataclass(frozen=True, eq=False)
class Clicked:
    """What clicks on several objects lead to.

    Attributes:
        surfaces: The objects afterwards.
        results: The answer for each of the objects that were clicked, by name.
    """

    surfaces: Surfaces
    results: dict[str, ClickResult]


class Steps(ABC, Generic[C]):
    """What calls do with the objects of an image.

    Nothing of an image is kept here, and no session: every method takes the session, reads its state, and returns new
    values. On any error nothing has changed.
    """

    @abstractmethod
    def first(self, blank: Snapshot, limit: int | None) -> Surfaces:
        """Return the objects that an image begins with.

        Args:
            blank: The snapshot of an object without interactions.
            limit: How many interactions can be undone; None for all of them.
        """

    @abstractmethod
    def expect(self, core: C, size: tuple[int, int]) -> None:
        """Let the device get ready for masks of an image, where it makes them.

        Args:
            core: The session.
            size: (H0, W0) of the image.
        """

    @abstractmethod
    def take(self, core: C, interactions: Sequence[Interaction], start: float) -> Step:
        """Take further interactions with the current object; each is a step of its own.

        Args:
            core: The session.
            interactions: The clicks, choices or masks, checked; one or more.
            start: When the call began, by ``perf_counter``.
        """

    @abstractmethod
    def click_objects(self, core: C, clicks: Mapping[str, Click], start: float) -> Clicked:
        """Answer a click on each of several objects; the current one stays the current one.

        Args:
            core: The session.
            clicks: The click on every object by its name, checked; one or more. An object of a new name begins.
            start: When the call began.
        """

    @abstractmethod
    def follow(self, core: C, wanted: Sequence[Interaction], start: float) -> Step:
        """Make these the interactions with the current object."""

    @abstractmethod
    def undo(self, core: C, start: float) -> Step:
        """Go one step back; no stage runs, but for an answer that was never wanted before."""

    @abstractmethod
    def redo(self, core: C, start: float) -> Step:
        """Go one undone step forward again; no stage runs, but for an answer that was never wanted before."""

    @abstractmethod
    def reset(self, core: C) -> Surfaces:
        """Forget the interactions with the current object."""

    @abstractmethod
    def select(self, core: C, name: str, start: float) -> Step:
        """Turn to another object; no stage runs."""

    @abstractmethod
    def remove(self, core: C, name: str) -> Surfaces:
        """Forget an object."""

    @abstractmethod
    def rebuilt(self, core: C, image: ImageState, blank: Snapshot) -> Surfaces:
        """Repeat all interactions on other features, undone ones included."""

    @abstractmethod
    def load(self, core: C, labels: Labels, names: dict[str, int]) -> Surfaces:
        """Return the objects of a label map.

        Args:
            core: The session.
            labels: (H0, W0), read-only.
            names: The label of every name.
        """

    @abstractmethod
    def save(self, core: C) -> dict[str, Any]:
        """Return the annotation as plain data."""

    @abstractmethod
    def restore(self, core: C, found: SavedSession, given: dict[str, tuple[Interaction, ...]], start: float) -> Step:
        """Repeat a saved annotation.

        Args:
            core: The session.
            found: The annotation, checked.
            given: The interactions of every object by name, checked.
            start: When the call began.
        """

    @abstractmethod
    def predicted(
        self, core: C, prompts: tuple[Click | BoxInput, ...], given: tuple[FloatArray, MaskInput] | None
    ) -> Sequence[Interaction]:
        """Return the interactions that a call of ``predict`` stands for.

        Args:
            core: The session.
            prompts: Its box, where there is one, and its points.
            given: Its mask input as logits, and as the mask that it puts in; None for none.
        """

    @abstractmethod
    def whole_answer(self, core: C) -> NetworkAnswer:
        """Return the answer for the current object in the whole image, at the answer's own resolution."""

    @abstractmethod
    def answer(self, core: C, surface: Surface, start: float) -> ClickResult:
        """Return the answer for an object of the session's state."""

    @abstractmethod
    def labels(self, core: C) -> Labels:
        """Return the label map of the session's state, (H0, W0), read-only."""

    @abstractmethod
    def history(self, surfaces: Surfaces) -> History[Any]:
        """Return what undo and redo go through."""

    @abstractmethod
    def clicks(self, surfaces: Surfaces) -> tuple[Click, ...]:
        """Return the clicks on the current object, oldest first."""

    @abstractmethod
    def interactions(self, surfaces: Surfaces) -> tuple[Interaction, ...]:
        """Return the interactions with the current object, oldest first; they are what ``follow`` takes."""

    @abstractmethod
    def all_clicks(self, surfaces: Surfaces) -> tuple[tuple[str, Click], ...]:
        """Return the clicks on all objects, each with its object's name."""
