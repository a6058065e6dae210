"""Writes what is done in a session to its journal: every call as an event, with what is kept of the mask after it."""

from __future__ import annotations

import platform
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import cast
from weakref import WeakKeyDictionary, ref

import msgspec
import numpy as np

from mmms_deploy.errors import JournalWarning, MMMSDeployError
from mmms_deploy.files import PathLike
from mmms_deploy.session.core import SessionCore, SessionState
from mmms_deploy.session.events import (
    FORMAT,
    REACH,
    VERSION,
    AnnotationEvent,
    AnyEvent,
    ChoiceEvent,
    ClickEvent,
    ClickObjectsEvent,
    ClosedEvent,
    FollowEvent,
    ImageEvent,
    MaskEvent,
    ModalitiesEvent,
    OpenedEvent,
    RedoEvent,
    RefusedEvent,
    RemoveEvent,
    RenameEvent,
    ResetEvent,
    SelectEvent,
    StateEvent,
    TakenBackEvent,
    UndoEvent,
)
from mmms_deploy.session.facts import bundle_facts, engine_facts, image_facts
from mmms_deploy.session.interactions import Interaction, MaskInput
from mmms_deploy.session.journal_file import Journal
from mmms_deploy.session.mask_mark import MaskMark, labels_hash, mark_of
from mmms_deploy.session.plain_json import encoded
from mmms_deploy.session.recorder import Call
from mmms_deploy.session.result import ClickResult, ImageTimings
from mmms_deploy.session.saved import SavedInteraction, SavedSession, SavedStep, saved_interaction
from mmms_deploy.version import __version__

_TROUBLE = (OSError, MemoryError, ValueError)
"""What keeps an event from being written, and is no fault of the session."""
_LONGEST = 80
"""The most characters of an argument of a refused call."""
_PAUSE = 1.0
"""Seconds between attempts to write again."""
_NAMED = ("select", "remove", "rename")
"""Calls whose texts are names of surfaces, and no paths."""


