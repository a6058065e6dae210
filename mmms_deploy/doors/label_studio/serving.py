"""Listening for Label Studio until a signal stops the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mmms_deploy.doors.label_studio.app import REASON, create_app
from mmms_deploy.doors.label_studio.settings import LabelStudio
from mmms_deploy.doors.opening import Opening
from mmms_deploy.server.serving import Server, configured_app, listening, with_token
from mmms_deploy.server.settings import Settings
from mmms_deploy.session import Model

__all__ = ["configured", "serve"]


class _Spoken(h11.Connection):
    """A connection whose status lines say the reason of an error."""

    def send(self, event: Any) -> Any:
        if isinstance(event, h11.Response):
            headers = [(name, value) for name, value in event.headers if name != REASON.encode()]
            reason = next((value for name, value in event.headers if name == REASON.encode()), event.reason)
            event = h11.Response(status_code=event.status_code, headers=headers, reason=reason)
        return super().send(event)


class _Protocol(H11Protocol):
    """uvicorn's HTTP with such connections: ASGI has no words for the reason of a status."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        size = self.config.h11_max_incomplete_event_size
        self.conn = _Spoken(h11.SERVER) if size is None else _Spoken(h11.SERVER, size)


def configured(
    model: Model,
    opening: Opening,
    label_studio: LabelStudio,
    settings: Settings,
    on_listening: Callable[[], None],
) -> Server:
    """Return the server, which does not run yet.

    Args:
        model: The open bundle; it is not closed.
        opening: How sessions are opened.
        label_studio: The Label Studio that is served.
        settings: Where it listens, and its limits.
        on_listening: Called when it answers requests.
    """
    app = create_app(model, opening, label_studio, settings)
    return configured_app(app, settings, on_listening, _Protocol)


def serve(
    model: Model,
    opening: Opening,
    label_studio: LabelStudio,
    settings: Settings,
    on_listening: Callable[[str, str | None], None],
) -> None:
    """Listen until a signal stops the server; then close all sessions. The signal is raised again at the end.

    Where other machines reach it and the settings have no token, it makes one.

    Args:
        model: The open bundle; it is not closed.
        opening: How sessions are opened.
        label_studio: The Label Studio that is served.
        settings: Where it listens, and its limits.
        on_listening: Receives the address, and the token, when it answers requests.

    Raises:
        ListenError: The address is taken, or none of this machine's.
    """
    chosen = with_token(settings)
    with listening(chosen) as place:
        port = place.getsockname()[1]
        host = f"[{chosen.host}]" if ":" in chosen.host else chosen.host

        def tell() -> None:
            on_listening(f"http://{host}:{port}", chosen.token)

        configured(model, opening, label_studio, chosen, tell).run(sockets=[place])
