"""Who may ask, and how much: hosts, origins, the token, the length of a body; and the headers of every answer.

A page of another site can make a browser send requests here. So:

- The ``Host`` of a request is one of this server's own names. A name of another site that leads to this machine (DNS
  rebinding) is refused.
- A request that changes something, and the live socket, come from a page of this origin or from no browser at all.
- Where a token is asked for, it is compared before any of the body is read.

Bodies are counted while they come in, because their announced length may be missing or wrong.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmms_deploy.errors import MMMSDeployError
from mmms_deploy.server.errors import (
    RefusedHostError,
    RefusedOriginError,
    TokenError,
    TooLargeError,
    error_body,
    status_of,
    unexpected_body,
)
from mmms_deploy.server.settings import JSON_BYTES, MIB, Settings

API = "/api/v1"
"""Where the API lies."""
PROTOCOL, BEARER = "mmms-deploy", "bearer."
"""Subprotocols of the live socket: its own, and the one that carries the token."""
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:;"
    " img-src 'self' blob: data:; connect-src 'self'; style-src 'self'; frame-ancestors 'none'; base-uri 'none';"
    " form-action 'none'",
    # With these two, the page is isolated, and WebAssembly has threads.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""Headers of every answer."""
_OPEN = frozenset({f"{API}/health"})
"""What may be asked for without a token."""
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_UPLOADS = ("/image", "/modalities", "/labels")
"""How the addresses end that files are sent to."""
_OWN_SITES = frozenset({"same-origin", "none"})
_log = logging.getLogger("mmms_deploy.server")


class Guard:
    """Looks at every request before the application does, and at every answer after it.

    Args:
        app: The application.
        settings: What the server may do.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._hosts = _own_names(settings)
        self._token = None if settings.token is None else settings.token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        started = False

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            self._check(scope)
        except MMMSDeployError as error:
            await _refuse(scope, guarded, error)
            return
        try:
            await self._app(scope, self._counted(scope, receive), guarded)
        except Exception as error:
            if isinstance(error, MMMSDeployError):
                refused: MMMSDeployError | None = error
            else:
                refused = None
                _log.exception("%s %s failed", scope.get("method", "the live socket"), scope["path"])
            if scope["type"] == "http" and not started:
                await _refuse(scope, guarded, refused)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        self._check_host(host)
        asks = self._asks(scope["path"])
        live = scope["type"] == "websocket"
        if live or asks:
            _check_origin(headers, host, changes=live or scope["method"] not in _SAFE)
        if self._token is not None and (live or (asks and scope["path"] not in _OPEN)):
            self._check_token(_live_token(scope) if live else self._given_token(headers))
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._limit(scope):
            raise _too_long(self._limit(scope))

    def _asks(self, path: str) -> bool:
        """Return whether an address is one that answers callers; the others are the page's files."""
        return path.startswith(f"{API}/")

    def _given_token(self, headers: Headers) -> str | None:
        """Return the token that a request carries; None without one."""
        return _http_token(headers)

    def _check_host(self, host: str) -> None:
        name = _name_of(host)
        if name in self._hosts or (not self._settings.loopback and _is_address(name)):
            return
        raise RefusedHostError(
            f"the request is for the host {host[:200]!r}",
            expected="the name or the address of this server",
            fix="call it by its address, or start it with this name among the allowed hosts",
        )

    def _check_token(self, given: str | None) -> None:
        assert self._token is not None
        if given is not None and hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._token):
            return
        raise TokenError(
            "the request has no token" if given is None else "the token is wrong",
            expected="the token that the server printed",
            fix="send the header 'Authorization: Bearer TOKEN', or open the address that the server printed",
        )

    def _limit(self, scope: Scope) -> int:
        upload = scope["path"].endswith(_UPLOADS)
        return self._settings.upload_bytes if upload else min(JSON_BYTES, self._settings.upload_bytes)

    def _counted(self, scope: Scope, receive: Receive) -> Receive:
        """Return what receives a body and refuses one that is too long."""
        if scope["type"] != "http":
            return receive
        limit, total = self._limit(scope), 0

        async def counted() -> Message:
            nonlocal total
            message = await receive()
            if message["type"] == "http.request":
                total += len(message.get("body", b""))
                if total > limit:
                    raise _too_long(limit)
            return message

        return counted


def _own_names(settings: Settings) -> frozenset[str]:
    names: Iterable[str] = ("localhost", "127.0.0.1", "::1", settings.host, *settings.allowed_hosts)
    if not settings.loopback:
        names = (*names, socket.gethostname())
    return frozenset(name.lower() for name in names)


def _name_of(host: str) -> str:
    """Return the name in a Host header, without its port and an IPv6 address's brackets; empty where it is none."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # is a number, or raises
    except ValueError:
        return ""
    if parts.path or parts.query or parts.fragment or "@" in host:
        return ""
    return (parts.hostname or "").lower()


def _is_address(name: str) -> bool:
    """Return whether a name is an address: no site can make one lead elsewhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _check_origin(headers: Headers, host: str, *, changes: bool) -> None:
    """Refuse what a browser sends for a page of another origin; what is no browser sends none of these headers."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    foreign = site is not None and site.lower() not in _OWN_SITES
    if changes and origin is not None:
        scheme, _, authority = origin.partition("://")
        foreign = foreign or scheme.lower() not in ("http", "https") or authority.lower() != host.lower()
    if foreign:
        raise RefusedOriginError(
            f"the request comes from {(origin or 'another site')[:200]!r}",
            expected="a page of this server, or a program that is no browser",
            fix="open the server's own page",
        )


def _http_token(headers: Headers) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _live_token(scope: Scope) -> str | None:
    given = (name for name in scope.get("subprotocols", ()) if name.startswith(BEARER))
    token = next(given, None)
    return _http_token(Headers(scope=scope)) if token is None else token.removeprefix(BEARER)


def _too_long(limit: int) -> TooLargeError:
    return TooLargeError(
        f"the request has more than {limit} bytes",
        expected=f"at most {limit / MIB:g} MiB",
        fix="send a smaller file",
    )


async def _refuse(scope: Scope, send: Send, error: MMMSDeployError | None) -> None:
    """Answer with an error, and take no more of the body; None is a fault of the server's own."""
    status = 500 if error is None else status_of(error)
    content = msgspec.json.encode(unexpected_body() if error is None else error_body(error))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    kind = "http.response"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008})
            return
        kind = "websocket.http.response"
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": content})