class JournalRecorder:
    """Writes the calls of one session to a journal.

    Args:
        core: The session.
        journal: The journal, or its path, which is opened here and closed with the session.

    Raises:
        JournalInUseError: Another session writes to it.
        JournalError: The file is something else.
        OutputWriteError: It cannot be written.
    """

    def __init__(self, core: SessionCore, journal: Journal | PathLike) -> None:
        self._core = core
        self._owns = not isinstance(journal, Journal)
        self._journal = journal if isinstance(journal, Journal) else Journal(journal)
        self._next, self._lost, self._warned, self._open = 0, 0, False, True
        self._retry = 0.0
        self._saved: WeakKeyDictionary[MaskInput, SavedInteraction] = WeakKeyDictionary()
        self._last: tuple[object, MaskMark] | None = None
        self._states: deque[tuple[int, ref[SessionState]]] = deque(maxlen=REACH)
        self._journal.begin(self)
        try:
            self._write(self._opened(), 0.0, None, None)
        except BaseException:
            self._let_go()
            raise

    # --- what a session tells ---------------------------------------------------------------------------------------

    def done(self, call: Call, answer: object) -> None:
        """Write a call that happened, after all that could not be written before."""
        try:
            if self._lost:
                self._catch_up()
                return
            make = _EVENTS.get(call.name, JournalRecorder._other)
            for event in make(self, call, answer):
                computed = isinstance(event, ModalitiesEvent | AnnotationEvent | StateEvent)
                shown = not isinstance(event, ImageEvent) or event.annotation is not None
                marks = self._marks(computed=computed or isinstance(event, ImageEvent)) if shown else (None, None)
                self._write(event, call.seconds, *marks)
        except _TROUBLE as error:
            self._failed(error)

    def refused(self, call: Call, error: BaseException) -> None:
        """Write a call that changed nothing; where that fails, nothing is lost that a replay needs."""
        if self._lost:
            return
        texts = call.name in _NAMED
        given = [_said(value, texts=texts) for value in call.args]
        given += [f"{name}={_said(value, texts=texts)}" for name, value in call.kwargs.items()]
        event = RefusedEvent(call=call.name, given=tuple(given), error=type(error).__name__)
        try:
            self._write(event, call.seconds, None, None)
        except _TROUBLE as trouble:
            self._failed(trouble)

    def missed(self) -> None:
        """Take note that something happened that is not in the journal."""
        self._lost += 1

    def taken_back(self, state: SessionState) -> None:
        """Write that the session is as after an earlier event, or else where it stands with its next one."""
        to = next((number for number, held in self._states if held() is state), None)
        if self._lost or to is None:
            self._lost += 1
            return
        try:
            self._write(TakenBackEvent(to=to), 0.0, *self._marks())
        except _TROUBLE as error:
            self._failed(error)

    def closed(self) -> None:
        """Write the closing line, and close the journal where it was opened here. Safe to call twice."""
        if not self._open:
            return
        try:
            if self._lost:
                self._retry = 0.0
                self._catch_up()
            self._write(ClosedEvent(lost=self._lost), 0.0, None, None)
        except _TROUBLE as error:
            self._failed(error)
        finally:
            self._let_go()

    # --- writing ----------------------------------------------------------------------------------------------------

    def _write(self, event: AnyEvent, seconds: float, mask: MaskMark | None, labels: str | None) -> None:
        stamped = msgspec.structs.replace(
            event,
            n=self._next,
            time=datetime.now(UTC),
            ms=round(1e3 * seconds, 3),
            surface=self._core._state.surfaces.name,
            mask=mask,
            labels=labels,
        )
        self._journal.append(encoded(stamped))
        self._states.append((self._next, ref(self._core._state)))
        self._next += 1

    def _catch_up(self) -> None:
        """Write where the session stands, after events that could not be written; another one where it is too early."""
        if monotonic() < self._retry:
            self._lost += 1
            return
        self._write(self._state(lost=self._lost), 0.0, *self._marks(computed=True))
        self._lost = 0

    def _failed(self, error: BaseException) -> None:
        self._lost += 1
        self._retry = monotonic() + _PAUSE
        if self._warned:
            return
        self._warned = True
        reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        warnings.warn(
            f"the journal {self._journal.path} cannot be written ({reason}); the session goes on, and what is done"
            " meanwhile is not in the journal",
            JournalWarning,
            stacklevel=5,
        )

    def _let_go(self) -> None:
        self._open = False
        self._journal.end(self)
        if self._owns:
            self._journal.close()

    # --- masks ------------------------------------------------------------------------------------------------------

    def _marks(self, *, computed: bool = False) -> tuple[MaskMark | None, str | None]:
        """Return what is kept of the current surface's mask, and the hash of the label map where there is one.

        Args:
            computed: Whether the mask is brought to the image's size where no call asked for it yet.
        """
        core, surfaces = self._core, self._core._state.surfaces
        if core._state.image.size is None or (computed and core._state.image.awaited):
            return None, None
        joint = core._manifest.clicks.objects > 1
        try:
            result = core._result_of(surfaces.current) if computed or joint else surfaces.current.result
            if result is None:
                return None, None
            return self._mark(result), labels_hash(core._label_map()) if joint else None
        except MMMSDeployError:  # an answer that is none, which the call itself did not ask for
            return None, None

    def _mark(self, result: ClickResult) -> MaskMark:
        # Undone and selected answers come back as the same object.
        if self._last is None or self._last[0] is not result:
            self._last = result, mark_of(result.mask, result.area, whole=self._journal.masks)
        return self._last[1]

    # --- events -----------------------------------------------------------------------------------------------------

    def _opened(self) -> OpenedEvent:
        core = self._core
        return OpenedEvent(
            format=FORMAT,  # type: ignore[arg-type]
            version=VERSION,  # type: ignore[arg-type]
            package=__version__,
            python=platform.python_version(),
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            bundle=bundle_facts(core._bundle),
            engine=engine_facts(core._engine.info),
            zoom=None if core._views is None else core._views.zoom,
            flip=core._views is not None and core._views.flip,
            cleaning=core._cleaning,
            history_limit=core._limit,
            masks=self._journal.masks,
        )

    def _annotation(self) -> SavedSession:
        return msgspec.convert(self._core._steps.save(self._core), SavedSession)

    def _image(self, call: Call, answer: object) -> Iterable[AnyEvent]:
        found = isinstance(answer, ImageTimings) and answer.found
        annotation = self._annotation() if self._core._annotated() else None
        yield ImageEvent(call=call.name, image=image_facts(self._core._state.image), found=found, annotation=annotation)

    def _modalities(self, call: Call, answer: object) -> Iterable[AnyEvent]:
        before, after = image_facts(call.before.image), image_facts(self._core._state.image)
        changed = {name for name, value in call.kwargs.items() if value is not None}
        gone = set(before.parts) - set(after.parts)
        yield ModalitiesEvent(image=after, changed=tuple(sorted(changed)), gone=tuple(sorted(gone)))

    def _click(self, call: Call, answer: object) -> Iterable[AnyEvent]:
        assert isinstance(answer, ClickResult)
        click = answer.click
        assert click is not None
        yield ClickEvent(click=(float(click.x), float(click.y), 1 if click.positive else 0))

    def _choice(self, call: Call, answer: object) -> Iterable[AnyEvent]:
        yield ChoiceEvent(choice=int(cast("int", call.given(0, "index"))))

    def _mask(self, call: Call, answer: object) -> Iterable[AnyEvent]:
        newest = self._core._state.surfaces.current.history.current.newest
        step = self._as_saved(cast("MaskInput", newest))
        assert isinstance(step, SavedStep)
        yield MaskEvent(step=step)

    def _follow(self, call: Call, answer: object) -> Iterable[AnyEvent]:
        core = self._core
        before = core._steps.interactions(call.before.surfaces)
        after = core._steps.interactions(core._state.surfaces)
        kept = _common(before, after)
        yield FollowEvent(call=call.name, kept=kept, interactions=tuple(self._as_saved(one) for one in after[kept:]))

    def _click_objects(self, call: Call, answer: object) -> Iterable[AnyEvent]:
        assert isinstance(answer, dict)
        clicks = []
        for name, result in answer.items():
            click = result.click
            clicks.append((name, (float(click.x), float(click.y), 1 if click.positive else 0)))
        yield ClickObjectsEvent(clicks=tuple(clicks))  # type: ignore[arg-type]

    def _undo(self, call: Call, answer: object) -> Iterable[AnyEvent]:
        yield UndoEvent()

    def _redo(self, call: Call, answer: object) -> Iterable[AnyEvent]:
        yield RedoEvent()

    def _reset(self, call: Call, answer: object) -> Iterable[AnyEvent]:
        yield ResetEvent()

    def _select(self, call: Call, answer: object) -> Iterable[AnyEvent]:
        yield SelectEvent()

    def _remove(self, call: Call, answer: object) -> Iterable[AnyEvent]:
        yield RemoveEvent(name=cast("str", call.given(0, "surface")))

    def _rename(self, call: Call, answer: object) -> Iterable[AnyEvent]:
        yield RenameEvent(name=cast("str", call.given(0, "surface")), to=cast("str", call.given(1, "to")))

    def _replaced(self, call: Call, answer: object) -> Iterable[AnyEvent]:
        image = self._core._state.image
        if image is not call.before.image:
            yield ImageEvent(call=call.name, image=image_facts(image))
        yield AnnotationEvent(call=call.name, annotation=self._annotation())

    def _other(self, call: Call, answer: object) -> Iterable[AnyEvent]:
        """Write where a call led of which nothing else is known."""
        if self._core._state is not call.before:
            yield self._state(call=call.name)

    def _state(self, *, call: str = "", lost: int = 0) -> StateEvent:
        image = self._core._state.image
        if image.content is None:
            return StateEvent(call=call, lost=lost)
        return StateEvent(call=call, lost=lost, image=image_facts(image), annotation=self._annotation())

    def _as_saved(self, interaction: Interaction) -> SavedInteraction:
        core = self._core
        if isinstance(interaction, MaskInput):
            kept = self._saved.get(interaction)
            if kept is None:
                kept = saved_interaction(interaction, core._size(), core._answer_size, core._manifest.clicks)
                self._saved[interaction] = kept
            return kept
        return saved_interaction(interaction, core._size(), core._answer_size, core._manifest.clicks)


