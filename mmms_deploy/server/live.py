"""The live socket: requests in JSON come in, binary answers go out, in the same order."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from mmms_deploy.errors import MMMSDeployError
from mmms_deploy.server.answers import candidates, framed, live_answer, probability
from mmms_deploy.server.calls import CALLS, checked, decoded
from mmms_deploy.server.changes import Seen
from mmms_deploy.server.errors import RequestError, UnknownSessionError, answered, error_body, unexpected_body
from mmms_deploy.server.guard import PROTOCOL
from mmms_deploy.server.shapes import Nothing
from mmms_deploy.server.state import State, state_of
from mmms_deploy.server.tabs import Tab

UNKNOWN = 4404
"""The socket is closed with this code where its session is not there (any more)."""
_GETS = ("annotation", "probability", "candidates")
_SHORT = 1 << 16
"""A request of so many characters is decoded at once, a longer one in a thread."""
_log = logging.getLogger("mmms_deploy.server")
router = APIRouter()


@router.websocket("/sessions/{session}/live")
async def live(socket: WebSocket, session: str) -> None:
    """Answer the requests of one client about one session, until it goes away."""
    state = state_of(socket)
    offered = socket.scope.get("subprotocols", ())
    await socket.accept(PROTOCOL if PROTOCOL in offered else None)
    # A client that comes back may have missed an answer: every socket begins with the whole label map.
    seen = Seen()
    try:
        tab = state.tabs.get(session)
        tab.watching.add(seen)
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            await socket.send_bytes(await _answered(state, tab, seen, message.get("text")))
            if tab.closed:
                break
    except UnknownSessionError:
        pass
    except WebSocketDisconnect:
        return
    await socket.close(UNKNOWN, "there is no such session (any more)")


async def _answered(state: State, tab: Tab, seen: Seen, text: str | None) -> bytes:
    """Return the answer to one request; an error is an answer too."""
    name: int | str | None = None
    try:
        if text is None:
            raise RequestError("the request is binary", expected="a text in JSON", fix="send a text")
        given = decoded(text) if len(text) < _SHORT else await state.tabs.compute(lambda: decoded(text))
        name = _name_of(given)
        header, payload = await _asked(state, tab, seen, given)
        return framed({"id": name, **header}, payload)
    except MMMSDeployError as error:
        return framed({"id": name, **error_body(answered(error))})
    except Exception:
        _log.exception("a request of the live socket failed")
        return framed({"id": name, **unexpected_body()})


def _name_of(given: dict[str, Any]) -> int | str | None:
    name = given.pop("id", None)
    if name is not None and (isinstance(name, bool) or not isinstance(name, int | str)):
        raise RequestError(
            f"the id is a {type(name).__name__}", expected="a number or a text", fix="count the requests"
        )
    return name if not isinstance(name, int) or abs(name) < 1 << 53 else str(name)


async def _asked(state: State, tab: Tab, seen: Seen, given: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    do = given.pop("do", None)
    call = CALLS.get(do) if isinstance(do, str) else None
    if call is not None:
        known = call

        def run() -> tuple[dict[str, Any], bytes]:
            fields, payload = live_answer(tab, seen, known, checked(known.fields, given))
            return {"answer": fields}, payload

        return await state.tabs.call(tab, run, grows=call.grows)
    if do not in _GETS:
        raise RequestError(
            f"the request asks to do {str(do)[:100]!r}", expected=", ".join((*CALLS, *_GETS)), fix="correct 'do'"
        )
    checked(Nothing, given)
    if do == "annotation":
        return {"annotation": await state.tabs.call(tab, tab.session.to_dict)}, b""
    look = probability if do == "probability" else candidates
    return await state.tabs.call(tab, lambda: look(tab))
