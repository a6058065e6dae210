"""The lines of a journal: what was done in a session, one event each (docs/journal.md).

Every event has these fields, and those of its kind:

- ``event``: its kind
- ``n``: its number, from 0; a journal in which one is missing was changed
- ``time``: when it ended, UTC
- ``ms``: how long the call took, in milliseconds
- ``surface``: the current surface afterwards
- ``mask``: what is kept of its mask, where the call has one
- ``labels``: the hash of the label map, for a network that answers for all objects at once
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

import msgspec

from mmms_deploy.bundle.contract import MOST_CANDIDATES, Struct
from mmms_deploy.bundle.protocol import ZoomRule
from mmms_deploy.imaging.cleaning import MaskCleaning
from mmms_deploy.session.facts import BundleFacts, EngineFacts, ImageFacts
from mmms_deploy.session.mask_mark import Hash, MaskMark
from mmms_deploy.session.saved import SavedInteraction, SavedSession, SavedStep

FORMAT, VERSION = "mmms-deploy-journal", 1
REACH = 8
"""How many of the newest events a session can be taken back to by number; farther back, it is said where it stands."""
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Milliseconds = Annotated[float, msgspec.Meta(ge=0)]


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event"):
    """What all events have; see above."""

    n: _Count = msgspec.field(default=-1)
    time: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    ms: _Milliseconds = 0.0
    surface: str = ""
    mask: MaskMark | None = None
    labels: Hash | None = None


class OpenedEvent(Event, frozen=True, kw_only=True, tag="opened"):
    """A session began to write.

    Attributes:
        format: The name of this format.
        version: Its version.
        package: Version of mmms-deploy.
        python: Version of Python.
        system: Operating system and kind of processor.
        bundle: The bundle.
        engine: The engine that really runs.
        zoom: The rule of the object's crop; null without one.
        flip: Whether answers are the mean with those to the mirror image.
        cleaning: What is done to masks after the network has answered; null, or not there, for nothing.
        history_limit: How many steps can be undone; null for all of them.
        masks: Whether events have whole masks.
    """

    format: Literal["mmms-deploy-journal"]
    version: Literal[1]
    package: str
    python: str
    system: str
    bundle: BundleFacts
    engine: EngineFacts
    zoom: ZoomRule | None = None
    flip: bool = False
    cleaning: MaskCleaning | None = None
    history_limit: _Count | None = None
    masks: bool = False


class ImageEvent(Event, frozen=True, kw_only=True, tag="image"):
    """An image was set, as pixels or encoded.

    Attributes:
        call: The call: ``set_image``, ``set_features`` or ``use``, or ``load``.
        image: The image.
        found: Whether it was encoded before, so that no stage ran.
        annotation: What the image has from the start, where its objects came back with it.
    """

    call: str
    image: ImageFacts
    found: bool = False
    annotation: SavedSession | None = None


class ModalitiesEvent(Event, frozen=True, kw_only=True, tag="modalities"):
    """Modalities came later, or changed, or were taken away.

    Attributes:
        image: The image and its modalities afterwards.
        changed: Names of those that are new or changed, sorted.
        gone: Names of those that were taken away, sorted.
    """

    image: ImageFacts
    changed: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


class ClickEvent(Event, frozen=True, kw_only=True, tag="click"):
    """A click, as x, y, and 1 or 0."""

    click: tuple[float, float, Literal[0, 1]]


class ChoiceEvent(Event, frozen=True, kw_only=True, tag="choose"):
    """Another of several answers was taken; its number."""

    choice: Annotated[int, msgspec.Meta(ge=0, lt=MOST_CANDIDATES)]


class MaskEvent(Event, frozen=True, kw_only=True, tag="mask_put_in"):
    """A mask was put in.

    Attributes:
        step: The mask as run lengths, and what the network sees of it where it was one of probabilities.
    """

    step: SavedStep


class FollowEvent(Event, frozen=True, kw_only=True, tag="follow"):
    """Several interactions in one call.

    Attributes:
        call: The call, such as ``set_clicks`` or ``predict``.
        kept: How many of the surface's first interactions stayed.
        interactions: Those that follow them.
    """

    call: str
    kept: _Count
    interactions: tuple[SavedInteraction, ...]


class ClickObjectsEvent(Event, frozen=True, kw_only=True, tag="click_objects"):
    """A click on each of several objects in one call: their names in its order, each with x, y, and 1 or 0."""

    clicks: tuple[tuple[str, tuple[float, float, Literal[0, 1]]], ...]


class UndoEvent(Event, frozen=True, kw_only=True, tag="undo"):
    """A step back."""


class RedoEvent(Event, frozen=True, kw_only=True, tag="redo"):
    """An undone step forward."""


class ResetEvent(Event, frozen=True, kw_only=True, tag="reset"):
    """The current surface's interactions were forgotten."""


class SelectEvent(Event, frozen=True, kw_only=True, tag="select"):
    """Another surface became the current one; its name is ``surface``."""


class RemoveEvent(Event, frozen=True, kw_only=True, tag="remove"):
    """A surface was forgotten."""

    name: str


class RenameEvent(Event, frozen=True, kw_only=True, tag="rename"):
    """A surface got another name."""

    name: str
    to: str


class AnnotationEvent(Event, frozen=True, kw_only=True, tag="annotation"):
    """All surfaces were replaced: ``restore``, ``load_labels`` or ``load``.

    Attributes:
        call: The call.
        annotation: All of them, as ``Session.to_dict`` has them.
    """

    call: str
    annotation: SavedSession


class StateEvent(Event, frozen=True, kw_only=True, tag="state"):
    """Where the session stands after something that no other event says.

    Attributes:
        call: The call; empty where events were lost.
        lost: How many events before this one could not be written.
        image: The image; null without one.
        annotation: All surfaces; null without an image.
    """

    call: str = ""
    lost: _Count = 0
    image: ImageFacts | None = None
    annotation: SavedSession | None = None


class TakenBackEvent(Event, frozen=True, kw_only=True, tag="taken_back"):
    """Calls were taken back, such as by cancelling or superseding them: the session is as after an earlier event.

    Attributes:
        to: The number of that event.
    """

    to: _Count


class RefusedEvent(Event, frozen=True, kw_only=True, tag="refused"):
    """A call raised an error, and changed nothing.

    Attributes:
        call: The call.
        given: Its arguments, as far as they are numbers, short texts or names; of any other only the type.
        error: Name of the error's class.
    """

    call: str
    given: tuple[str, ...]
    error: str


class ClosedEvent(Event, frozen=True, kw_only=True, tag="closed"):
    """The session was closed; nothing of it follows.

    Attributes:
        lost: How many events before this one could not be written.
    """

    lost: _Count = 0


AnyEvent: TypeAlias = (
    OpenedEvent
    | ImageEvent
    | ModalitiesEvent
    | ClickEvent
    | ChoiceEvent
    | MaskEvent
    | FollowEvent
    | ClickObjectsEvent
    | UndoEvent
    | RedoEvent
    | ResetEvent
    | SelectEvent
    | RemoveEvent
    | RenameEvent
    | AnnotationEvent
    | StateEvent
    | TakenBackEvent
    | RefusedEvent
    | ClosedEvent
)
"""An event of any kind."""
