"""A stand-in of an npm registry on 127.0.0.1: packages in memory, with every request kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote

from tests.support.http_server import serving


class Registry:
    """The state of the stand-in, and how it misbehaves.

    Attributes:
        archives: The archive of every package, by ``name@version``.
        requests: Paths of all requests, in order, with the header Range behind those that have one.
        describes: Whether it answers questions about a version; some mirrors have archives alone.
        address: What it says about where its archives are; None for its own address.
        breaks_after: Bytes after which a connection breaks; None for never.
        resumes: Whether it answers a request for the rest of a file with the rest.
        status: What it answers in place of an archive.
    """

    def __init__(self) -> None:
        self.url = ""
        self.archives: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.describes = True
        self.address: str | None = None
        self.breaks_after: int | None = None
        self.resumes = True
        self.status = 200


@contextmanager
def running() -> Iterator[Registry]:
    """Run a registry until the context ends."""
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            registry.requests.append(self.path + (f" {asked}" if asked else ""))
            path = unquote(self.path).lstrip("/")
            name, _, file = path.partition("/-/")
            if file:
                version = file.removeprefix(name.rpartition("/")[2] + "-").removesuffix(".tgz")
                self.archive(registry.archives.get(f"{name}@{version}"), asked)
                return
            name, _, version = path.rpartition("/")
            if not registry.describes or f"{name}@{version}" not in registry.archives:
                self.send_error(404)
                return
            base = registry.address or registry.url
            address = f"{base}/{name}/-/{name.rpartition('/')[2]}-{version}.tgz"
            self.answer(json.dumps({"name": name, "version": version, "dist": {"tarball": address}}).encode())

        def archive(self, content: bytes | None, asked: str | None) -> None:
            if content is None or registry.status != 200:
                self.send_error(404 if content is None else registry.status)
                return
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and registry.resumes else 0
            headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
            self.answer(content[start:], 206 if start else 200, headers, registry.breaks_after)

        def answer(
            self, content: bytes, status: int = 200, headers: dict[str, str] | None = None, most: int | None = None
        ) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:most])

    with serving(Handler) as registry.url:
        yield registry
