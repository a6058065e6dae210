"""Undo and redo as a line of immutable snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from mmms_deploy.arguments import shown, whole
from mmms_deploy.errors import HistoryError
from mmms_deploy.session.trail import Trail

T = TypeVar("T")


def checked_limit(limit: object) -> int | None:
    """Return how many steps can be undone, checked.

    Args:
        limit: A whole number of 0 or more, or None for all of them.

    Raises:
        HistoryError: It is another type, or negative.
    """
    if limit is None:
        return None
    number = whole(limit)
    if number is None or number < 0:
        raise HistoryError(
            f"history_limit is {shown(limit)}",
            expected="a whole number of steps, 0 or more, or None for all of them",
            fix="pass history_limit=100, or None for no limit",
        )
    return number


@dataclass(frozen=True, eq=False)
class History(Generic[T]):
    """A current snapshot, what came before it, and what was undone.

    It never changes: every step returns a new history, so that an interrupt leaves either the old or the new one.
    Snapshots are kept as they are and must never be written to; going back and forth computes nothing.

    Attributes:
        current: The current snapshot.
        limit: How many steps can be undone; None for all of them.
        past: The snapshots before it that can be reached, oldest first; a trail where there is no limit, so that a
            step costs the same however many there are.
        future: The snapshots that were undone, the newest step first; likewise.
    """

    current: T
    limit: int | None = None
    past: Sequence[T] = ()
    future: Sequence[T] = ()

    def __post_init__(self) -> None:
        checked_limit(self.limit)
        for name in ("past", "future"):
            kept = getattr(self, name)
            if isinstance(kept, Trail) is not (self.limit is None):
                object.__setattr__(self, name, tuple(kept) if isinstance(kept, Trail) else Trail(kept))

    @property
    def newest(self) -> T:
        """The snapshot that redoing everything would lead to."""
        return self.future[0] if self.future else self.current

    @property
    def line(self) -> tuple[T, ...]:
        """All snapshots that can be reached, oldest first: what can be undone, the current one, what was undone."""
        return (*self.past, self.current, *reversed(self.future))

    def at(self, place: int) -> History[T]:
        """Return the history at a place of its :attr:`line`; itself where that is the current one.

        Args:
            place: From 0.
        """
        if place == len(self.past):
            return self
        line = self.line
        return replace(self, current=line[place], past=line[:place], future=tuple(reversed(line[place + 1 :])))

    def limited(self, limit: int | None) -> History[T]:
        """Return the history with another limit; the farthest steps beyond it are forgotten, undone ones first.

        Args:
            limit: How many steps can be undone, and redone together with those; None for all of them.
        """
        if limit is None:
            return replace(self, limit=None)
        past = self.past[max(0, len(self.past) - limit) :]
        room = limit - len(past)
        return History(self.current, limit, past, self.future[max(0, len(self.future) - room) :])

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to undo."""
        return bool(self.past)

    @property
    def can_redo(self) -> bool:
        """Whether there is an undone step to redo."""
        return bool(self.future)

    def push(self, snapshot: T) -> History[T]:
        """Return the history with one more step; what was undone is forgotten, and so is a step beyond the limit."""
        past = _with(self.past, self.current)
        if self.limit is not None and len(past) > self.limit:
            past = past[len(past) - self.limit :]
        return History(snapshot, self.limit, past)

    def undo(self) -> History[T]:
        """Return the history one step back.

        Raises:
            HistoryError: There is no step to undo.
        """
        if not self.past:
            raise HistoryError(
                "nothing to undo",
                expected="an earlier click" + ("" if self.limit is None else f" within the limit of {self.limit}"),
                fix="check can_undo first, or call reset() to start over",
            )
        return replace(self, current=self.past[-1], past=_without(self.past), future=_with(self.future, self.current))

    def redo(self) -> History[T]:
        """Return the history one undone step forward again.

        Raises:
            HistoryError: There is no step to redo.
        """
        if not self.future:
            raise HistoryError(
                "nothing to redo", expected="an undone click; a new click forgets them", fix="check can_redo first"
            )
        return replace(self, current=self.future[-1], past=_with(self.past, self.current), future=_without(self.future))


def _with(kept: Sequence[T], snapshot: T) -> Sequence[T]:
    return kept.push(snapshot) if isinstance(kept, Trail) else (*kept, snapshot)


def _without(kept: Sequence[T]) -> Sequence[T]:
    return kept.pop() if isinstance(kept, Trail) else kept[:-1]
