"""Interactions with several objects of one image, each with its own history, answered in rounds.

In every round each object takes its next interaction. Where the bundle has click stages for several objects
(``mmms-export --batch``) and the session uses them, the clicks of a round run together: as many as a stage takes in one
run, and the rest of its rows without a click. The order among objects changes no answer, because no object's answer
depends on another object's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmms_deploy.imaging.resize import FloatArray
from mmms_deploy.session.batch_plan import batches_for
from mmms_deploy.session.history import History
from mmms_deploy.session.inputs import ImageState
from mmms_deploy.session.interactions import Interaction, Snapshot
from mmms_deploy.session.result import Click

if TYPE_CHECKING:
    from mmms_deploy.session.core import SessionCore


@dataclass(frozen=True, eq=False)
class Row:
    """One object's part.

    Attributes:
        history: What it goes on from.
        interactions: What it takes, oldest first.
        wanted: How many of these the answer is wanted after; None for all of them.
    """

    history: History[Snapshot]
    interactions: Sequence[Interaction]
    wanted: int | None = None


@dataclass(frozen=True, eq=False)
class Answered:
    """One object afterwards.

    Attributes:
        history: With all interactions.
        numbers: The newest answer (h, w) on the host; None where it was not fetched.
    """

    history: History[Snapshot]
    numbers: FloatArray | None = None


def in_rounds(core: SessionCore, image: ImageState, rows: Sequence[Row]) -> list[Answered]:
    """Return the histories of several objects with further interactions.

    Args:
        core: The session.
        image: The image.
        rows: What every object goes on from, and takes.

    Raises:
        EngineError: The click stage failed.
        AnswerError: An answer has values that are none.
    """
    answered = [Answered(row.history) for row in rows]
    for number in range(max((len(row.interactions) for row in rows), default=0)):
        taking = [place for place, row in enumerate(rows) if number < len(row.interactions)]
        together = [place for place in taking if isinstance(rows[place].interactions[number], Click)]
        if not core._batch or not core._pipeline.batches:
            together = []
        for used in batches_for(len(together), tuple(core._pipeline.batches)):
            places, together = together[: used.clicks], together[used.clicks :]
            given = [(answered[place].history.current, rows[place].interactions[number]) for place in places]
            for place, done in zip(places, core._after_clicks(image, given, used.size), strict=True):
                answered[place] = Answered(answered[place].history.push(done[0]), done[1])
                taking.remove(place)
        for place in taking:
            row, history = rows[place], answered[place].history
            last = len(row.interactions) if row.wanted is None else row.wanted
            wanted = number + 1 == last
            snapshot, numbers = core._after(image, history.current, row.interactions[number], wanted=wanted)
            answered[place] = Answered(history.push(snapshot), numbers)
    return answered
