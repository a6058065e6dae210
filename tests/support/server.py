"""The API on a free port of this machine, and a client of it that needs nothing but the standard library."""

from __future__ import annotations

import http.client
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmms_deploy.engines.protocol import Engine
from mmms_deploy.page.framing import unframe
from mmms_deploy.server import ServedPicture, Settings
from mmms_deploy.server.serving import Server, address, configured, in_thread
from mmms_deploy.server.state import State

BOUNDARY = "----mmms-deploy-test"


class Clock:
    """A clock that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Running:
    """A server that runs.

    Attributes:
        url: The page's address; with ``#token=...`` where there is a token.
        port: Its port.
        state: What its calls share.
        server: uvicorn's server.
    """

    url: str
    port: int
    state: State
    server: Server

    @property
    def api(self) -> str:
        """The API's address."""
        return f"{self.url.partition('#')[0]}api/v1"

    @property
    def live(self) -> str:
        """The API's address for live sockets."""
        return self.api.replace("http", "ws", 1)


@contextmanager
def running_server(
    engine: Engine, settings: Settings | None = None, pictures: Sequence[ServedPicture] = ()
) -> Iterator[Running]:
    """Run the server in a thread, on a free port; the engine is not closed.

    Args:
        engine: The engine that its sessions share.
        settings: What it may do; its port is not used.
        pictures: The pictures that it offers.
    """
    chosen = replace(settings or Settings(), port=0)
    with in_thread(chosen, lambda listens: configured(engine, chosen, pictures, listens)) as (server, port):
        app: Any = server.config.app
        yield Running(address(chosen, port), port, app.state.shared, server)


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        status: The HTTP status.
        headers: By name in lower case.
        body: The bytes.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """The error in the body."""
        return self.json["error"]

    @property
    def pixels(self) -> npt.NDArray[Any]:
        """The body as a picture."""
        return np.asarray(Image.open(io.BytesIO(self.body)))

    @property
    def frame(self) -> tuple[dict[str, Any], bytes]:
        """The body as a frame: header and payload."""
        header, payload = unframe(self.body)
        return header, bytes(payload)


@dataclass(frozen=True)
class Client:
    """Sends requests, each on a connection of its own.

    Attributes:
        base: The API's address.
        headers: What every request has.
    """

    base: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def __call__(
        self, method: str, path: str, body: bytes | Any = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send a request.

        Args:
            method: The method.
            path: Below the API's address; from the server's root where it begins with ``/``.
            body: Bytes, or what is sent as JSON; None for nothing.
            headers: More headers.
        """
        parts = urlsplit(self.base)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        try:
            content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            place = path if path.startswith("/") else f"{parts.path}/{path}"
            connection.request(method, place, content, {**self.headers, **(headers or {})})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, found, answer.read())
        finally:
            connection.close()

    def open(self, **files: bytes) -> str:
        """Open a session with an image and modalities, and return its name."""
        session = str(self("POST", "sessions").json["session"])
        if files:
            body, kind = form(**{name: (f"{name}.png", content) for name, content in files.items()})
            reply = self("PUT", f"sessions/{session}/image", body, {"Content-Type": kind})
            assert reply.status == 200, reply.body
        return session


def form(**files: tuple[str, bytes]) -> tuple[bytes, str]:
    """Return a form with files and its content type.

    Args:
        files: Name and contents of the file in each field.
    """
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        f"Content-Type: application/octet-stream\r\n\r\n".encode()
        + content
        + b"\r\n"
        for field, (name, content) in files.items()
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={BOUNDARY}"


def png(pixels: npt.NDArray[Any]) -> bytes:
    """Return a picture as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def labels_of_runs(payload: bytes, height: int, width: int) -> npt.NDArray[np.int32]:
    """Return the labels (height, width) that run lengths say."""
    pairs = np.frombuffer(payload, "<u4").reshape(-1, 2)
    return np.repeat(pairs[:, 0], pairs[:, 1]).astype(np.int32).reshape(height, width)
