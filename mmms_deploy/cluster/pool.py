"""What a pool of workers is, and the one that is this process alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

T = TypeVar("T")
R = TypeVar("R")

Opened: TypeAlias = "AbstractContextManager[Callable[[Any], Any]]"
"""Holds what a worker needs while it is entered, and gives the function that does a task."""

Open: TypeAlias = Callable[[], Opened]
"""Opens a worker's work, in the worker. It can be pickled."""

MOST_TRIES = 3
"""A task whose worker was lost so often is given up."""


@dataclass(frozen=True)
class Lost:
    """The result of a task whose worker was lost every time: killed, crashed, or out of memory.

    Attributes:
        tries: How often it was begun.
        reason: What is known of the last loss.
    """

    tries: int
    reason: str


class Pool(Protocol):
    """Workers that do tasks."""

    def run(self, open_work: Open, tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Do all tasks; yield the number of each, from 0, and its result, as soon as it is done, in any order.

        Args:
            open_work: Opens the work of one worker.
            tasks: What is passed to the work's function; they can be pickled, and so can its results.

        Yields:
            The result of a task, or :class:`Lost`.

        Raises:
            MMMSDeployError: A worker cannot open its work, or the work's function raised it.
            ClusterError: The workers cannot be started, or no worker stays alive.
        """
        ...


class Here:
    """One worker: this process."""

    def run(self, open_work: Open, tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Do all tasks, one after the other, in their order."""
        if not tasks:
            return
        with open_work() as work:
            for number, task in enumerate(tasks):
                yield number, work(task)


here = Here()
"""The pool that is this process."""
