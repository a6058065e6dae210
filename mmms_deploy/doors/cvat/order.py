"""In which order the points of a request are clicked: CVAT sends all of them, in two lists, at every request.

The networks answer one click after the other, so that the order matters, and how positive and negative points lie
between each other is not said. The rule:

1. Of the clicks that were answered before, the longest beginning is kept whose positive ones begin the list of positive
   points and whose negative ones begin the list of negative points.
2. The remaining points follow: the positive ones first, then the negative ones.

A request with one point more than the last one therefore goes on as the annotator clicked, and so does one from which
the newest points were removed. A point that is removed between others takes the order of those after it with it, and
points that come together (the browser collects them while it waits for an answer) count as rule 2 says.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmms_deploy.session import Click

MOST = 8
"""How many lists of clicks are kept of a frame: several annotators may be on one, each with an object."""


class Orders:
    """The clicks that were answered on a frame, in their order: a list for each of the newest objects.

    Attributes:
        held: The lists, the most recently used one last.
    """

    def __init__(self) -> None:
        self.held: list[tuple[Click, ...]] = []

    def ordered(self, positives: Sequence[Click], negatives: Sequence[Click]) -> tuple[Click, ...]:
        """Return the points of a request in their order: that of the list which begins most of them.

        Args:
            positives: Clicks on the object, oldest first.
            negatives: Clicks off it, oldest first.
        """
        base = self._base(positives, negatives)
        return in_order(positives, negatives, () if base is None else self.held[base])

    def answered(self, clicks: tuple[Click, ...]) -> None:
        """Keep clicks that were answered, in the place of those that they go on from.

        Args:
            clicks: What :meth:`ordered` returned.
        """
        base = self._base(*split(clicks))
        if base is not None:
            del self.held[base]
        if clicks:
            self.held = [*self.held, clicks][-MOST:]

    def _base(self, positives: Sequence[Click], negatives: Sequence[Click]) -> int | None:
        """Return the place of the list that has most in common with the points; the newest one of several."""
        found, most = None, 0
        for place, held in enumerate(self.held):
            common = common_beginning(positives, negatives, held)
            if common and common >= most:
                found, most = place, common
        return found


def in_order(positives: Sequence[Click], negatives: Sequence[Click], held: Sequence[Click]) -> tuple[Click, ...]:
    """Return the points of a request in their order.

    Args:
        positives: Clicks on the object, oldest first.
        negatives: Clicks off it, oldest first.
        held: Clicks that were answered before, oldest first.
    """
    kept = tuple(held[: common_beginning(positives, negatives, held)])
    first, second = split(kept)
    return (*kept, *positives[len(first) :], *negatives[len(second) :])


def common_beginning(positives: Sequence[Click], negatives: Sequence[Click], held: Sequence[Click]) -> int:
    """Return how many of the first held clicks begin the two lists.

    Args:
        positives: Clicks on the object, oldest first.
        negatives: Clicks off it, oldest first.
        held: Clicks of both kinds, oldest first.
    """
    used = {True: 0, False: 0}
    lists = {True: positives, False: negatives}
    for count, click in enumerate(held):
        place, points = used[click.positive], lists[click.positive]
        if place >= len(points) or points[place] != click:
            return count
        used[click.positive] += 1
    return len(held)


def split(clicks: Sequence[Click]) -> tuple[tuple[Click, ...], tuple[Click, ...]]:
    """Return the positive and the negative ones among clicks, each in their order."""
    return tuple(c for c in clicks if c.positive), tuple(c for c in clicks if not c.positive)
