"""A stand-in of Label Studio on 127.0.0.1: it gives pictures to who has a token, as 1.23.2 does, and keeps requests."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote

from tests.support.http_server import serving

LEGACY = "0123456789abcdef0123456789abcdef01234567"


def jwt(**claims: object) -> str:
    """Return a JWT with these claims, whose signature nothing checks."""
    parts = ({"alg": "HS256", "typ": "JWT"}, claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, "signature"])


PERSONAL = jwt(token_type="refresh", exp=8103181976)


class Service:
    """The state of the stand-in, and how it misbehaves.

    Attributes:
        url: Its address.
        files: Contents by path.
        redirects: Where paths lead.
        requests: Path and header ``Authorization`` of every request, in order.
        takes_legacy: Whether legacy tokens count; a new installation takes none.
        access: The token that a personal one is exchanged for now.
        exchanges: How often one was.
        asks: Whether files need a token.
        breaks_after: Bytes after which a connection breaks; None for never.
        waits: What an answer waits for; None for nothing.
        announces: Whether the length of a file is announced.
    """

    def __init__(self) -> None:
        self.url = ""
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.takes_legacy = False
        self.access = jwt(token_type="access", exp=8103181976)
        self.exchanges = 0
        self.asks = True
        self.breaks_after: int | None = None
        self.waits: threading.Event | None = None
        self.announces = True


@contextmanager
def running() -> Iterator[Service]:
    """Run one until the context ends."""
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_POST(self) -> None:
            given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            service.requests.append((self.path, self.headers.get("Authorization")))
            if self.path != "/api/token/refresh/" or given != {"refresh": PERSONAL}:
                self.answer(b'{"detail": "Token is invalid or expired"}', 401)
                return
            service.exchanges += 1
            self.answer(json.dumps({"access": service.access}).encode())

        def do_GET(self) -> None:
            given = self.headers.get("Authorization")
            service.requests.append((self.path, given))
            if service.waits is not None:
                service.waits.wait(30)
            known = {f"Bearer {service.access}", *([f"Token {LEGACY}"] if service.takes_legacy else [])}
            if service.asks and given not in known:
                self.answer(b'{"detail": "legacy token authentication has been disabled"}', 401)
            elif self.path in service.redirects:
                self.send_response(302)
                self.send_header("Location", service.redirects[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif (content := service.files.get(unquote(self.path))) is None:
                self.answer(b"", 404)
            else:
                self.answer(content, 200, service.breaks_after)

        def answer(self, content: bytes, status: int = 200, most: int | None = None) -> None:
            self.send_response(status)
            if service.announces:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:most])

    with serving(Handler) as service.url:
        yield service
