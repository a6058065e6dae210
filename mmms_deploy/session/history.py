"""Undo and redo as a line of immutable snapshots."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from mmms_deploy.errors import HistoryError

T = TypeVar("T")


class History(Generic[T]):
    """A current snapshot, what came before it, and what was undone.

    Snapshots are kept as they are and must never be written to; going back and forth computes nothing.

    Args:
        first: The snapshot before any step.
        limit: How many steps can be undone; None for all of them.
    """

    def __init__(self, first: T, limit: int | None = None) -> None:
        if limit is not None and limit < 0:
            raise HistoryError(f"history limit {limit}", expected="0 or more steps", fix="pass None for no limit")
        self._past: deque[T] = deque(maxlen=limit)
        self._current = first
        self._future: list[T] = []

    @property
    def current(self) -> T:
        """The current snapshot."""
        return self._current

    @property
    def newest(self) -> T:
        """The snapshot that redoing everything would lead to."""
        return self._future[0] if self._future else self._current

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to undo."""
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        """Whether there is an undone step to redo."""
        return bool(self._future)

    def push(self, snapshot: T) -> None:
        """Take a step; what was undone is forgotten, and so is the oldest step beyond the limit."""
        self._past.append(self._current)
        self._current = snapshot
        self._future.clear()

    def undo(self) -> T:
        """Go one step back and return the snapshot there.

        Raises:
            HistoryError: There is no step to undo.
        """
        if not self._past:
            limit = self._past.maxlen
            raise HistoryError(
                "nothing to undo",
                expected="an earlier click" + ("" if limit is None else f" within the limit of {limit}"),
                fix="check can_undo first, or call reset() to start over",
            )
        self._future.append(self._current)
        self._current = self._past.pop()
        return self._current

    def redo(self) -> T:
        """Go one undone step forward again and return the snapshot there.

        Raises:
            HistoryError: There is no step to redo.
        """
        if not self._future:
            raise HistoryError(
                "nothing to redo", expected="an undone click; a new click forgets them", fix="check can_redo first"
            )
        self._past.append(self._current)
        self._current = self._future.pop()
        return self._current
