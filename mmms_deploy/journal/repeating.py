"""Does in a session what an event of a journal says."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from mmms_deploy.annotations import mask_of_rle
from mmms_deploy.errors import JournalDiffersError, JournalError, OtherImageError
from mmms_deploy.journal.images import Images
from mmms_deploy.journal.reading import RecordedSession
from mmms_deploy.session import Session
from mmms_deploy.session.core import SessionState
from mmms_deploy.session.events import (
    REACH,
    AnnotationEvent,
    AnyEvent,
    ChoiceEvent,
    ClickEvent,
    ClickObjectsEvent,
    FollowEvent,
    ImageEvent,
    MaskEvent,
    ModalitiesEvent,
    RedoEvent,
    RemoveEvent,
    RenameEvent,
    ResetEvent,
    SelectEvent,
    StateEvent,
    TakenBackEvent,
    UndoEvent,
)
from mmms_deploy.session.facts import ImageFacts, image_facts
from mmms_deploy.session.mask_mark import mask_hash
from mmms_deploy.session.saved import plain_session


class Repeater:
    """Does in a session what events say, one after the other.

    Args:
        session: The session.
        images: Where the images lie.
    """

    def __init__(self, session: Session, images: Images) -> None:
        self.session = session
        self._images = images
        self._states: deque[tuple[int, SessionState]] = deque([(0, session._state)], maxlen=REACH)

    def __call__(self, event: AnyEvent) -> None:
        """Do what an event says.

        Args:
            event: The event.

        Raises:
            ImageMissingError: The event's image is not there.
            MMMSDeployError: The session refuses it.
        """
        if isinstance(event, TakenBackEvent):
            state = next((state for number, state in self._states if number == event.to), None)
            if state is None:
                raise JournalError(
                    f"event {event.n} takes the session back to event {event.to}, which is none of the {REACH} before",
                    expected="a journal that a session wrote",
                    fix="check where it comes from",
                )
            self.session._go_back(state, self.session._state)
        else:
            repeat(self.session, event, self._images)
        self._states.append((event.n, self.session._state))


def repeat(session: Session, event: AnyEvent, images: Images) -> None:
    """Do in a session what an event says; refused calls changed nothing, and nothing is done for them.

    What takes calls back needs to know them: see :class:`Repeater`.

    Args:
        session: The session.
        event: The event.
        images: Where the images lie.

    Raises:
        ImageMissingError: The event's image is not there.
        MMMSDeployError: The session refuses it.
    """
    if isinstance(event, ImageEvent):
        _set(session, event.image, images)
        if event.annotation is not None:
            session.restore(plain_session(event.annotation))
    elif isinstance(event, ModalitiesEvent):
        given = images.parts(session, event.image, event.changed)
        session.set_modalities(**given, **dict.fromkeys(event.gone))
        _check(session, event.image)
    elif isinstance(event, AnnotationEvent):
        session.restore(plain_session(event.annotation))
    elif isinstance(event, StateEvent):
        if event.image is not None and (not _there(session) or _facts(session).content != event.image.content):
            _set(session, event.image, images)
        if event.annotation is not None:
            session.restore(plain_session(event.annotation))
    else:
        _interact(session, event)


def _interact(session: Session, event: AnyEvent) -> None:
    if isinstance(event, ClickEvent):
        session.click(*event.click)
    elif isinstance(event, ChoiceEvent):
        session.choose(event.choice)
    elif isinstance(event, MaskEvent):
        _put_in(session, event)
    elif isinstance(event, FollowEvent):
        session._repeat(event.kept, event.interactions)
    elif isinstance(event, UndoEvent):
        session.undo()
    elif isinstance(event, RedoEvent):
        session.redo()
    elif isinstance(event, ResetEvent):
        session.reset()
    else:
        _choose_surface(session, event)


def _choose_surface(session: Session, event: AnyEvent) -> None:
    if isinstance(event, SelectEvent):
        session.select(event.surface)
    elif isinstance(event, RemoveEvent):
        session.remove(event.name)
    elif isinstance(event, RenameEvent):
        session.rename(event.name, event.to)
    elif isinstance(event, ClickObjectsEvent):
        session.click_objects({name: list(click) for name, click in event.clicks})


def _put_in(session: Session, event: MaskEvent) -> None:
    rle = event.step.mask
    if rle is None:
        raise JournalError("a mask was put in, and the journal has none", expected="a mask", fix="check the journal")
    if event.step.previous is None:
        session.set_mask(mask_of_rle({"size": list(rle.size), "counts": rle.counts}))
    else:
        session._repeat(len(session._steps.interactions(session._state.surfaces)), (event.step,))


def recreate(recorded: RecordedSession, session: Session, images: Images) -> None:
    """Bring a session to where another one was, from its journal and its images or their features.

    On the same bundle and engine every mask is the same, bit for bit. Nothing is compared but the last mask; see
    :func:`~mmms_deploy.journal.replay_journal` for that.

    Args:
        recorded: What was done, from :func:`~mmms_deploy.journal.read_journal`.
        session: An open session, which zooms and flips as the other one did.
        images: Where images and features lie.

    Raises:
        ImageMissingError: An image is not there.
        JournalDiffersError: The last mask is another one than in the journal.
        MMMSDeployError: The session refuses what was done.
    """
    last = None
    events = _that_count(recorded.events)
    # What was done with images before the current one leads to nothing; a session that resumes has it in its events.
    begins = [place for place, event in enumerate(events) if isinstance(event, ImageEvent)]
    for event in events[begins[-1] if begins else 0 :]:
        repeat(session, event, images)
        last = event if event.mask is not None else None
    if last is not None and last.mask is not None and mask_hash(session.mask) != last.mask.sha256:
        raise JournalDiffersError(
            f"the session was repeated, and its mask after event {last.n} is another one than in the journal",
            expected=f"the same bundle and engine: {recorded.opened.bundle.name} on {recorded.opened.engine}",
            fix="open the session with these; or call replay_journal(...), which compares every mask",
        )


def _that_count(events: Iterable[AnyEvent]) -> list[AnyEvent]:
    """Return the events without those that were taken back."""
    left: list[AnyEvent] = []
    for event in events:
        if not isinstance(event, TakenBackEvent):
            left.append(event)
            continue
        while left and left[-1].n > event.to:
            left.pop()
    return left


def _set(session: Session, image: ImageFacts, images: Images) -> None:
    images.give(session, image)
    _check(session, image)


def _check(session: Session, image: ImageFacts) -> None:
    """Check that the session has the image that the journal says.

    Raises:
        OtherImageError: It has another one.
    """
    found = _facts(session)
    same_bundle = set(found.parts) == set(image.parts)
    if same_bundle and found.content != image.content:
        raise OtherImageError(
            f"the session has an image whose hash begins with {found.content[:12]}",
            expected=f"that of the journal, {image.content[:12]}",
            fix="check the folder of images: a file of it changed meanwhile",
        )


def _there(session: Session) -> bool:
    return session._state.image.content is not None


def _facts(session: Session) -> ImageFacts:
    return image_facts(session._state.image)
