from __future__ import annotations

import functools
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from tests.support.http_server import serving
from tests.support.page_driver import Desk, open_desk
from tests.support.paths import ROOT
from tests.support.server import Running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FILES = ROOT / "mmms_deploy" / "page" / "files"


class _Handler(SimpleHTTPRequestHandler):
    extensions_map: ClassVar[dict[str, str]] = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
    }

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="session")
def page_files() -> Iterator[str]:
    """Address of the page's files on this machine, without an API behind them."""
    handler = functools.partial(_Handler, directory=str(FILES))
    with serving(handler) as address:
        yield address


@pytest.fixture
def modules(chromium: Browser, page_files: str) -> Iterator[Page]:
    """An empty page of that address, which can import the page's modules: ``await import("/saving/png.js")``."""
    page = chromium.new_page()
    page.route("**/empty.html", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
    page.goto(f"{page_files}/empty.html")
    yield page
    page.close()


@pytest.fixture(scope="module")
def opened(chromium: Browser, server: Running) -> Iterator[tuple[Desk, Any]]:
    """The page of a module's own ``server``, and its annotation before the first click."""
    with open_desk(chromium, server.url) as desk:
        yield desk, desk.get("annotation()")


@pytest.fixture
def desk(opened: tuple[Desk, Any]) -> Desk:
    """That page, as it was when it was opened."""
    desk, blank = opened
    desk.afresh(blank)
    return desk
