"""The same page with clicks on the server, in the browser, and without any server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mmms_deploy.engines.protocol import Engine
from mmms_deploy.page import static
from mmms_deploy.server import ServedPicture, app
from tests.support.browser_clicks import runtime_folder
from tests.support.page_driver import Desk, open_desk
from tests.support.pages import ISOLATED, POLICY, served
from tests.support.paths import ROOT
from tests.support.server import Running, running_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PHOTO = ROOT / "docs" / "images" / "photo.jpg"
FACE, ROCKET = (240, 130), (400, 150)
FEW = 40
"""Pixels at the threshold that may differ: features have half precision in the browser."""
GONE = r"ERR_|net::|WebSocket|status of"


@pytest.fixture(scope="module", autouse=True)
def runtime() -> Iterator[Path]:
    """onnxruntime-web, wherever it is, for the server and the export."""
    folder = runtime_folder()
    with pytest.MonkeyPatch.context() as patch:
        for module in (app, static):
            patch.setattr(module, "runtime_files", lambda: folder)
        yield folder


@pytest.fixture(scope="module")
def server(small_engine: Engine) -> Iterator[Running]:
    with running_server(small_engine, pictures=[ServedPicture(PHOTO, "photo.jpg", "photo")]) as running:
        yield running


def _to_browser(desk: Desk) -> None:
    desk.page.get_by_role("button", name="In this browser").click()
    desk.until("mmmsDemo.state.mode === 'browser'")
    desk.idle()


def test_the_annotation_goes_to_the_browser_and_back(chromium: Browser, server: Running) -> None:
    with open_desk(chromium, server.url) as desk:
        desk.click(*FACE)
        desk.press("n")
        desk.click(*ROCKET)
        on_server = desk.labels()
        _to_browser(desk)
        assert desk.page.inner_text("#status-where").startswith("This browser: onnxruntime-web")
        assert desk.objects() == ["1", "2"]
        assert np.count_nonzero(desk.labels() != on_server) <= FEW
        # A click is answered without the server.
        asked: list[str] = []
        desk.page.on("request", lambda request: asked.append(request.url))
        desk.click(430, 100)
        assert asked == []
        assert "to the worker and back" in desk.page.inner_text("#status-time")
        in_browser = desk.labels()
        np.testing.assert_array_equal(desk.painted()[..., 3] == 255, in_browser > 0)
        desk.button("Undo")
        assert np.count_nonzero(desk.labels() != on_server) <= FEW
        desk.button("Redo")
        desk.button("On the server")
        assert desk.get("state.mode") == "server"
        assert desk.clicks() == [[*ROCKET, 1], [430, 100, 1]]
        assert np.count_nonzero(desk.labels() != in_browser) <= FEW
        desk.button("Undo")
        np.testing.assert_array_equal(desk.labels(), on_server)


@contextmanager
def _whose_server_stopped(chromium: Browser, engine: Engine) -> Iterator[Desk]:
    """A page whose clicks run in the browser by a choice before its last loading, and whose server is gone."""
    with ExitStack() as stack:
        with running_server(engine, pictures=[ServedPicture(PHOTO, "photo.jpg", "photo")]) as running:
            desk = stack.enter_context(open_desk(chromium, running.url, expected=GONE))
            desk.page.on("dialog", lambda dialog: dialog.accept())
            _to_browser(desk)
            desk.page.reload()
            desk.until("window.mmmsDemo?.state.mode === 'browser'")
            desk.click(*FACE)
        yield desk


def test_the_choice_is_remembered_and_a_lost_server_does_not_matter(chromium: Browser, small_engine: Engine) -> None:
    with _whose_server_stopped(chromium, small_engine) as desk:
        banner = desk.page.get_by_role("alert").filter(has_text="Clicks run in this browser meanwhile")
        desk.click(*ROCKET)
        assert desk.clicks() == [[*FACE, 1], [*ROCKET, 1]]
        banner.wait_for()
        desk.click(60, 60, positive=False)
        assert desk.clicks()[2:] == [[60, 60, 0]]


def test_a_browser_that_cannot_leaves_the_clicks_on_the_server_and_says_so(chromium: Browser, server: Running) -> None:
    with open_desk(chromium, server.url, expected=GONE) as desk:
        desk.page.context.route("**/browser/model/*", lambda route: route.fulfill(status=404, body="gone"))
        desk.page.reload()
        desk.idle()
        desk.page.get_by_role("button", name="In this browser").click()
        desk.until("!document.getElementById('run-why').hidden")
        desk.idle()
        assert "This browser cannot answer clicks" in desk.page.inner_text("#run-why")
        assert "Clicks run on the server" in desk.messages()
        desk.click(*FACE)
        assert desk.page.inner_text("#status-where").startswith("Server")


def test_a_static_export_needs_no_server(chromium: Browser, small_engine: Engine, tmp_path: Path) -> None:
    out = static.write_static(tmp_path / "export", small_engine.bundle, PHOTO, webgpu=False)
    with (
        served({"/": out}, headers={**ISOLATED, **POLICY}) as pages,
        open_desk(chromium, f"{pages.url}/index.html") as desk,
    ):
        assert desk.get("state.picture.name") == "photo.jpg"
        assert desk.page.get_by_role("button", name="Open", exact=True).is_hidden()
        assert desk.page.get_by_role("button", name="On the server").is_disabled()
        desk.click(*FACE)
        desk.press("n")
        desk.click(*ROCKET)
        labels = desk.labels()
        assert {1, 2} <= set(np.unique(labels))
        with desk.page.expect_download() as waiting:
            desk.button("Save")
            desk.page.get_by_role("menuitem", name="Label map (PNG)", exact=True).click()
        assert waiting.value.suggested_filename == "photo-labels.png"
        desk.page.reload()
        desk.idle()
        np.testing.assert_array_equal(desk.labels(), labels)
