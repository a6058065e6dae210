"""Serves folders and contents to a browser, as any web server may: with the headers that threads need, or without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.support.http_server import serving

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".png": "image/png",
    ".jpg": "image/jpeg",
}
ISOLATED = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers with which a page may use threads."""
POLICY = {
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:;"
    " img-src 'self' blob: data:; connect-src 'self'; style-src 'self'; frame-ancestors 'none'; base-uri 'none';"
    " form-action 'none'",
    "X-Content-Type-Options": "nosniff",
}
"""What the server of mmms-demo allows its page."""
EMPTY = b"<!doctype html><title>empty</title>"


class Pages:
    """What is served: folders by their address, longest address first, and contents by theirs.

    Attributes:
        folders: Folders by the address that they begin with, such as ``/runtime/``.
        contents: Contents by address, such as ``/features.bin``; None for what is not there.
        url: Address of the server, without a slash at its end.
    """

    def __init__(self, folders: Mapping[str, Path], contents: Mapping[str, bytes | None]) -> None:
        self.folders = dict(folders)
        self.contents: dict[str, bytes | None] = {"/empty.html": EMPTY, **contents}
        self.url = ""

    def read(self, address: str) -> bytes | None:
        """Return what lies at an address; None where there is nothing."""
        if address in self.contents:
            return self.contents[address]
        for prefix in sorted(self.folders, key=len, reverse=True):
            if address.startswith(prefix):
                file = self.folders[prefix] / (address.removeprefix(prefix) or "index.html")
                return file.read_bytes() if file.is_file() else None
        return None


@contextmanager
def served(
    folders: Mapping[str, Path],
    contents: Mapping[str, bytes | None] | None = None,
    *,
    headers: Mapping[str, str] = ISOLATED,
) -> Iterator[Pages]:
    """Serve until the block ends, on this machine alone.

    Args:
        folders: Folders by the address that they begin with.
        contents: Contents by address; an empty page is at ``/empty.html``.
        headers: Sent with every answer.
    """
    pages = Pages(folders, contents or {})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            address = self.path.partition("?")[0]
            content = pages.read(address)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Type", TYPES.get(Path(address).suffix, "application/octet-stream"))
            self.send_header("Content-Length", str(len(content or b"")))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *args: Any) -> None:
            pass

    with serving(Handler) as pages.url:
        yield pages
