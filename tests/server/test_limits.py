"""Sessions are few, idle ones are freed, and memory is counted."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from mmms_deploy import Session
from mmms_deploy.bundle import Bundle
from mmms_deploy.engines import open_engine
from mmms_deploy.server.errors import UnknownSessionError
from mmms_deploy.server.settings import Settings, is_loopback
from mmms_deploy.server.tabs import RESTED_SECONDS, Tabs
from tests.support.server import Clock, png

API = "/api/v1"


def in_a_loop(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in a thread of its own: where Chromium is open, this one has a loop already."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, asyncio.wait_for(work, 30)).result()


def new(client: Any, image: bytes | None = None) -> str:
    name = str(client.post(f"{API}/sessions").json()["session"])
    if image is not None:
        assert client.put(f"{API}/sessions/{name}/image", files={"image": ("a.png", image)}).status_code == 200
    return name


def click(client: Any, name: str) -> int:
    return int(client.post(f"{API}/sessions/{name}/click", json={"x": 5, "y": 5}).status_code)


def sweep(client: Any) -> int:
    return int(client.portal.call(client.app.state.shared.tabs.sweep))


def test_idle_sessions_are_freed(opened: Any, paint: Bundle, upload: bytes) -> None:
    clock = Clock()
    client = opened(paint, clock=clock, idle_seconds=100)
    left, right = new(client, upload), new(client, upload)
    clock.now += 60
    assert click(client, right) == 200
    assert sweep(client) == 0
    clock.now += 60
    closed: list[Session] = [client.app.state.shared.tabs.get(left).session]
    assert sweep(client) == 1
    assert (click(client, left), click(client, right)) == (404, 200)
    assert repr(closed[0]).endswith("closed)")
    reply = client.post(f"{API}/sessions/{left}/state")
    assert reply.json()["error"]["kind"] == "UnknownSessionError"


def test_an_open_socket_keeps_nothing_of_a_freed_session(opened: Any, paint: Bundle, upload: bytes) -> None:
    client = opened(paint)
    name = new(client, upload)
    with client.websocket_connect(f"ws://127.0.0.1:8000{API}/sessions/{name}/live") as socket:
        socket.send_json({"id": 1, "do": "click", "x": 5, "y": 5})
        socket.receive_bytes()
        labels = weakref.ref(client.app.state.shared.tabs.get(name).session.labels)
        assert labels() is not None
        client.delete(f"{API}/sessions/{name}")
        gc.collect()
        assert labels() is None


def test_the_sweep_runs_by_itself(paint: Bundle) -> None:
    async def run() -> int:
        clock = Clock()
        with contextlib.closing(open_engine(paint, engine="onnxruntime")) as engine:
            tabs = Tabs(engine, Settings(idle_seconds=0.1), clock)
            await tabs.open()
            clock.now += 1
            task = asyncio.create_task(tabs.sweep_for_ever())
            while len(tabs):
                await asyncio.sleep(0.01)
            task.cancel()
            return len(tabs)

    assert in_a_loop(run()) == 0


def test_the_one_that_rested_longest_makes_room(opened: Any, paint: Bundle, upload: bytes) -> None:
    clock = Clock()
    client = opened(paint, clock=clock, most_sessions=2)
    first, second = new(client, upload), new(client, upload)
    reply = client.post(f"{API}/sessions")
    assert (reply.status_code, reply.json()["error"]["kind"]) == (503, "FullError")
    assert (click(client, first), click(client, second)) == (200, 200), "nothing was freed"
    clock.now += RESTED_SECONDS
    assert click(client, first) == 200
    third = new(client, upload)
    assert (click(client, first), click(client, second), click(client, third)) == (200, 404, 200)
    client.delete(f"{API}/sessions/{third}")
    assert new(client)


def test_memory_is_counted(opened: Any, paint: Bundle) -> None:
    clock = Clock()
    image = png(np.zeros((300, 400, 3), np.uint8))
    client = opened(paint, clock=clock)
    tabs = client.app.state.shared.tabs
    assert tabs.nbytes == 0
    name = new(client, image)
    one = tabs.nbytes
    assert one > 300 * 400 * 5
    assert click(client, name) == 200
    assert tabs.nbytes > one, "the history of a click takes memory"
    client.delete(f"{API}/sessions/{name}")
    assert tabs.nbytes == 0

    client = opened(paint, clock=clock, most_bytes=2 * one + 1000)
    tabs = client.app.state.shared.tabs
    first, second = new(client, image), new(client, image)
    third = new(client)
    files = {"image": ("a.png", image)}
    reply = client.put(f"{API}/sessions/{third}/image", files=files)
    assert (reply.status_code, reply.json()["error"]["kind"]) == (503, "FullError")
    assert client.put(f"{API}/sessions/{second}/image", files=files).status_code == 200, "it replaces its own"
    clock.now += RESTED_SECONDS
    assert client.post(f"{API}/sessions/{second}/state").status_code == 200
    assert client.put(f"{API}/sessions/{third}/image", files=files).status_code == 200
    assert click(client, first) == 404
    large = {"image": ("a.png", png(np.zeros((1000, 1000, 3), np.uint8)))}
    reply = client.put(f"{API}/sessions/{third}/image", files=large)
    assert (reply.status_code, reply.json()["error"]["kind"]) == (413, "TooLargeError")


def test_clicks_stop_where_memory_ends(opened: Any, paint: Bundle) -> None:
    clock = Clock()
    image = png(np.zeros((300, 400, 3), np.uint8))
    probe = opened(paint)
    click(probe, new(probe, image))
    client = opened(paint, clock=clock, most_bytes=probe.app.state.shared.tabs.nbytes - 1)
    name = new(client, image)
    assert click(client, name) == 200
    reply = client.post(f"{API}/sessions/{name}/click", json={"x": 5, "y": 5})
    assert (reply.status_code, reply.json()["error"]["kind"]) == (503, "FullError")
    assert client.post(f"{API}/sessions/{name}/undo", json={}).status_code == 200
    assert client.get(f"{API}/sessions/{name}/annotation").status_code == 200


def test_a_slow_tab_stops_no_other(opened: Any, paint: Bundle, upload: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    client = opened(paint)
    slow, quick = new(client, upload), new(client, upload)
    goes_on, began = threading.Event(), threading.Event()
    undo = Session.undo

    def waits(session: Session) -> Any:
        began.set()
        assert goes_on.wait(30)
        return undo(session)

    click(client, slow)
    monkeypatch.setattr(Session, "undo", waits)
    statuses: list[int] = []
    thread = threading.Thread(
        target=lambda: statuses.append(client.post(f"{API}/sessions/{slow}/undo", json={}).status_code)
    )
    thread.start()
    assert began.wait(30)
    assert click(client, quick) == 200
    assert client.get(f"{API}/health").status_code == 200
    assert not statuses
    goes_on.set()
    thread.join(30)
    assert statuses == [200]


def test_a_session_is_freed_after_its_call(paint: Bundle) -> None:
    """What runs is finished, what waits is refused."""

    async def run() -> list[object]:
        with contextlib.closing(open_engine(paint, engine="onnxruntime")) as engine:
            tabs = Tabs(engine, Settings(), Clock())
            tab = await tabs.open()
            goes_on = threading.Event()
            running = asyncio.create_task(tabs.call(tab, lambda: goes_on.wait(30) and not tab.closed))
            await asyncio.sleep(0)
            closing = asyncio.create_task(tabs.close(tab.id))
            waiting = asyncio.create_task(tabs.call(tab, lambda: True))
            await asyncio.sleep(0.01)
            goes_on.set()
            return [*await asyncio.gather(running, closing, waiting, return_exceptions=True), tab.session]

    done, closed, refused, session = in_a_loop(run())
    assert (done, closed) == (True, None)
    assert isinstance(refused, UnknownSessionError)
    assert repr(session).endswith("closed)")


def test_sessions_are_closed_with_the_server(opened: Any, paint: Bundle, upload: bytes) -> None:
    client = opened(paint)
    name = new(client, upload)
    session = client.app.state.shared.tabs.get(name).session
    client.__exit__(None, None, None)
    assert repr(session).endswith("closed)")
    client.__enter__()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *((host, True) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "192.168.1.2", "localhost.example")),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
