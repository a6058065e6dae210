"""Who may ask, and how much."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from mmms_deploy.engines import Engine
from mmms_deploy.server import Settings
from mmms_deploy.server.guard import HEADERS
from mmms_deploy.server.serving import address, with_token
from tests.support.server import Client, Running, form, png, running_server

TOKEN = "a-token-of-the-tests"


@pytest.fixture(scope="module")
def guarded(small_engine: Engine) -> Iterator[Running]:
    """A server with a token, and with small limits."""
    settings = Settings(token=TOKEN, upload_bytes=100_000, most_pixels=30_000, allowed_hosts=("demo.example",))
    with running_server(small_engine, settings) as running:
        yield running


@pytest.fixture(scope="module")
def known(guarded: Running) -> Client:
    return Client(guarded.api, {"Authorization": f"Bearer {TOKEN}"})


def put(client: Client, session: str, **files: bytes) -> Any:
    body, kind = form(**{field: ("a.png", content) for field, content in files.items()})
    return client("PUT", f"sessions/{session}/image", body, {"Content-Type": kind})


# --- hosts and origins ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "", "192.168.1.7:{port}", "a@127.0.0.1"]
)
def test_other_hosts_are_refused(running: Running, client: Client, host: str) -> None:
    for path in ("model", "/", "/app.js"):
        reply = client("GET", path, headers={"Host": host.format(port=running.port)})
        assert (reply.status, reply.error["kind"]) == (403, "RefusedHostError")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:{port}", "127.0.0.1:9", "[::1]:{port}"])
def test_own_hosts_are_taken(running: Running, client: Client, host: str) -> None:
    assert client("GET", "model", headers={"Host": host.format(port=running.port)}).status == 200


def test_an_allowed_host(known: Client) -> None:
    assert known("GET", "model", headers={"Host": "demo.example"}).status == 200
    assert known("GET", "model", headers={"Host": "other.example"}).status == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "file://", "http://localhost"])
def test_pages_of_other_origins_change_nothing(running: Running, client: Client, session: str, origin: str) -> None:
    count = len(running.state.tabs)
    for method, path in (("POST", "sessions"), ("DELETE", f"sessions/{session}"), ("POST", f"sessions/{session}/undo")):
        reply = client(method, path, headers={"Origin": origin})
        assert (reply.status, reply.error["kind"]) == (403, "RefusedOriginError")
    assert len(running.state.tabs) == count
    with pytest.raises(InvalidStatus) as refused, connect(f"{running.live}/sessions/{session}/live", origin=origin):  # type: ignore[arg-type]
        pass
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body or b"")["error"]["kind"] == "RefusedOriginError"


def test_the_own_page_and_programs_may(running: Running, client: Client) -> None:
    own = f"http://127.0.0.1:{running.port}"
    name = client("POST", "sessions", headers={"Origin": own, "Sec-Fetch-Site": "same-origin"}).json["session"]
    with connect(f"{running.live}/sessions/{name}/live", origin=own):  # type: ignore[arg-type]
        pass
    assert client("DELETE", f"sessions/{name}").status == 204


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_sites_read_nothing(client: Client, site: str) -> None:
    assert client("GET", "model", headers={"Sec-Fetch-Site": site}).status == 403
    assert client("POST", "sessions", headers={"Sec-Fetch-Site": site}).status == 403


@pytest.mark.parametrize("path", ["model", "health", "openapi.json", "none", "sessions/none/annotation", "/none"])
def test_every_answer_has_the_headers(client: Client, path: str) -> None:
    reply = client("GET", path)
    assert {name: reply.headers[name.lower()] for name in HEADERS} == HEADERS
    assert "server" not in reply.headers
    assert not any(name.startswith("access-control") for name in reply.headers)
    refused = client("GET", path, headers={"Host": "evil.example"})
    assert {name: refused.headers[name.lower()] for name in HEADERS} == HEADERS


def test_the_page_is_isolated() -> None:
    assert HEADERS["Cross-Origin-Opener-Policy"] == HEADERS["Cross-Origin-Resource-Policy"] == "same-origin"
    assert HEADERS["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert "'unsafe-inline'" not in HEADERS["Content-Security-Policy"]


# --- the token --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given", [None, "Bearer wrong", f"Basic {TOKEN}", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"]
)
def test_without_the_token_nothing_is_answered(guarded: Running, given: str | None) -> None:
    client, headers = Client(guarded.api), {} if given is None else {"Authorization": given}
    for method, path in (("GET", "model"), ("POST", "sessions"), ("GET", f"images?token={TOKEN}"), ("GET", "none")):
        reply = client(method, path, headers=headers)
        assert (reply.status, reply.error["kind"]) == (401, "TokenError")
        assert reply.headers["www-authenticate"] == "Bearer"
    assert client("GET", "health", headers=headers).json == {"status": "ok"}


def test_the_token_is_taken(guarded: Running, known: Client) -> None:
    assert known("GET", "model").status == 200
    name = known("POST", "sessions").json["session"]
    live = f"{guarded.live}/sessions/{name}/live"
    with connect(live, subprotocols=["mmms-deploy", f"bearer.{TOKEN}"]) as opened:  # type: ignore[list-item]
        assert opened.subprotocol == "mmms-deploy"
    for offered in (["mmms-deploy"], ["mmms-deploy", "bearer.wrong"]):
        with pytest.raises(InvalidStatus) as refused, connect(live, subprotocols=offered):  # type: ignore[arg-type]
            pass
        assert refused.value.response.status_code == 401


def test_the_token_is_asked_for_before_the_body(guarded: Running) -> None:
    """Of a body that is announced nothing has to be sent."""
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=30) as raw:
        raw.sendall(
            f"PUT /api/v1/sessions/a/image HTTP/1.1\r\nHost: 127.0.0.1:{guarded.port}\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 90000\r\n\r\n".encode()
        )
        assert raw.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_a_token_where_others_reach_the_server() -> None:
    assert with_token(Settings()).token is None
    assert with_token(Settings(host="::1")).token is None
    made = with_token(Settings(host="0.0.0.0"))
    assert len(made.token or "") >= 32
    assert made.token != with_token(Settings(host="0.0.0.0")).token
    assert address(made, 80) == f"http://127.0.0.1:80/#token={made.token}"
    assert with_token(Settings(host="0.0.0.0", token="given")).token == "given"


# --- lengths ----------------------------------------------------------------------------------------------------------


def test_announced_bodies_that_are_too_long(guarded: Running, known: Client) -> None:
    name = known.open()
    assert put(known, name, image=bytes(200_000)).error["kind"] == "TooLargeError"
    assert known("POST", f"sessions/{name}/restore", bytes(200_000)).status == 413
    assert known("PUT", f"sessions/{name}/labels", bytes(200_000)).status == 413


@pytest.mark.parametrize("path", ["image", "labels", "restore"])
def test_bodies_are_counted_while_they_come_in(guarded: Running, known: Client, path: str) -> None:
    """The length is not announced, and the body has no end: it is answered all the same."""
    name = known.open()
    start, _, _ = form(image=("a.png", b""))[0].rpartition(b"\r\n--")
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=30) as raw:
        raw.sendall(
            f"{'POST' if path == 'restore' else 'PUT'} /api/v1/sessions/{name}/{path} HTTP/1.1\r\n"
            f"Host: 127.0.0.1:{guarded.port}\r\nAuthorization: Bearer {TOKEN}\r\n"
            "Content-Type: multipart/form-data; boundary=----mmms-deploy-test\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        sent = 0
        answer = b""
        raw.sendall(b"%x\r\n%s\r\n" % (len(start), start))
        raw.settimeout(0.05)
        while sent < 1_000_000 and not answer:
            try:
                raw.sendall(b"1000\r\n" + bytes(4096) + b"\r\n")
                sent += 4096
                if sent > 100_000:
                    answer = raw.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                break
    assert answer.startswith(b"HTTP/1.1 413 "), answer


def test_long_messages_close_the_live_socket(guarded: Running, known: Client) -> None:
    name = known.open()
    live = f"{guarded.live}/sessions/{name}/live"
    with connect(live, subprotocols=["mmms-deploy", f"bearer.{TOKEN}"]) as opened:  # type: ignore[list-item]
        opened.send("x" * 200_000)
        with pytest.raises(Exception, match=r"1009|too big"):
            opened.recv(timeout=30)


def bomb(width: int, height: int) -> bytes:
    """A PNG file that announces many pixels and holds none."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    late = chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\0\0\0")  # Pillow decodes the pixels to look behind them
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + late + chunk(b"IEND", b"")