_EVENTS: dict[str, Callable[[JournalRecorder, Call, object], Iterable[AnyEvent]]] = {
    "set_image": JournalRecorder._image,
    "set_features": JournalRecorder._image,
    "use": JournalRecorder._image,
    "set_modalities": JournalRecorder._modalities,
    "click": JournalRecorder._click,
    "choose": JournalRecorder._choice,
    "set_mask": JournalRecorder._mask,
    "set_box": JournalRecorder._follow,
    "set_clicks": JournalRecorder._follow,
    "add_clicks": JournalRecorder._follow,
    "click_objects": JournalRecorder._click_objects,
    "predict": JournalRecorder._follow,
    "_repeat": JournalRecorder._follow,
    "undo": JournalRecorder._undo,
    "redo": JournalRecorder._redo,
    "reset": JournalRecorder._reset,
    "select": JournalRecorder._select,
    "remove": JournalRecorder._remove,
    "rename": JournalRecorder._rename,
    "restore": JournalRecorder._replaced,
    "load_labels": JournalRecorder._replaced,
    "load": JournalRecorder._replaced,
}
"""What writes a call; any other is written as where it led."""


def _common(one: Sequence[Interaction], other: Sequence[Interaction]) -> int:
    """Return how many interactions two sequences begin with in common."""
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        same = left is right if isinstance(left, MaskInput) else left == right
        if not same:
            return place
    return min(len(one), len(other))


def _said(value: object, *, texts: bool) -> str:
    """Return an argument of a refused call: numbers and names as they are, of anything else the type."""
    if isinstance(value, bool | int | float | np.number | np.bool_ | None):
        text = f"{value!r}" if not isinstance(value, np.generic) else f"{value.item()!r}"
    elif texts and isinstance(value, str):
        text = repr(value)
    else:
        text = type(value).__qualname__
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
