"""What a session is asked by name, over HTTP or the live socket."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import ValidationError

from mmms_deploy.errors import FileReadError
from mmms_deploy.files import decode_json
from mmms_deploy.server.errors import RequestError
from mmms_deploy.server.shapes import (
    ChooseCall,
    ClickCall,
    ClicksCall,
    NameCall,
    Nothing,
    RenameCall,
    RestoreCall,
    Shape,
)
from mmms_deploy.session import ClickResult, Session

Done: TypeAlias = ClickResult | None
"""The result of a call that answers clicks; None of any other."""


@dataclass(frozen=True)
class Call:
    """A call.

    Attributes:
        fields: Its fields.
        run: Runs it.
        summary: What it does, for OpenAPI.
        whole: Whether the answer has the whole label map.
        grows: Whether the session takes more memory afterwards.
    """

    fields: type[Shape]
    run: Callable[[Session, Any], Done]
    summary: str
    whole: bool = False
    grows: bool = False


def _click(session: Session, call: ClickCall) -> Done:
    return session.click(call.x, call.y, call.positive)


def _clicks(session: Session, call: ClicksCall) -> Done:
    return session.add_clicks([(one.x, one.y, one.positive) for one in call.clicks])


def _choose(session: Session, call: ChooseCall) -> Done:
    return session.choose(call.index)


def _undo(session: Session, call: Nothing) -> Done:
    return session.undo()


def _redo(session: Session, call: Nothing) -> Done:
    return session.redo()


def _reset(session: Session, call: Nothing) -> None:
    session.reset()


def _select(session: Session, call: NameCall) -> None:
    session.select(call.name)


def _remove(session: Session, call: NameCall) -> None:
    session.remove(call.name)


def _rename(session: Session, call: RenameCall) -> None:
    session.rename(call.name, call.to)


def _restore(session: Session, call: RestoreCall) -> None:
    session.restore(call.annotation)


def _state(session: Session, call: Nothing) -> None:
    _ = session.image_size  # without an image there is no state


CALLS: Mapping[str, Call] = {
    "click": Call(ClickCall, _click, "Add a click on the current object, and get the mask that follows", grows=True),
    "clicks": Call(ClicksCall, _clicks, "Add several clicks on the current object, and get one answer", grows=True),
    "undo": Call(Nothing, _undo, "Take back the newest click"),
    "redo": Call(Nothing, _redo, "Bring back the click that was undone last"),
    "reset": Call(Nothing, _reset, "Forget the clicks on the current object"),
    "select": Call(NameCall, _select, "Work on another object, a new one or one that is there", grows=True),
    "remove": Call(NameCall, _remove, "Forget an object"),
    "rename": Call(RenameCall, _rename, "Give an object another name"),
    "choose": Call(ChooseCall, _choose, "Take another of several answers to the newest click"),
    "restore": Call(RestoreCall, _restore, "Put back an annotation", whole=True, grows=True),
    "state": Call(Nothing, _state, "Get the state as it is", whole=True),
}
"""The calls that are answered with the state of the session, by name."""


def checked(fields: type[Shape], given: object) -> Any:
    """Return the fields of a request, checked.

    Args:
        fields: Their description.
        given: What was sent, as JSON has it.

    Raises:
        RequestError: A field is missing, unknown or of another type.
    """
    try:
        return fields.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the request"
        raise RequestError(
            f"{place}: {first['msg'].lower()}",
            expected=f"the fields {', '.join(fields.model_fields)}" if fields.model_fields else "no fields",
            fix="correct the request; /api/v1/openapi.json describes every one",
        ) from None


def decoded(content: bytes | str) -> dict[str, Any]:
    """Return the JSON of a request; none at all is an object without fields.

    Raises:
        RequestError: It is no object in JSON, or is nested too deeply.
    """
    if not content:
        return {}
    try:
        given = decode_json(content, "the request")
    except FileReadError as error:
        raise RequestError(error.given, expected=error.expected, fix="send JSON in UTF-8") from None
    if not isinstance(given, dict):
        raise RequestError(
            f"the request is a {type(given).__name__}", expected="an object in JSON", fix='send {"x": 1, "y": 2}'
        )
    return given
