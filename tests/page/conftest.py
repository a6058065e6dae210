from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from mmms_deploy import MMMSDeployWarning, open_engine
from mmms_deploy.engines.protocol import Engine
from tests.support.chromium import chromium_path, open_chromium
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FILES = ROOT / "mmms_deploy" / "page" / "files"


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Chromium without a window, for the tests of a worker."""
    if chromium_path() is None:
        pytest.skip("there is no Chromium (apt-get install chromium)")
    with open_chromium() as browser:
        yield browser


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
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def small_engine() -> Iterator[Engine]:
    """The small demo's engine, for the servers of a worker."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MMMSDeployWarning)
        engine = open_engine("demo-small")
    yield engine
    engine.close()


@pytest.fixture
def modules(chromium: Browser, page_files: str) -> Iterator[Page]:
    """An empty page of that address, which can import the page's modules: ``await import("/saving/png.js")``."""
    page = chromium.new_page()
    page.route("**/empty.html", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
    page.goto(f"{page_files}/empty.html")
    yield page
    page.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test in this folder that takes Chromium is marked ``browser``."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)
