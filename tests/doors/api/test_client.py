"""The client of the API against a server that runs, and against ones that are none."""

from __future__ import annotations

import http.server
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from mmms_deploy import MaskCleaning, Session
from mmms_deploy.doors.api import Client
from mmms_deploy.doors.api import client as client_module
from mmms_deploy.engines import Engine
from mmms_deploy.errors import DoorError
from mmms_deploy.server import Settings
from tests.support.http_server import serving
from tests.support.server import Client as Plain
from tests.support.server import Running, running_server


@pytest.fixture(scope="module")
def running(small_engine: Engine) -> Iterator[Running]:
    with running_server(small_engine, Settings(token="secret")) as running:
        yield running


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with Client(running.url) as client:
        yield client


@pytest.fixture
def session(small_engine: Engine) -> Iterator[Session]:
    with Session(small_engine.bundle, engine=small_engine) as session:
        yield session


PICTURE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def test_masks_are_those_of_a_session(client: Client, session: Session) -> None:
    assert client.set_image(PICTURE) == (60, 90)
    session.set_image(PICTURE)
    for x, y, positive in ((20, 30, True), (70.5, 10, True), (5, 50, False)):
        np.testing.assert_array_equal(client.click(x, y, positive), session.click(x, y, positive).mask)
    np.testing.assert_array_equal(client.undo(), session.undo().mask)  # type: ignore[union-attr]
    np.testing.assert_array_equal(client.redo(), session.redo().mask)  # type: ignore[union-attr]
    client.select("dog")
    session.select("dog")
    np.testing.assert_array_equal(client.click(40, 40), session.click(40, 40).mask)
    assert client.annotation() == session.to_dict()
    client.reset()
    assert [len(one["clicks"]) for one in client.state()["surfaces"]] == [3, 0]


def test_files_and_bytes(client: Client, tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "picture.png")
    assert client.set_image(tmp_path / "picture.png") == (60, 90)
    first = client.click(20, 30)
    assert client.set_image((tmp_path / "picture.png").read_bytes()) == (60, 90)
    np.testing.assert_array_equal(client.click(20, 30), first)


def test_modalities_travel_in_a_form() -> None:
    body, kind = client_module._form({"image": b"one", "depth": b"two"})
    border = kind.partition("boundary=")[2]
    parts = body.split(f"--{border}".encode())
    assert [b'name="image"' in parts[1], b'name="depth"' in parts[2], parts[3]] == [True, True, b"--\r\n"]
    assert parts[1].endswith(b"\r\n\r\none\r\n")


def test_its_session_is_freed(running: Running) -> None:
    with Client(running.url) as client:
        place = client._session
    reply = Plain(running.api, {"Authorization": "Bearer secret"})("POST", f"sessions/{place}/state", {})
    assert reply.status == 404
    with pytest.raises(DoorError, match="the client is closed"):
        client.click(1, 1)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda client: client.click(20, 30), "no image"),
        (lambda client: client.set_image(b"nonsense"), "image"),
        (lambda client: client.state("rename", {"name": "x"}), "to"),
    ],
)
def test_refusals_are_the_server_s(client: Client, call: Any, said: str) -> None:
    with pytest.raises(DoorError, match=said) as caught:
        call(client)
    assert caught.value.expected


def test_another_token(running: Running) -> None:
    with pytest.raises(DoorError, match="token"):
        Client(running.url.partition("#")[0], "other")


def test_servers_that_are_none() -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200 if self.path.startswith("/odd") else 500)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *args: Any) -> None:
            pass

    with serving(Other) as address:
        for path, status in (("", 500), ("/odd", 200)):
            with pytest.raises(DoorError, match=f"status {status} and nothing of the API's form"):
                Client(address + path)
    with pytest.raises(DoorError, match="does not answer"):
        Client(address)
    for odd in ("photo.jpg", "file:///etc/hosts", "http://"):
        with pytest.raises(DoorError, match="the address"):
            Client(odd)


def test_its_calls_are_those_that_the_server_describes(
    running: Running, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request of the client is in openapi.json, with fields and an answer that fit their schemas."""
    described = Plain(running.api, {"Authorization": "Bearer secret"})("GET", "openapi.json").json
    calls: list[tuple[str, str, bytes, Any]] = []
    send = Client._call

    def noted(self: Client, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> Any:
        answer = send(self, method, path, body, kind)
        calls.append((method, path.partition("?")[0], body if kind == "application/json" else b"", answer))
        return answer

    monkeypatch.setattr(Client, "_call", noted)
    with Client(running.url) as other:
        other.set_image(PICTURE)
        other.click(20, 30)
        other.undo()
        other.select("dog")
        other.annotation()
    assert len(calls) == 7
    for method, path, body, answer in calls:
        operation = _operation(described, method, path)
        content = operation["responses"].get("200", operation["responses"].get("201", {})).get("content", {})
        if "application/json" in content:
            _validate(answer, content["application/json"]["schema"], described)
        if body:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            _validate(json.loads(body), schema, described)


def _operation(described: Any, method: str, path: str) -> Any:
    given = f"/api/v1/{path}".split("/")
    for known, operations in described["paths"].items():
        parts = known.split("/")
        fits = len(parts) == len(given) and all(
            one == other or one.startswith("{") for one, other in zip(parts, given, strict=True)
        )
        if fits and method.lower() in operations:
            return operations[method.lower()]
    raise AssertionError(f"{method} {path} is not in openapi.json")


def _validate(value: Any, schema: Any, described: Any) -> None:
    jsonschema.validate(value, {**schema, "components": described["components"]})


def test_masks_can_be_cleaned(running: Running, small_engine: Engine) -> None:
    cleaning = MaskCleaning(fill_holes=50, drop_specks=50, simplify=3)
    with (
        Client(running.url, cleaning=cleaning) as client,
        Session(small_engine.bundle, engine=small_engine, cleaning=cleaning) as session,
        Session(small_engine.bundle, engine=small_engine) as plain,
    ):
        client.set_image(PICTURE)
        session.set_image(PICTURE)
        plain.set_image(PICTURE)
        mask = client.click(20, 30)
        np.testing.assert_array_equal(mask, session.click(20, 30).mask)
        assert not np.array_equal(mask, plain.click(20, 30).mask)
