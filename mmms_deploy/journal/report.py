"""What came of repeating a journal or a file of work: a row for every event or object, and what all of them say."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from mmms_deploy.errors import JournalDiffersError, MMMSDeployError, WorkDiffersError
from mmms_deploy.session.facts import BundleFacts, EngineFacts


class Outcome(StrEnum):
    """What came of an event, or of an object of a file of work.

    ``same``: the mask is the same in every pixel. ``differs``: it is another one. ``done``: it was repeated, and there
    is no mask to compare. ``refused``: it was refused then, and is not repeated. ``failed``: it is refused now.
    ``missing``: its image is not there. ``skipped``: it follows something that failed or is missing.
    """

    SAME = "same"
    DIFFERS = "differs"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    MISSING = "missing"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Against:
    """The same event on the second engine.

    Attributes:
        iou: IoU of the masks of both engines, from 0 to 1; None where there is none to compare.
        pixels: How many pixels are in one of them alone; of a network that answers for all objects at once, how many
            have another label. None where there is none to compare.
        recorded: Whether the second engine's mask is the recorded one in every pixel; None where nothing was recorded.
        ms: How long it took there, in milliseconds.
    """

    iou: float | None
    pixels: int | None
    recorded: bool | None
    ms: float


@dataclass(frozen=True)
class Compared:
    """An event of a journal, or an object of a file of work, and what came of it.

    Attributes:
        session: Which session of the journal, from 1.
        n: Number of the event or the object, from 0.
        event: The event's kind; ``object`` for one of a file of work.
        surface: The surface.
        outcome: What came of it.
        area: Pixels of the recorded mask; None where there is none.
        area_now: Pixels of the mask now.
        iou: IoU of the two, from 0 to 1; None where it is not known: the journal has the hash of the mask alone.
        pixels: How many pixels are in one of them alone; None likewise.
        ms: How long it took then, in milliseconds; None where it was not recorded.
        ms_now: How long it took now.
        error: What was said where it failed, or its image is missing.
        against: The same on the second engine; None without one.
    """

    session: int
    n: int
    event: str
    surface: str
    outcome: Outcome
    area: int | None = None
    area_now: int | None = None
    iou: float | None = None
    pixels: int | None = None
    ms: float | None = None
    ms_now: float | None = None
    error: str = ""
    against: Against | None = None


@dataclass(frozen=True)
class Replayed:
    """What came of all events of a journal, or of all objects of a file of work.

    Attributes:
        path: The file.
        kind: ``journal`` or ``work``.
        recorded: The bundle and the engine then, of every session.
        bundle: The bundle now.
        engine: The engine now.
        against: The second engine; None without one.
        lost: How many events were lost when the journal was written.
        open: How many sessions of the journal were never closed.
        rows: The events or objects in their order.
    """

    path: str
    kind: str
    recorded: tuple[tuple[BundleFacts, EngineFacts], ...]
    bundle: BundleFacts
    engine: EngineFacts
    against: EngineFacts | None
    lost: int
    open: int
    rows: tuple[Compared, ...]

    @property
    def compared(self) -> tuple[Compared, ...]:
        """The rows whose masks were compared."""
        return self._of(Outcome.SAME, Outcome.DIFFERS)

    @property
    def differing(self) -> tuple[Compared, ...]:
        """The rows whose masks are other ones than the recorded ones."""
        return self._of(Outcome.DIFFERS)

    @property
    def apart(self) -> tuple[Compared, ...]:
        """The rows whose masks differ between the two engines."""
        return tuple(row for row in self.rows if row.against is not None and row.against.pixels)

    @property
    def not_repeated(self) -> tuple[Compared, ...]:
        """The rows that could not be repeated."""
        return self._of(Outcome.FAILED, Outcome.MISSING, Outcome.SKIPPED)

    @property
    def same_bundle(self) -> bool:
        """Whether the bundle is the recorded one."""
        return all(bundle.digest == self.bundle.digest for bundle, _ in self.recorded)

    @property
    def worst(self) -> float | None:
        """The smallest IoU that is known, with the recorded masks or between the engines; None where none is."""
        known = [row.iou for row in self.compared if row.iou is not None]
        known += [row.against.iou for row in self.rows if row.against is not None and row.against.iou is not None]
        return min(known, default=None)

    def failures(self, limit: float | None = None) -> tuple[Compared, ...]:
        """Return the rows that do not pass.

        Args:
            limit: The least IoU of a mask that passes; None for masks that are the same in every pixel. Where the IoU
                with a recorded mask is not known, a mask that differs does not pass.
        """
        failed = []
        for row in self.rows:
            known = [] if row.outcome is not Outcome.DIFFERS else [row.iou]
            if row.against is not None and row.against.pixels:
                known.append(row.against.iou)
            bad = any(iou is None or limit is None or iou < limit for iou in known)
            if bad or row.outcome in (Outcome.FAILED, Outcome.MISSING, Outcome.SKIPPED):
                failed.append(row)
        return tuple(failed)

    def raise_for_failures(self, limit: float | None = None) -> None:
        """Raise where a row does not pass; see :meth:`failures`.

        Raises:
            JournalDiffersError: Of a journal.
            WorkDiffersError: Of a file of work.
        """
        failed = self.failures(limit)
        if not failed:
            return
        kind: type[MMMSDeployError] = WorkDiffersError if self.kind == "work" else JournalDiffersError
        first = failed[0]
        unit = "object" if self.kind == "work" else "event"
        where = f"{unit} {first.n}" + (f" of session {first.session}" if len(self.recorded) > 1 else "")
        said = f": {first.error}" if first.error else ""
        least = "the recorded masks in every pixel" if limit is None else f"an IoU of at least {limit:g}"
        fix, command_fix = self._advice(failed)
        raise kind(
            f"{len(failed)} of {len(self.rows)} {unit}s of {self.path} did not pass; the first is {where} on"
            f" {first.surface!r}: {first.outcome}{said}",
            expected=least,
            fix=fix,
            command_fix=command_fix,
        )

    def _advice(self, failed: tuple[Compared, ...]) -> tuple[str, str]:
        """Return what to do about rows that did not pass, in Python's words and in those of the command line."""
        name = self.recorded[0][1].name
        if any(row.outcome is Outcome.MISSING for row in failed):
            return "pass images=Images([folder]) with the folder where it lies", "name its folder with --images"
        if any(row.outcome is Outcome.DIFFERS and row.iou is None for row in failed):
            what = "see the rows; how far masks differ is shown beside the engine that wrote the journal:"
            return f"{what} pass against={name!r}", f"{what.replace('rows', 'table')} pass --against {name}"
        return "see the rows", "see the table"

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, JSON-able; docs/journal.md lists the fields."""
        return {
            "path": self.path,
            "kind": self.kind,
            "recorded": [{"bundle": _plain(bundle), "engine": _plain(engine)} for bundle, engine in self.recorded],
            "bundle": _plain(self.bundle),
            "engine": _plain(self.engine),
            "against": None if self.against is None else _plain(self.against),
            "same_bundle": self.same_bundle,
            "lost": self.lost,
            "open": self.open,
            "counts": {str(outcome): len(self._of(outcome)) for outcome in Outcome},
            "worst_iou": self.worst,
            "rows": [{**asdict(row), "outcome": str(row.outcome)} for row in self.rows],
        }

    def _of(self, *outcomes: Outcome) -> tuple[Compared, ...]:
        return tuple(row for row in self.rows if row.outcome in outcomes)


def _plain(facts: BundleFacts | EngineFacts) -> dict[str, Any]:
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(facts)
    return plain
