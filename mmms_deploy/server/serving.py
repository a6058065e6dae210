"""Listening until a signal stops the server."""

from __future__ import annotations

import contextlib
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from mmms_deploy.engines.protocol import Engine
from mmms_deploy.server.app import create_app
from mmms_deploy.server.errors import ListenError
from mmms_deploy.server.settings import JSON_BYTES, ServedPicture, Settings

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_GRACE_SECONDS = 3
"""How long requests may take to end when the server stops."""
_START_SECONDS = 60
"""How long a server in a thread may take to start."""
_MOST_CONNECTIONS = 1000


class Server(uvicorn.Server):
    """uvicorn, which says when it listens, and hands the signal that stopped it on to the handler that was there.

    Args:
        config: Its configuration.
        on_listening: Called when the server answers requests.
    """

    def __init__(self, config: uvicorn.Config, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if self.started:
            self._on_listening()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at a signal, and raise it again when everything is closed; uvicorn's own method knows no SIGHUP."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
        # One that is ignored, as nohup and shells' background jobs have it, stays ignored.
        wanted = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
        received: list[int] = []

        def note(number: int, frame: FrameType | None) -> None:
            received.append(number)
            self.handle_stop()

        before = {number: signal.signal(number, note) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])

    def handle_stop(self) -> None:
        """Stop; a second time, without waiting for requests."""
        self.force_exit = self.should_exit
        self.should_exit = True


def listening(settings: Settings) -> socket.socket:
    """Return a socket on the address of the settings.

    Raises:
        ListenError: The address is taken, or none of this machine's.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        place = socket.create_server((settings.host, settings.port), family=family, backlog=256)
        # Connections inherit it; asyncio sets it on sockets whose protocol number is given, and this one's is not.
        # Without it the second part of an answer waits 40 ms for the client's delayed acknowledgement.
        place.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return place
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ListenError(
            f"{settings.host}, port {settings.port}: {reason}",
            expected="an address of this machine, and a port that is free",
            fix="pass another port, or 0 for any that is free",
            command_fix="pass another --port, or 0 for any that is free",
        ) from error


def configured(
    engine: Engine, settings: Settings, pictures: Sequence[ServedPicture], on_listening: Callable[[], None]
) -> Server:
    """Return the server of the page and its API, which does not run yet."""
    return configured_app(create_app(engine, settings, pictures), settings, on_listening)


def configured_app(app: FastAPI, settings: Settings, on_listening: Callable[[], None], http: Any = "h11") -> Server:
    """Return the server of an application, which does not run yet.

    Args:
        app: The application.
        settings: Where it listens, and the most bytes of an upload.
        on_listening: Called when the server answers requests.
        http: What speaks HTTP, as uvicorn takes it.
    """
    return Server(
        uvicorn.Config(
            app,
            host=settings.host,
            http=http,
            ws="websockets-sansio",
            ws_max_size=min(JSON_BYTES, settings.upload_bytes),
            # Answers are short, and compressing them costs more than it saves on one machine.
            ws_per_message_deflate=False,
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        ),
        on_listening,
    )


@contextlib.contextmanager
def in_thread(settings: Settings, make: Callable[[Callable[[], None]], Server]) -> Iterator[tuple[Server, int]]:
    """Run a server in a thread of this process, until the block ends.

    Args:
        settings: Where it listens.
        make: Makes the server, of what it calls when it answers requests.

    Yields:
        The server, which answers, and its port.

    Raises:
        ListenError: The address is taken, or none of this machine's; or the server does not start.
    """
    listens = threading.Event()
    with listening(settings) as place:
        server = make(listens.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        try:
            if not listens.wait(_START_SECONDS):
                raise ListenError("the server does not start", expected=f"an answer within {_START_SECONDS} seconds")
            yield server, place.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def with_token(settings: Settings) -> Settings:
    """Return settings that ask for a token where other machines reach the server."""
    if settings.loopback or settings.token is not None:
        return settings
    return replace(settings, token=secrets.token_urlsafe(24))


def address(settings: Settings, port: int) -> str:
    """Return the address of the page; it carries the token where there is one, behind ``#``, which is never sent."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + ("" if settings.token is None else f"#token={settings.token}")


def serve(
    engine: Engine,
    settings: Settings | None = None,
    pictures: Sequence[ServedPicture] = (),
    on_listening: Callable[[str], None] | None = None,
    *,
    any_port: bool = False,
) -> None:
    """Listen until a signal stops the server; then close all sessions and the engine.

    Where other machines reach it and the settings have no token, it makes one. It prints nothing. The signal that
    stopped it is raised again at the end, for the handler that was there before.

    Args:
        engine: The engine that all sessions share.
        settings: What the server may do; None takes the defaults.
        pictures: The pictures that it offers.
        on_listening: Receives the address of the page when it can be opened.
        any_port: Whether a free port will do where that of the settings is taken.

    Raises:
        ListenError: The address is taken, or none of this machine's.
    """
    chosen = with_token(Settings() if settings is None else settings)
    try:
        with _listening(chosen, any_port) as place:
            port = place.getsockname()[1]

            def tell() -> None:
                if on_listening is not None:
                    on_listening(address(chosen, port))

            configured(engine, chosen, pictures, tell).run(sockets=[place])
    finally:
        engine.close()


def _listening(settings: Settings, any_port: bool) -> socket.socket:
    try:
        return listening(settings)
    except ListenError:
        if not any_port:
            raise
        return listening(replace(settings, port=0))