@pytest.mark.parametrize(("side", "status"), [(200, 413), (9000, 413), (30_000, 400)])
def test_bombs_are_refused_before_they_are_decoded(
    known: Client, monkeypatch: pytest.MonkeyPatch, side: int, status: int
) -> None:
    decoded: list[object] = []

    def load(image: object) -> None:
        decoded.append(image)

    monkeypatch.setattr(Image.Image, "load", load)
    monkeypatch.setattr(PngImageFile, "load", load)
    name = known.open()
    assert put(known, name, image=bomb(side, side)).status == status
    assert known("PUT", f"sessions/{name}/labels", bomb(side, side)).status == status
    assert not decoded


def test_pictures_below_the_limit_are_taken(known: Client) -> None:
    name = known.open()
    assert put(known, name, image=png(np.zeros((150, 200, 3), np.uint8))).status == 200
    assert put(known, name, image=png(np.zeros((151, 200, 3), np.uint8))).status == 413


# --- names and paths --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\photos\\cat.png", "cat.png"),
        ("a\x1b[31m.png", "a\\x1b[31m.png"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("<script>.png", "<script>.png"),
        ("x" * 3000, "x" * 200),
        ("", ""),
    ],
)
def test_names_of_files_are_only_shown(client: Client, upload: bytes, name: str, shown: str) -> None:
    body, kind = form(image=(name, upload))
    reply = client("PUT", f"sessions/{client.open()}/image", body, {"Content-Type": kind})
    assert (reply.status, reply.json.get("name")) == (200, shown)


