"""Reads journals: what was done in one session after the other, each event checked.

A last line without its end is one that a killed process was writing, or a running one writes: it is passed over, and
everything before it counts. Any other line that is no event, or is missing, makes the file no journal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mmms_deploy.errors import FileReadError, JournalError
from mmms_deploy.files import PathLike, open_regular, unreadable
from mmms_deploy.session.events import AnyEvent, ClosedEvent, OpenedEvent
from mmms_deploy.session.journal_file import FIRST, MOST_BYTES, MOST_LINE
from mmms_deploy.session.plain_json import UNFIT, decoded

_EXPECTED = "a journal that a session wrote: a JSON text a line"
_MOST_EVENTS = 5_000_000


@dataclass(frozen=True, eq=False)
class RecordedSession:
    """What was done in one session.

    Attributes:
        opened: The bundle, the engine and everything else that the session began with.
        events: What was done, oldest first; without the first and the closing line.
        closed: Whether it was closed; otherwise its process was ended, or it goes on.
        lost: How many events could not be written.
        line: The number of its first line, from 1.
    """

    opened: OpenedEvent
    events: tuple[AnyEvent, ...]
    closed: bool
    lost: int
    line: int


def read_journal(path: PathLike) -> tuple[RecordedSession, ...]:
    """Read a journal; nothing in it is executed.

    Args:
        path: The file.

    Returns:
        What was done in every session that wrote to it, oldest first.

    Raises:
        JournalError: It cannot be read, is something else, or lines of it are missing or were changed.
    """
    found: list[RecordedSession] = []
    opened: tuple[int, OpenedEvent] | None = None
    events: list[AnyEvent] = []

    def end() -> None:
        if opened is None:
            return
        closing = events[-1] if events and isinstance(events[-1], ClosedEvent) else None
        kept = tuple(events if closing is None else events[:-1])
        lost = sum(getattr(event, "lost", 0) for event in events)
        found.append(RecordedSession(opened[1], kept, closing is not None, lost, opened[0]))

    for number, event in _events(path):
        if isinstance(event, OpenedEvent):
            end()
            opened, events = (number, event), []
            expected = 0
        else:
            if opened is None or (events and isinstance(events[-1], ClosedEvent)):
                raise _broken(path, number, "an event stands outside of a session")
            events.append(event)
            expected = len(events)
        if event.n != expected:
            raise _broken(path, number, f"it has the number {event.n}, and {expected} comes next")
    end()
    if not found:
        raise JournalError(f"{path} holds no whole line", expected=_EXPECTED, fix="check where the file comes from")
    return tuple(found)


def is_journal(head: bytes) -> bool:
    """Whether a journal begins so."""
    return head.startswith(FIRST)


def _events(path: PathLike) -> Iterator[tuple[int, AnyEvent]]:
    try:
        with open_regular(path) as stream:
            position = 0
            for number in range(1, _MOST_EVENTS + 1):
                line = stream.readline(MOST_LINE + 1)
                if not line.endswith(b"\n"):
                    if len(line) > MOST_LINE:
                        raise _broken(path, number, f"it has more than {MOST_LINE} bytes")
                    if number == 1 and not FIRST.startswith(line[: len(FIRST)]):
                        raise _broken(path, number, "it is none that a journal begins with")
                    return
                position += len(line)
                if position > MOST_BYTES:
                    raise _broken(path, number, f"the file has more than {MOST_BYTES} bytes")
                try:
                    event: AnyEvent = decoded(line, AnyEvent)
                except UNFIT as error:
                    raise _broken(path, number, str(error)[:200]) from error
                yield number, event
            raise _broken(path, _MOST_EVENTS, "there are too many lines")
    except (FileReadError, OSError) as error:
        unfit = unreadable(path, error)
        raise JournalError(unfit.given, expected=_EXPECTED, fix=unfit.fix or "check the file") from error


def _broken(path: PathLike, line: int, reason: str) -> JournalError:
    return JournalError(
        f"line {line} of {path} is no line of a journal: {reason}",
        expected=_EXPECTED,
        fix="check where the file comes from",
    )
