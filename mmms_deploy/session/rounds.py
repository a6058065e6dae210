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

from mmms_deploy.bundle import Manifest
from mmms_deploy.errors import SessionError
from mmms_deploy.imaging.resize import FloatArray
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


@dataclass(frozen=True)
class Used:
    """A run of a click stage for several objects.

    Attributes:
        size: How many objects the stage takes.
        clicks: How many of its rows have a click.
    """

    size: int
    clicks: int


def batches_for(clicks: int, sizes: Sequence[int]) -> list[Used]:
    """Return the runs of click stages for several objects that answer clicks, largest first.

    A stage runs where more than half of its rows have a click; clicks that are left run one by one.

    Args:
        clicks: How many clicks there are, each on another object.
        sizes: How many objects the stages take, rising.
    """
    runs: list[Used] = []
    for size in reversed(sizes):
        while 2 * clicks > size:
            runs.append(Used(size, min(size, clicks)))
            clicks -= runs[-1].clicks
    return runs


def checked_batch(batch: object, manifest: Manifest, device: str, *, viewed: bool) -> bool:
    """Return whether a session answers clicks on several objects together.

    Args:
        batch: What the caller asks for; None for where it pays: on a GPU, and not on a CPU, whose cores one click keeps
            busy already (benchmarks/results/batch.md).
        manifest: The bundle's manifest.
        device: ``cpu`` or ``cuda``.
        viewed: Whether the session crops or mirrors the picture, so that objects have features of their own.

    Raises:
        SessionError: It is asked for and not possible, or something else than True, False or None.
    """
    if batch is None or batch is False:
        return batch is None and device != "cpu" and bool(manifest.batches) and not viewed
    if batch is not True:
        raise SessionError(
            f"batch is {batch!r}", expected="True, False or None", fix="pass batch=True, or leave it out"
        )
    if not manifest.batches:
        raise SessionError(
            f"batch was asked of {manifest.name}, which has no click stage for several objects",
            expected="a bundle that was exported with batches=(4,) or mmms-export --batch 4",
            fix="export it again, or leave out batch",
        )
    if viewed:
        raise SessionError(
            "batch was asked of a session with zoom or flip, in which every object has features of its own",
            expected="a session that shows the network the whole image",
            fix="leave out batch, or zoom and flip",
        )
    return True
