"""What the server answers is what a session answers, pixel by pixel, over HTTP and the live socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from mmms_deploy import Session
from mmms_deploy.annotations import mask_of_rle, read_labels
from mmms_deploy.engines import Engine
from mmms_deploy.page.features import decode_features
from mmms_deploy.page.framing import unframe
from mmms_deploy.server.shapes import Answer, ErrorAnswer, MaskAnswer, ModelAnswer, OpenedAnswer
from tests.support.server import Client, Running, form, labels_of_runs, png, running_server


class Live:
    """A client of the live socket that keeps the label map as the page does."""

    def __init__(self, socket: ClientConnection, size: tuple[int, int]) -> None:
        self.socket, self.labels, self.last = socket, np.full(size, -1, np.int32), 0

    def send(self, do: str, **fields: Any) -> int:
        self.last += 1
        self.socket.send(json.dumps({"id": self.last, "do": do, **fields}))
        return self.last

    def receive(self) -> tuple[dict[str, Any], bytes]:
        content = self.socket.recv(timeout=30)
        assert isinstance(content, bytes)
        header, payload = unframe(content)
        assert len(content) % 4 == len(payload) % 4, "the payload is aligned"
        return header, bytes(payload)

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        number = self.send(do, **fields)
        header, payload = self.receive()
        assert header.pop("id") == number
        if "answer" not in header:
            return {**header, "payload": payload}
        answer: dict[str, Any] = header["answer"]
        Answer.model_validate_json(json.dumps(answer))
        if answer["changed"] is None:
            assert payload == b""
        else:
            x, y, width, height = answer["changed"].values()
            self.labels[y : y + height, x : x + width] = labels_of_runs(payload, height, width)
        return answer


def live(running: Running, session: str) -> Any:
    """Open a live socket, for a block."""
    return connect(f"{running.live}/sessions/{session}/live", subprotocols=["mmms-deploy"])  # type: ignore[list-item]


def of(labels: Any, label: int) -> tuple[int, list[int] | None]:
    """Area and box of a label, by other means."""
    rows, columns = np.nonzero(labels == label)
    if not rows.size:
        return 0, None
    left, top = int(columns.min()), int(rows.min())
    return rows.size, [left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1]


SCRIPT: list[tuple[dict[str, Any], Callable[[Session], object]]] = [
    ({"do": "state"}, lambda s: None),
    ({"do": "click", "x": 60, "y": 45}, lambda s: s.click(60, 45)),
    ({"do": "click", "x": 120.5, "y": 20, "positive": False}, lambda s: s.click(120.5, 20, False)),
    ({"do": "undo"}, lambda s: s.undo()),
    ({"do": "redo"}, lambda s: s.redo()),
    ({"do": "select", "name": "2"}, lambda s: s.select("2")),
    ({"do": "click", "x": 70, "y": 50, "positive": 1}, lambda s: s.click(70, 50)),
    ({"do": "click", "x": 140, "y": 80}, lambda s: s.click(140, 80)),
    ({"do": "rename", "name": "2", "to": "größer"}, lambda s: s.rename("2", "größer")),
    ({"do": "select", "name": "1"}, lambda s: s.select("1")),
    ({"do": "click", "x": 30, "y": 40}, lambda s: s.click(30, 40)),
    (
        {"do": "clicks", "clicks": [{"x": 33, "y": 44}, {"x": 80, "y": 41, "positive": False}]},
        lambda s: s.add_clicks([(33, 44), (80, 41, 0)]),
    ),
    ({"do": "undo"}, lambda s: s.undo()),
    ({"do": "reset"}, lambda s: s.reset()),
    ({"do": "click", "x": 62, "y": 40}, lambda s: s.click(62, 40)),
    ({"do": "remove", "name": "größer"}, lambda s: s.remove("größer")),
    ({"do": "undo"}, lambda s: s.undo()),
]


def test_live_answers_are_those_of_a_session(running: Running, session: str, reference: Session) -> None:
    with live(running, session) as opened:
        assert opened.subprotocol == "mmms-deploy"
        client = Live(opened, reference.image_size)
        for request, same in SCRIPT:
            answer = client.ask(**request)
            same(reference)
            assert (client.labels == reference.labels).all(), request
            assert {one["name"]: one["label"] for one in answer["surfaces"]} == reference.surfaces
            for one in answer["surfaces"]:
                assert (one["area"], one["box"]) == of(reference.labels, one["label"]), request
                clicks = [click.to_list() for name, click in reference.all_clicks if name == one["name"]]
                assert one["clicks"] == clicks
            assert answer["surface"] == reference.surface
            assert (answer["can_undo"], answer["can_redo"]) == (reference.can_undo, reference.can_redo)
            clicked = request["do"] in ("click", "clicks", "undo", "redo")
            assert all((value is not None) == clicked for value in answer["timings"].values())
        assert client.ask("annotation")["annotation"] == json.loads(json.dumps(reference.to_dict()))


def test_only_what_changed_is_sent(running: Running, session: str) -> None:
    with live(running, session) as opened:
        client = Live(opened, (90, 160))
        whole = {"x": 0, "y": 0, "width": 160, "height": 90}
        assert client.ask("click", x=60, y=45)["changed"] == whole, "the first answer has the whole map"
        before = client.labels.copy()
        changed = client.ask("click", x=66, y=45)["changed"]
        rows, columns = np.nonzero(before != client.labels)
        box = {"x": columns.min(), "y": rows.min(), "width": np.ptp(columns) + 1, "height": np.ptp(rows) + 1}
        assert changed == box
        assert client.ask("select", name="2")["changed"] is None
        assert client.ask("state")["changed"] == whole


def test_answers_come_in_the_order_of_the_requests(running: Running, session: str, reference: Session) -> None:
    with live(running, session) as opened:
        client = Live(opened, (90, 160))
        numbers = [client.send("click", x=20 + 10 * number, y=45) for number in range(8)]
        assert [client.receive()[0]["id"] for _ in range(8)] == numbers
        client.ask("state")
    for number in range(8):
        reference.click(20 + 10 * number, 45)
    assert (client.labels == reference.labels).all()


def test_probability(running: Running, client: Client, session: str, reference: Session) -> None:
    expected = np.rint(255 * reference.click(60, 45).network_probability).astype(np.uint8)
    with live(running, session) as opened:
        found = Live(opened, (90, 160))
        found.ask("click", x=60, y=45)
        answer = found.ask("probability")
    assert answer["size"] == [224, 224]
    assert (np.frombuffer(answer["payload"], np.uint8).reshape(224, 224) == expected).all()
    header, payload = client("GET", f"sessions/{session}/probability").frame
    assert (header, payload) == ({"size": [224, 224]}, answer["payload"])


def test_candidates(opened: Any, proposing: Any, upload: bytes) -> None:
    client = opened(proposing)
    assert client.get("/api/v1/model").json()["candidates"] == 3
    name = client.post("/api/v1/sessions").json()["session"]
    client.put(f"/api/v1/sessions/{name}/image", files={"image": ("a.png", upload)})
    with (
        Session(proposing) as session,
        client.websocket_connect(f"ws://127.0.0.1:8000/api/v1/sessions/{name}/live") as socket,
    ):
        session.set_image(upload)
        result = session.click(60, 45)
        socket.send_json({"id": "a", "do": "candidates"})
        assert unframe(socket.receive_bytes())[0]["error"]["kind"] == "ChoiceError"
        socket.send_json({"id": "b", "do": "click", "x": 60, "y": 45})
        answer = unframe(socket.receive_bytes())[0]["answer"]
        assert answer["candidates"] == [{"score": c.score, "taken": c.taken} for c in result.candidates]
        socket.send_json({"id": "c", "do": "candidates"})
        header, payload = unframe(socket.receive_bytes())
        maps = np.frombuffer(payload, np.uint8).reshape(header["count"], *header["size"])
        for found, one in zip(maps, result.candidates, strict=True):
            assert (found == np.rint(255 * one.answer.probability)).all()
        other = next(place for place, one in enumerate(result.candidates) if not one.taken)
        socket.send_json({"id": "d", "do": "choose", "index": other})
        header, payload = unframe(socket.receive_bytes())
        session.choose(other)
        box = header["answer"]["changed"]
        if box is not None:
            part = session.labels[box["y"] : box["y"] + box["height"], box["x"] : box["x"] + box["width"]]
            assert (labels_of_runs(payload, *part.shape) == part).all()
        assert header["answer"]["candidates"][other]["taken"]


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        ({"do": "click", "x": 500, "y": 5}, "ClickError"),
        ({"do": "click", "x": 5}, "RequestError"),
        ({"do": "click", "x": "5", "y": 5}, "RequestError"),
        ({"do": "click", "x": True, "y": 5}, "RequestError"),
        ({"do": "click", "x": 5, "y": 5, "path": "/etc/passwd"}, "RequestError"),
        ({"do": "undo"}, "HistoryError"),
        ({"do": "undo", "times": 2}, "RequestError"),
        ({"do": "select", "name": ""}, "SurfaceError"),
        ({"do": "select", "name": "n" * 2000}, "RequestError"),
        ({"do": "remove", "name": "none"}, "SurfaceError"),
        ({"do": "restore", "annotation": {}}, "SessionError"),
        ({"do": "close"}, "RequestError"),
        ({"do": ["click"]}, "RequestError"),
        ({}, "RequestError"),
    ],
)
def test_a_mistake_is_an_answer_and_changes_nothing(
    running: Running, session: str, request_: dict[str, Any], kind: str
) -> None:
    with live(running, session) as opened:
        opened.send(json.dumps({"id": 5, **request_}))
        content = opened.recv(timeout=30)
        assert isinstance(content, bytes)
        header, _ = unframe(content)
        assert header["id"] == 5
        assert header["error"]["kind"] == kind
        ErrorAnswer.model_validate_json(json.dumps({"error": header["error"]}))
        assert not Live(opened, (90, 160)).ask("state")["surfaces"][0]["clicks"]


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"id": {}}', '{"id": NaN}', "[" * 200 + "]" * 200, b"\0\1"])
def test_what_is_no_request_is_answered(running: Running, session: str, text: str | bytes) -> None:
    with live(running, session) as opened:
        opened.send(text)
        content = opened.recv(timeout=30)
        assert isinstance(content, bytes)
        header, _ = unframe(content)
        assert (header["id"], header["error"]["kind"]) == (None, "RequestError")
        assert Live(opened, (90, 160)).ask("state")["surface"] == "1"


def test_http_answers_are_those_of_a_session(client: Client, session: str, reference: Session) -> None:
    for request, same in SCRIPT:
        fields = {name: value for name, value in request.items() if name != "do"}
        reply = client("POST", f"sessions/{session}/{request['do']}", fields)
        assert reply.status == 200
        same(reference)
        MaskAnswer.model_validate_json(reply.body)
        assert (mask_of_rle(reply.json["mask"]) == reference.mask).all()
    reference.click(60, 45)
    reply = client("POST", f"sessions/{session}/click?mask=polygons", {"x": 60, "y": 45})
    assert reply.json["mask"] == json.loads(json.dumps([one.to_dict() for one in reference.result.polygons()]))
    assert client("POST", f"sessions/{session}/state?mask=none").json["mask"] is None
    assert client("POST", f"sessions/{session}/state?mask=all").error["kind"] == "RequestError"


def test_what_is_taken_out_is_put_in_again(
    client: Client, session: str, reference: Session, upload: bytes, tmp_path: Any
) -> None:
    client("POST", f"sessions/{session}/click", {"x": 60, "y": 45})
    client("POST", f"sessions/{session}/select", {"name": "car"})
    client("POST", f"sessions/{session}/click", {"x": 140, "y": 10})
    reference.click(60, 45)
    reference.select("car")
    reference.click(140, 10)
    annotation = client("GET", f"sessions/{session}/annotation").json
    assert annotation == json.loads(json.dumps(reference.to_dict()))
    coco = client("GET", f"sessions/{session}/coco.json?polygons=true").json
    expected = json.loads(json.dumps(reference.to_coco("image.png", polygons=True)))
    assert coco["annotations"] == expected["annotations"]
    assert coco["images"][0]["file_name"] == "image.png"
    written = client("GET", f"sessions/{session}/labels.png").body
    labels, names = read_labels(written)
    assert (labels == reference.labels).all()
    assert names == {"1": 1, "car": 2}
    other = client.open(image=upload)
    answer = client("POST", f"sessions/{other}/restore", {"annotation": annotation}).json
    assert (mask_of_rle(answer["mask"]) == reference.mask).all()
    assert answer["changed"] == {"x": 0, "y": 0, "width": 160, "height": 90}
    assert client("GET", f"sessions/{other}/annotation").json == annotation
    third = client.open(image=upload)
    answer = client("PUT", f"sessions/{third}/labels", written).json
    assert {one["name"]: one["area"] for one in answer["surfaces"]} == {
        name: int((labels == label).sum()) for name, label in names.items()
    }
    refused = client("PUT", f"sessions/{third}/labels", b"nothing")
    assert (refused.status, refused.error["kind"]) == (400, "AnnotationError")


def test_features_are_those_of_the_session(client: Client, session: str, reference: Session) -> None:
    size, arrays = decode_features(client("GET", f"sessions/{session}/features").body)
    assert tuple(size) == (90, 160)
    expected = reference.download_features(list(arrays))
    assert arrays
    for name, array in arrays.items():
        assert np.allclose(array, expected[name], rtol=1e-3, atol=1e-3)


def test_two_sessions_know_nothing_of_each_other(client: Client, upload: bytes, picture: Any) -> None:
    left, right = client.open(image=upload), client.open(image=png(picture[:, ::-1]))
    assert left != right
    one = client("POST", f"sessions/{left}/click", {"x": 60, "y": 45}).json
    other = client("POST", f"sessions/{right}/click", {"x": 99, "y": 45}).json
    assert (mask_of_rle(one["mask"]) != mask_of_rle(other["mask"])).any()
    assert client("POST", f"sessions/{left}/state").json["surfaces"][0]["clicks"] == [[60, 45, 1]]
    assert client("POST", f"sessions/{right}/state").json["surfaces"][0]["clicks"] == [[99, 45, 1]]


def test_sixteen_annotators_lose_no_click(running: Running, client: Client, upload: bytes, reference: Session) -> None:
    """All click at once, and send the next clicks before the answer to the first is there."""
    clicks = [(20 + 13 * number, 45, number % 3 > 0) for number in range(6)]
    maps: dict[int, Any] = {}

    def annotate(number: int) -> None:
        with live(running, client.open(image=upload)) as opened:
            mine = Live(opened, (90, 160))
            for x, y, positive in clicks:
                mine.send("click", x=x, y=y, positive=positive)
            answered = [mine.receive()[0]["answer"] for _ in clicks]
            assert [len(one["surfaces"][0]["clicks"]) for one in answered] == [1, 2, 3, 4, 5, 6]
            mine.ask("state")
            maps[number] = mine.labels

    threads = [threading.Thread(target=annotate, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for x, y, positive in clicks:
        reference.click(x, y, positive)
    assert len(maps) == 16
    assert all((found == reference.labels).all() for found in maps.values())


def test_a_client_that_goes_away_takes_nothing_along(running: Running, session: str) -> None:
    with live(running, session) as gone:
        Live(gone, (90, 160)).send("click", x=60, y=45)
        gone.socket.shutdown(socket.SHUT_RDWR)  # without a farewell, in the middle of the click
    with live(running, session) as later:
        client = Live(later, (90, 160))
        answer = client.ask("click", x=62, y=45)
        assert answer["surfaces"][0]["clicks"][-1] == [62, 45, 1]
        assert answer["changed"] == {"x": 0, "y": 0, "width": 160, "height": 90}
    assert len(running.state.tabs) >= 1


def test_unknown_sessions(running: Running, client: Client, session: str) -> None:
    for method, path in (
        ("DELETE", "sessions/none"),
        ("POST", "sessions/none/click"),
        ("GET", "sessions/none/annotation"),
        ("GET", "sessions/none/layers/image"),
        ("PUT", "sessions/none/labels"),
    ):
        reply = client(method, path, {"x": 1, "y": 1} if method == "POST" else None)
        assert (reply.status, reply.error["kind"]) == (404, "UnknownSessionError")
    with live(running, "none") as opened:
        with pytest.raises(ConnectionClosed):
            opened.recv(timeout=30)
        assert opened.close_code == 4404
    with live(running, session) as opened:
        mine = Live(opened, (90, 160))
        mine.ask("state")
        assert client("DELETE", f"sessions/{session}").status == 204
        assert mine.ask("state")["error"]["kind"] == "UnknownSessionError"
        with pytest.raises(ConnectionClosed):
            opened.recv(timeout=30)
        assert opened.close_code == 4404


def test_a_session_without_an_image(client: Client) -> None:
    name = client.open()
    for method, path in (("POST", "click"), ("POST", "state"), ("GET", "annotation"), ("GET", "labels.png")):
        reply = client(method, f"sessions/{name}/{path}", {"x": 1, "y": 1} if path == "click" else None)
        assert (reply.status, reply.error["kind"]) == (409, "NoImageError"), path
    assert client("GET", f"sessions/{name}/layers/image").status == 409
    client("DELETE", f"sessions/{name}")


def test_an_image_that_is_refused_leaves_the_one_before(client: Client, session: str) -> None:
    client("POST", f"sessions/{session}/click", {"x": 60, "y": 45})
    body, kind = form(image=("a.png", b"no picture"))
    reply = client("PUT", f"sessions/{session}/image", body, {"Content-Type": kind})
    assert (reply.status, reply.error["kind"]) == (400, "ImageError")
    assert client("POST", f"sessions/{session}/state").json["surfaces"][0]["clicks"] == [[60, 45, 1]]
    assert client("GET", f"sessions/{session}/layers/image").status == 200


def test_an_error_inside_is_logged_and_not_told(
    small_engine: Engine, upload: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with running_server(small_engine) as running:
        client = Client(running.api)
        name = client.open(image=upload)

        def broken(*given: object) -> None:
            raise ZeroDivisionError("the secret inside")

        monkeypatch.setattr(Session, "click", broken)
        with caplog.at_level("ERROR"):
            reply = client("POST", f"sessions/{name}/click", {"x": 1, "y": 1})
        assert (reply.status, reply.error["kind"]) == (500, "InternalError")
        assert b"secret" not in reply.body
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "the secret inside" in caplog.text
        caplog.clear()
        with live(running, name) as opened, caplog.at_level("ERROR"):
            mine = Live(opened, (90, 160))
            assert mine.ask("click", x=1, y=1)["error"]["kind"] == "InternalError"
            assert "the secret inside" in caplog.text
            assert mine.ask("state")["surface"] == "1"


def test_the_model_and_the_image_are_described(client: Client, upload: bytes) -> None:
    model = ModelAnswer.model_validate_json(client("GET", "model").body)
    assert (model.name, model.size, model.candidates, model.joint, model.saves) == (
        "demo-small",
        (224, 224),
        1,
        False,
        False,
    )
    body, kind = form(image=("photo.png", upload))
    reply = client("PUT", f"sessions/{client.open()}/image", body, {"Content-Type": kind})
    found = OpenedAnswer.model_validate_json(reply.body)
    assert (found.size, found.name, found.layers, found.annotation) == ((90, 160), "photo.png", ["image"], None)
