"""A server that is gone and comes back, sessions that were freed, and tabs beside each other: no click is lost."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mmms_deploy.engines.protocol import Engine
from mmms_deploy.server import ServedPicture, Settings
from mmms_deploy.server.serving import configured, listening
from tests.support.page_driver import Desk, open_desk
from tests.support.paths import ROOT
from tests.support.server import Client, Running, running_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PHOTO = ROOT / "docs" / "images" / "photo.jpg"
PICTURES = [ServedPicture(PHOTO, "photo.jpg", "photo")]
EXPECTED = r"status of 4|ERR_CONNECTION|WebSocket|net::"
FACE, ROCKET = (240, 130), (400, 150)
HOST = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
"""An address of this machine at which no other test is given the port while there is no server."""


@contextmanager
def _server_at(engine: Engine, port: int) -> Iterator[int]:
    """Run a server at a port, or at any that is free."""
    settings, listens = Settings(host=HOST, port=port), threading.Event()
    with listening(settings) as place:
        server = configured(engine, settings, PICTURES, listens.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        assert listens.wait(30)
        try:
            yield place.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.fixture(scope="module")
def server(small_engine: Engine) -> Iterator[Running]:
    with running_server(small_engine, pictures=PICTURES) as running:
        yield running


def _free(server: Running, desk: Desk) -> None:
    """Free the page's session as the server frees an idle one."""
    assert Client(server.api)("DELETE", f"sessions/{desk.get('session()')}").status == 204


@pytest.mark.parametrize("uploaded", [False, True], ids=["of-the-server", "uploaded"])
def test_a_lost_server_comes_back_and_the_annotation_with_it(
    chromium: Browser, small_engine: Engine, uploaded: bool
) -> None:
    with ExitStack() as stack:
        with _server_at(small_engine, 0) as port:
            desk = stack.enter_context(open_desk(chromium, f"http://{HOST}:{port}/", expected=EXPECTED))
            if uploaded:
                desk.open_files(str(PHOTO))
            desk.click(*FACE)
            desk.press("n")
            desk.click(*ROCKET)
            before = desk.labels()
            session = desk.get("session()")
        # This click is made while there is no server.
        desk.page.mouse.click(*desk.place(200, 300))
        banner = desk.page.get_by_role("alert").filter(has_text="The server does not answer. Trying again")
        banner.wait_for()
        assert desk.get("state.pending.length") == 1
        np.testing.assert_array_equal(desk.labels(), before)
        stack.enter_context(_server_at(small_engine, port))
        desk.until("!mmmsDemo.state.lost && mmmsDemo.state.pending.length === 0")
        desk.idle()
        assert not banner.is_visible()
        assert "your annotation with it" in desk.messages()
        assert desk.get("session()") != session
        assert desk.objects() == ["1", "2"]
        assert desk.clicks("1") == [[*FACE, 1]]
        assert desk.clicks("2") == [[*ROCKET, 1], [200, 300, 1]]
        desk.button("Undo")
        np.testing.assert_array_equal(desk.labels(), before)


def test_a_session_that_was_freed_is_opened_again(chromium: Browser, server: Running) -> None:
    with open_desk(chromium, server.url, expected=EXPECTED) as desk:
        desk.click(*FACE)
        first = desk.labels()
        old = desk.get("session()")
        _free(server, desk)
        desk.click(*ROCKET)
        assert desk.get("session()") != old
        assert desk.clicks() == [[*FACE, 1], [*ROCKET, 1]]
        assert "with your annotation" in desk.messages()
        assert desk.page.locator("#banner").is_hidden()
        second = desk.labels()
        desk.button("Undo")
        np.testing.assert_array_equal(desk.labels(), first)
        desk.button("Redo")
        np.testing.assert_array_equal(desk.labels(), second)


def test_several_clicks_on_a_freed_session_are_all_answered_in_order(chromium: Browser, server: Running) -> None:
    with open_desk(chromium, server.url, expected=EXPECTED) as desk:
        desk.click(*FACE)
        _free(server, desk)
        places = [(200, 300), (60, 60), (300, 400)]
        for place in places:
            desk.page.mouse.click(*desk.place(*place))
        desk.idle()
        assert desk.clicks() == [[*FACE, 1], *([*place, 1] for place in places)]


def test_two_tabs_are_independent(chromium: Browser, server: Running) -> None:
    with open_desk(chromium, server.url) as left:
        page = left.page.context.new_page()
        page.goto(server.url)
        right = Desk(page, [])
        right.idle()
        left.click(*FACE)
        right.click(*ROCKET)
        left.press("n")
        assert left.get("session()") != right.get("session()")
        assert left.clicks("1") == [[*FACE, 1]]
        assert right.clicks() == [[*ROCKET, 1]]
        assert right.objects() == ["1"]
        assert not np.array_equal(left.labels(), right.labels())
        session = right.get("session()")
        page.close(run_before_unload=False)
        client, gone = Client(server.api), [200]

        def asked(_: Any) -> bool:
            gone[0] = client("GET", f"sessions/{session}/annotation").status
            return gone[0] == 404

        assert any(asked(left.page.wait_for_timeout(50)) for _ in range(100)), "a closed tab keeps its session"
        left.click(*ROCKET)
        assert left.clicks() == [[*ROCKET, 1]]
