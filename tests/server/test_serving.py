"""The server as it runs: its address, its end, its files, its description, and the client of the examples."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mmms_deploy import Session
from mmms_deploy.annotations import read_labels
from mmms_deploy.bundle import Bundle
from mmms_deploy.engines import Engine, open_engine
from mmms_deploy.page.framing import frame, unframe
from mmms_deploy.page.model import browser_model
from mmms_deploy.server import Settings, serve
from mmms_deploy.server.app import PAGE
from mmms_deploy.server.calls import CALLS
from mmms_deploy.server.changes import runs
from mmms_deploy.server.errors import ListenError
from mmms_deploy.server.file_routes import listed
from mmms_deploy.server.serving import listening
from mmms_deploy.server.shapes import BrowserAnswer
from tests.support.paths import ROOT
from tests.support.server import Client, Running, labels_of_runs, running_server

SERVE = """
import sys
from mmms_deploy.commands.signals import Stopped, handled, leave
from mmms_deploy.engines import open_engine
from mmms_deploy.server import Settings, serve

engine = open_engine(sys.argv[1], engine="onnxruntime")
try:
    with handled():
        serve(engine, Settings(host=sys.argv[2], port=0), (), lambda url: print(url, flush=True))
except Stopped as stopped:
    try:
        engine.open()
    except Exception as error:
        print(type(error).__name__, flush=True)
    leave(stopped)
