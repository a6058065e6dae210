"""Repeats a journal or a file of work on one engine, or on two side by side, and compares every mask.

The replay is a closed loop, as the work was: a click sees the mask that this engine gave to the clicks before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from mmms_deploy.annotations import mask_of_rle
from mmms_deploy.bundle import Bundle
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.select import open_request
from mmms_deploy.errors import FileReadError, ImageMissingError, JournalError, MMMSDeployError
from mmms_deploy.files import PathLike, open_regular, unreadable
from mmms_deploy.journal.images import Images
from mmms_deploy.journal.reading import RecordedSession, read_journal
from mmms_deploy.journal.repeating import Repeater
from mmms_deploy.journal.report import Against, Compared, Outcome, Replayed
from mmms_deploy.progress import OnProgress, Progress
from mmms_deploy.session import ClickResult, Session
from mmms_deploy.session.events import AnyEvent, ImageEvent, OpenedEvent, RefusedEvent, StateEvent
from mmms_deploy.session.facts import bundle_facts, engine_facts
from mmms_deploy.session.mask_mark import Agreement, MaskMark, agreement, labels_hash, mask_hash
from mmms_deploy.session.work import Work, is_work, read_work

_HEAD = 4096


class _Done(NamedTuple):
    """An event that was repeated: its mask and label map, and how long it took."""

    result: ClickResult | None
    labels: np.ndarray[Any, np.dtype[np.int32]] | None
    milliseconds: float


def replay_journal(
    path: PathLike,
    bundle: Bundle | PathLike | None = None,
    images: Images | None = None,
    *,
    request: EngineRequest | None = None,
    against: str | None = None,
    on_progress: OnProgress | None = None,
) -> Replayed:
    """Repeat a journal, and compare every mask with what the journal says of it.

    Args:
        path: The journal.
        bundle: A bundle, or what names one; None takes the one that the journal names.
        images: Where the images lie, or their features.
        request: What is asked of the engine; None takes the defaults.
        against: Name of a second engine, on which everything is repeated beside the first one.
        on_progress: Receives every step.

    Raises:
        JournalError: It is no journal.
        BundleError, EngineError: The bundle or an engine cannot be used.
    """
    recorded = read_journal(path)
    opened = _opened(bundle, recorded[0].opened.bundle.source)
    total = sum(len(one.events) for one in recorded)
    with _engines(opened, request, against, on_progress) as engines:
        rows: list[Compared] = []
        for number, one in enumerate(recorded, start=1):
            first = one.opened
            with _sessions(opened, engines, first, first.history_limit) as sessions:
                for row in _repeated(number, one, sessions, images or Images()):
                    rows.append(row)
                    if on_progress is not None:
                        on_progress(Progress("replaying", len(rows), total))
        infos = [engine_facts(engine.info) for engine in engines]
    return Replayed(
        path=str(path),
        kind="journal",
        recorded=tuple((one.opened.bundle, one.opened.engine) for one in recorded),
        bundle=bundle_facts(opened),
        engine=infos[0],
        against=infos[1] if len(infos) > 1 else None,
        lost=sum(one.lost for one in recorded),
        open=sum(not one.closed for one in recorded),
        rows=tuple(rows),
    )


def replay_work(
    path: PathLike,
    bundle: Bundle | PathLike | None = None,
    images: Images | None = None,
    *,
    request: EngineRequest | None = None,
    against: str | None = None,
    on_progress: OnProgress | None = None,
) -> Replayed:
    """Answer the clicks of a file of work again, and compare every mask with the one in the file.

    Args:
        path: The file.
        bundle: A bundle, or what names one; None takes the one that the file names.
        images: Where the image lies, or its features.
        request: What is asked of the engine; None takes the defaults.
        against: Name of a second engine.
        on_progress: Receives every step.

    Raises:
        WorkError: It is no file of work.
        BundleError, EngineError: The bundle or an engine cannot be used.
    """
    work = read_work(path)
    opened = _opened(bundle, work.bundle.source)
    with (
        _engines(opened, request, against, on_progress) as engines,
        _sessions(opened, engines, work, None) as sessions,
    ):
        rows = _restored(work, sessions, images or Images())
        infos = [engine_facts(engine.info) for engine in engines]
    return Replayed(
        path=str(path),
        kind="work",
        recorded=((work.bundle, work.engine),),
        bundle=bundle_facts(opened),
        engine=infos[0],
        against=infos[1] if len(infos) > 1 else None,
        lost=0,
        open=0,
        rows=tuple(rows),
    )


def is_work_file(path: PathLike) -> bool:
    """Whether a file is one of work, as its first bytes say; any other is taken as a journal.

    Args:
        path: The file.

    Raises:
        JournalError: It cannot be read.
    """
    try:
        with open_regular(path) as stream:
            return is_work(stream.read(_HEAD))
    except (FileReadError, OSError) as error:
        unfit = unreadable(path, error)
        raise JournalError(
            unfit.given, expected="a journal or a file of work", fix=unfit.fix or "check the file"
        ) from error


# --- opening --------------------------------------------------------------------------------------------------------


def _opened(bundle: Bundle | PathLike | None, source: str) -> Bundle:
    return bundle if isinstance(bundle, Bundle) else Bundle(source if bundle is None else bundle)


@contextmanager
def _engines(
    bundle: Bundle, request: EngineRequest | None, against: str | None, on_progress: OnProgress | None
) -> Iterator[list[Any]]:
    first = EngineRequest() if request is None else request
    requests = [first, *([] if against is None else [replace(first, engine=against)])]
    with ExitStack() as open_engines:
        engines = []
        for one in requests:
            engine = open_request(bundle, one, on_progress)
            open_engines.callback(engine.close)
            engines.append(engine)
        yield engines


@contextmanager
def _sessions(
    bundle: Bundle, engines: list[Any], opened: OpenedEvent | Work, limit: int | None
) -> Iterator[list[Session]]:
    with ExitStack() as open_sessions:
        yield [
            open_sessions.enter_context(
                Session(
                    bundle,
                    engine=engine,
                    history_limit=limit,
                    keep_image=False,
                    zoom=False if opened.zoom is None else opened.zoom,
                    flip=opened.flip,
                    cleaning=opened.cleaning,
                )
            )
            for engine in engines
        ]


# --- journals -------------------------------------------------------------------------------------------------------


def _repeated(number: int, recorded: RecordedSession, sessions: list[Session], images: Images) -> Iterator[Compared]:
    """Yield a row for every event of a session."""
    broken = ""
    repeaters = [Repeater(session, images) for session in sessions]
    for event in recorded.events:
        kind = type(event).__struct_config__.tag
        row = Compared(number, event.n, str(kind), event.surface, Outcome.DONE, ms=event.ms)
        if isinstance(event, RefusedEvent):
            yield replace(row, outcome=Outcome.REFUSED, event=event.call, error=event.error)
            continue
        whole = isinstance(event, ImageEvent) or (isinstance(event, StateEvent) and event.image is not None)
        if broken and not whole:
            yield replace(row, outcome=Outcome.SKIPPED, error=broken)
            continue
        try:
            done = [_do(repeater, event) for repeater in repeaters]
            broken = ""
        except ImageMissingError as error:
            broken = f"the image of event {event.n} is missing"
            yield replace(row, outcome=Outcome.MISSING, error=error.given)
            continue
        except MMMSDeployError as error:
            broken = f"event {event.n} failed"
            yield replace(row, outcome=Outcome.FAILED, error=f"{type(error).__name__}: {error.given}")
            continue
        yield _compared(row, event, done)


def _do(repeater: Repeater, event: AnyEvent) -> _Done:
    session, start = repeater.session, perf_counter()
    repeater(event)
    took = 1e3 * (perf_counter() - start)
    if event.mask is None:
        return _Done(None, None, took)
    return _Done(session.result, session.labels if event.labels is not None else None, took)


def _compared(row: Compared, event: AnyEvent, done: list[_Done]) -> Compared:
    now = done[0]
    row = replace(row, ms_now=now.milliseconds)
    others = done[1:]
    if event.mask is None or now.result is None:
        beside = Against(None, None, None, others[0].milliseconds) if others else None
        return replace(row, against=beside)
    same, found = _agrees(event, now)
    row = replace(
        row,
        outcome=Outcome.SAME if same else Outcome.DIFFERS,
        area=event.mask.area,
        area_now=now.result.area,
        iou=None if found is None else found.iou,
        pixels=None if found is None else found.pixels,
    )
    if not others or others[0].result is None:
        return row
    other_same, _ = _agrees(event, others[0])
    between = agreement(now.result.mask, others[0].result.mask)
    pixels = between.pixels
    if now.labels is not None and others[0].labels is not None:
        pixels = int(np.count_nonzero(now.labels != others[0].labels))
    if row.iou is None and other_same:  # then the second engine's mask is the recorded one
        row = replace(row, iou=between.iou, pixels=between.pixels)
    return replace(row, against=Against(between.iou, pixels, other_same, others[0].milliseconds))


def _agrees(event: AnyEvent, done: _Done) -> tuple[bool, Agreement | None]:
    """Return whether a mask and the label map are the recorded ones, and how far the mask is, where that is known."""
    mark, result = event.mask, done.result
    assert mark is not None
    assert result is not None
    same_labels = done.labels is None or labels_hash(done.labels) == event.labels
    if mask_hash(result.mask) == mark.sha256:
        return same_labels, Agreement(1.0, 0)
    return False, _from_whole(mark, result)


def _from_whole(mark: MaskMark, result: ClickResult) -> Agreement | None:
    if mark.counts is None or mark.size != result.mask.shape:
        return None
    return agreement(mask_of_rle({"size": list(mark.size), "counts": mark.counts}), result.mask)


# --- files of work --------------------------------------------------------------------------------------------------


def _restored(work: Work, sessions: list[Session], images: Images) -> list[Compared]:
    rows = [
        Compared(1, number, "object", one.name, Outcome.SKIPPED, area=one.area)
        for number, one in enumerate(work.objects)
    ]
    took = []
    for session in sessions:
        start = perf_counter()
        try:
            images.give(session, work.image)
            session.restore(work.annotation)
        except MMMSDeployError as error:
            outcome = Outcome.MISSING if isinstance(error, ImageMissingError) else Outcome.FAILED
            return [replace(row, outcome=outcome, error=error.given) for row in rows]
        took.append(1e3 * (perf_counter() - start))
    compared = []
    # One object at a time: masks of large images are large.
    answers = zip(*(session._objects() for session in sessions), strict=True)
    for row, stored, named in zip(rows, work.objects, answers, strict=True):
        now, kept = named[0].result, stored.mask
        found = agreement(kept, now.mask)
        beside = None
        if len(named) > 1:
            other = named[1].result.mask
            between = agreement(now.mask, other)
            beside = Against(between.iou, between.pixels, np.array_equal(other, kept), took[1])
        compared.append(
            replace(
                row,
                outcome=Outcome.DIFFERS if found.pixels else Outcome.SAME,
                area_now=now.area,
                iou=found.iou,
                pixels=found.pixels,
                ms_now=took[0],
                against=beside,
            )
        )
    return compared