def test_no_path_of_a_caller_is_opened(running: Running, client: Client, session: str, tmp_path: Any) -> None:
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    for content in (str(secret).encode(), secret.as_uri().encode()):
        reply = put(client, session, image=content)
        assert (reply.status, reply.error["kind"]) == (400, "ImageError")
        assert client("PUT", f"sessions/{session}/labels", content).status == 400
    for path in (
        "/../pyproject.toml",
        "/..%2f..%2fpyproject.toml",
        "/%2e%2e/__init__.py",
        f"/{secret}",
        "//etc/passwd",
    ):
        assert client("GET", path).status == 404, path
    for path in ("/runtime/../runtime.py", "/runtime/..%2fruntime.py", "/runtime/%2fetc%2fpasswd"):
        assert client("GET", path).status == 404, path
    for path in (
        "browser/model/manifest.json",
        "browser/model/..%2fmanifest.json",
        f"sessions/{session}/layers/..%2fx",
    ):
        assert client("GET", path).status == 404, path
    assert client("POST", f"sessions/{session}/open", {"image": str(secret)}).status == 400
    assert client("POST", f"sessions/{session}/open", {"image": 0}).error["kind"] == "UnknownImageError"


def test_forms(client: Client, session: str, upload: bytes) -> None:
    path = f"sessions/{session}/image"
    body, kind = form(image=("a.png", upload), thermal=("b.png", upload))
    reply = client("PUT", path, body, {"Content-Type": kind})
    assert (reply.status, reply.error["given"]) == (400, "the field 'thermal' is unknown")
    assert client("PUT", path, upload, {"Content-Type": "text/plain"}).error["kind"] == "RequestError"
    assert client("PUT", path, b"--x", {"Content-Type": "multipart/form-data"}).error["kind"] == "RequestError"
    assert client("PUT", path, b"junk", {"Content-Type": "multipart/form-data; boundary=x"}).status == 400
    assert client("PUT", path, upload, {"Content-Type": "image/png"}).json["layers"] == ["image"]
    assert client("PUT", path.replace("image", "modalities"), upload, {"Content-Type": "image/png"}).status == 400
    text = b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n/etc/passwd\r\n--x--\r\n'
    reply = client("PUT", path, text, {"Content-Type": "multipart/form-data; boundary=x"})
    assert (reply.status, reply.error["given"]) == (400, "the field 'image' is no file")


def test_methods_and_parameters_that_are_wrong(client: Client, session: str) -> None:
    assert client("PATCH", "model").status == 405
    assert client("PATCH", "model").error["kind"] == "RequestError"
    assert client("GET", "images/one/thumbnail").error["kind"] == "RequestError"
    assert client("GET", f"sessions/{session}/coco.json?polygons=perhaps").status == 400


def test_requests_that_are_no_http(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as raw:
        raw.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 400 ")
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    connection.request("GET", "/api/v1/health")
    assert connection.getresponse().status == 200
    connection.close()