"""


@pytest.fixture
def hangup() -> Iterator[None]:
    """SIGHUP as a shell leaves it: under nohup it is ignored, here and in processes that are started."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_answers_are_sent_at_once() -> None:
    """Else the second part of each waits for the client's acknowledgement, which comes 40 ms later."""
    with listening(Settings(port=0)) as place, socket.create_connection(place.getsockname()):
        connection, _ = place.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.usefixtures("hangup")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_it_cleanly(paint: Bundle, name: str) -> None:
    command = [sys.executable, "-c", SERVE, str(paint.path), "127.0.0.1"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        try:
            found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", url)
            assert found, url
            client = Client(f"{url}api/v1")
            client.open()
            # A connection that stays open does not hold the server up.
            with socket.create_connection(("127.0.0.1", int(found[1]))):
                process.send_signal(getattr(signal, name))
                out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 128 + getattr(signal, name)
    assert out.strip() == "EngineError", "the engine is closed"
    assert "Traceback" not in err


def test_where_others_reach_it_the_address_has_a_token(paint: Bundle) -> None:
    """It listens on all addresses of this machine for a moment, and answers nothing without the token."""
    command = [sys.executable, "-c", SERVE, str(paint.path), "0.0.0.0"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        try:
            place, _, token = url.partition("#token=")
            assert Client(f"{place}api/v1")("GET", "model").status == 401
            assert Client(f"{place}api/v1", {"Authorization": f"Bearer {token}"})("GET", "model").status == 200
        finally:
            process.terminate()
            _, err = process.communicate(timeout=30)
    assert token not in err


def test_a_port_that_is_taken(running: Running, paint: Bundle) -> None:
    engine = open_engine(paint, engine="onnxruntime")
    with pytest.raises(ListenError, match=str(running.port)):
        serve(engine, Settings(port=running.port))
    with pytest.raises(ListenError):
        serve(engine, Settings(host="192.0.2.1", port=0))


# --- files ------------------------------------------------------------------------------------------------------------


def test_the_page_and_its_files(client: Client) -> None:
    for name, path in listed(PAGE).items():
        reply = client("GET", f"/{name}")
        assert (reply.status, reply.body) == (200, path.read_bytes()), name
        if name.endswith(".js"):
            assert reply.headers["content-type"].startswith("text/javascript")
        assert reply.headers["cache-control"] == "no-cache"
        again = client("GET", f"/{name}", headers={"If-None-Match": reply.headers["etag"]})
        assert (again.status, again.body) == (304, b"")
    assert client("GET", "/api.js").status == 200
    assert client("HEAD", "/api.js").body == b""
    assert client("GET", "/none.js").error["kind"] == "UnknownPlaceError"
    assert client("GET", "/browser").status == 404


def test_a_file_that_changed_is_sent_again(
    small_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "index.html").write_text("<!doctype html>one")
    monkeypatch.setattr("mmms_deploy.server.app.PAGE", tmp_path)
    with running_server(small_engine) as running:
        client = Client(running.api)
        first = client("GET", "/")
        assert (first.headers["content-type"], first.body) == ("text/html; charset=utf-8", b"<!doctype html>one")
        (tmp_path / "index.html").write_text("<!doctype html>another")
        second = client("GET", "/", headers={"If-None-Match": first.headers["etag"]})
        assert (second.status, second.body) == (200, b"<!doctype html>another")


def test_the_runtime(small_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ort.mjs").write_text("export {};")
    (tmp_path / "ort.wasm").write_bytes(b"\0asm")
    monkeypatch.setattr("mmms_deploy.server.app.runtime_files", lambda: tmp_path)
    with running_server(small_engine) as running:
        client = Client(running.api)
        module, binary = client("GET", "/runtime/ort.mjs"), client("GET", "/runtime/ort.wasm")
        assert module.headers["content-type"].startswith("text/javascript")
        assert (binary.headers["content-type"], binary.body) == ("application/wasm", b"\0asm")
        assert "max-age" in binary.headers["cache-control"]
        assert client("GET", "/runtime/none.mjs").status == 404
        found = BrowserAnswer.model_validate_json(client("GET", "browser").body)
        assert (found.available, found.why) == (True, "")
        assert found.model == browser_model(small_engine.bundle).to_json()
    monkeypatch.setattr("mmms_deploy.server.app.runtime_files", lambda: None)
    with running_server(small_engine) as running:
        found = BrowserAnswer.model_validate_json(Client(running.api)("GET", "browser").body)
        assert not found.available
        assert "onnxruntime-web" in found.why


def test_the_click_stage_is_given_by_the_names_of_the_manifest(client: Client, small_engine: Engine) -> None:
    files = browser_model(small_engine.bundle).files
    assert files
    for file in files:
        reply = client("GET", f"browser/model/{file.name}")
        assert (reply.status, len(reply.body)) == (200, file.size)
        assert reply.body == small_engine.bundle.file(file.name).read_bytes()
        again = client("GET", f"browser/model/{file.name}", headers={"If-None-Match": reply.headers["etag"]})
        assert (again.status, again.body) == (304, b""), "a browser that has it needs no second copy"
    assert client("GET", "browser/model/golden.npz").status == 404


# --- the description --------------------------------------------------------------------------------------------------


def test_every_call_is_described(client: Client) -> None:
    found = client("GET", "openapi.json").json
    paths = {f"{method.upper()} {path}" for path, methods in found["paths"].items() for method in methods}
    calls = {f"POST /api/v1/sessions/{{session}}/{name}" for name in CALLS}
    assert calls < paths
    assert "PUT /api/v1/sessions/{session}/image" in paths
    assert not any("{path}" in path for path in paths)
    for path, methods in found["paths"].items():
        for method, described in methods.items():
            assert described["summary"], (method, path)
            assert "503" in described["responses"]
    click = found["paths"]["/api/v1/sessions/{session}/click"]["post"]
    fields = click["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert "centre" in fields["x"]["description"]
    assert "MaskAnswer" in str(click["responses"]["200"])
    text = str(found)
    assert "cdn" not in text
    assert client("GET", "/docs").status == client("GET", "/redoc").status == 404


def test_the_document_names_every_call(client: Client) -> None:
    text = (ROOT / "docs" / "server.md").read_text()
    for path, methods in client("GET", "openapi.json").json["paths"].items():
        place = path.removeprefix("/api/v1/")
        for method in methods:
            name = place.rpartition("/")[2]
            called = f"`{method.upper()} {place}`"
            assert called in text or (name in CALLS and f"| `{name}` |" in text), called


# --- the client of the examples ---------------------------------------------------------------------------------------


def test_the_client_of_the_examples(running: Running, upload: bytes, tmp_path: Path, small_engine: Engine) -> None:
    (tmp_path / "photo.png").write_bytes(upload)
    address = running.url.rstrip("/")
    command = [sys.executable, str(ROOT / "examples" / "client.py"), address, "photo.png", "60", "45", "mask.png"]
    before = len(running.state.tabs)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr
    labels, _ = read_labels(tmp_path / "mask.png")
    with Session(small_engine.bundle, engine=small_engine) as session:
        session.set_image(upload)
        result = session.click(60, 45)
    assert (labels.astype(bool) == result.mask).all()
    assert f"mask.png: {result.area} pixels" in done.stdout
    assert len(running.state.tabs) == before, "it closes its session"


def test_the_client_with_a_token(small_engine: Engine, upload: bytes, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(upload)
    with running_server(small_engine, Settings(token="secret")) as running:
        place = running.url.partition("/#")[0]
        command = [sys.executable, str(ROOT / "examples" / "client.py"), place, "photo.png", "60", "45", "mask.png"]
        refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert "401" in refused.stderr
        subprocess.run([*command, "secret"], cwd=tmp_path, check=True, capture_output=True)
    assert np.any(read_labels(tmp_path / "mask.png")[0])


def test_the_frame_of_the_document() -> None:
    """The bytes that docs/server.md shows are the frame that it describes."""
    text = (ROOT / "docs" / "server.md").read_text()
    shown = re.search(r"((?:[0-9a-f]{2} ){20,}[0-9a-f]{2})", text)
    assert shown
    content = bytes.fromhex(shown[1])
    header, payload = unframe(content)
    assert content == frame(header, (payload,))
    assert (header, list(payload)) == ({"id": 7, "size": [2, 2]}, [0, 64, 128, 255])
    assert f"`{json.dumps(header)}`" in text
    assert str(list(payload)) in text


def test_the_run_lengths_of_the_document() -> None:
    text = (ROOT / "docs" / "server.md").read_text()
    numbers = re.search(r"`((?:\d+ )+\d+)`", text)
    assert numbers
    pairs = np.array(numbers[1].split(), "<u4")
    rows = re.findall(r"^    (\d(?: \d)*)$", text, re.MULTILINE)
    labels = np.array([row.split() for row in rows], np.int32)
    assert (labels_of_runs(pairs.tobytes(), *labels.shape) == labels).all()
    assert runs(labels) == pairs.tobytes()
