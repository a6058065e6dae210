"""The backend over HTTP, with a stand-in of Label Studio: what it answers, and how it says what is wrong."""

from __future__ import annotations

import base64
import http.client
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from mmms_deploy import Model
from mmms_deploy.bundle import Bundle
from mmms_deploy.doors.label_studio.app import reason_of
from mmms_deploy.doors.label_studio.brush_decoding import mask_of_brush
from mmms_deploy.doors.label_studio.prompts import Prompts
from mmms_deploy.doors.label_studio.settings import LabelStudio
from mmms_deploy.doors.label_studio.tasks import Tasks
from mmms_deploy.doors.opening import Opening
from mmms_deploy.errors import DoorError, EngineError
from mmms_deploy.server.errors import FullError
from mmms_deploy.session import Click
from tests.standins.label_studio import LEGACY, PERSONAL, Service
from tests.support.exporting import skip_without_export
from tests.support.labelling import configuration, point, running_backend
from tests.support.pair import DESCRIPTION, write_decoder, write_encoder
from tests.support.server import Clock, png

PATH = "/data/upload/1/photo.png"
SIZE = (60, 80)
CLICKS = [Click(40, 30), Click(10, 12, False), Click(79, 59), Click(0, 0)]

Backend = Callable[..., "Caller"]


class Caller:
    """Asks a backend as Label Studio does."""

    def __init__(self, url: str) -> None:
        self._place = urlsplit(url)

    def __call__(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, str]:
        """Return status, body and reason of an answer."""
        connection = http.client.HTTPConnection(self._place.hostname or "", self._place.port, timeout=60)
        try:
            content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, content, {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read()), answer.reason
        finally:
            connection.close()

    def predict(self, *regions: dict[str, Any], task: int = 7, data: Any = None, **more: Any) -> Any:
        """Return the answer to the regions of a context."""
        body = {
            "tasks": [{"id": task, "data": data or {"photo": PATH}}],
            "project": "3.1700000000",
            "label_config": configuration(labels=("object", "other")),
            "params": {"login": None, "password": None, "context": {"result": regions}},
            **more,
        }
        return self("POST", "/predict", body)

    def masks(self, *clicks: Click, **more: Any) -> list[npt.NDArray[np.bool_]]:
        """Return the masks after clicks on one object."""
        status, answer, _ = self.predict(*(point(one, SIZE) for one in clicks), **more)
        assert status == 200, answer
        return [mask_of_brush(one["value"]["rle"], SIZE) for one in answer["results"][0]["result"]]


@pytest.fixture
def picture(service: Service) -> bytes:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    content = png(np.stack([columns * 3, rows * 4, columns + rows], axis=2).astype(np.uint8))
    service.files[PATH] = content
    return content


@pytest.fixture
def backend(service: Service, picture: bytes, model: Model) -> Iterator[Backend]:
    """Starts a backend: ``backend(token=..., most_sessions=2)``."""
    with ExitStack() as stack:

        def start(served: Model = model, access: str | None = PERSONAL, **settings: Any) -> Caller:
            label_studio = LabelStudio(service.url, access)
            return Caller(stack.enter_context(running_backend(served, label_studio, **settings)))

        yield start


@pytest.fixture
def expected(model: Model, picture: bytes) -> list[npt.NDArray[np.bool_]]:
    """What a session answers after each click."""
    with model.session() as session:
        session.set_image(picture)
        return [session.click(one.x, one.y, one.positive).mask for one in CLICKS]


def test_what_label_studio_asks_first(backend: Backend, model: Model) -> None:
    caller = backend()
    version = f"{model.bundle.manifest.name} {model.bundle.manifest.digest[:12]}"
    for path in ("/", "/health"):
        status, answer, _ = caller("GET", path)
        assert (status, answer["status"], answer["model_version"]) == (200, "UP", version)
    body = {"project": "3.1", "schema": configuration(), "hostname": "http://elsewhere", "access_token": LEGACY}
    assert caller("POST", "/setup", {**body, "extra_params": None})[:2] == (200, {"model_version": version})
    assert caller("GET", "/versions")[:2] == (200, {"versions": [version]})
    assert caller("POST", "/webhook", {"action": "ANNOTATION_CREATED", "annotation": {}})[:2] == (200, {})
    assert caller("POST", "/webhook", b"not json")[:2] == (200, {})
    assert caller("POST", "/validate", {"config": configuration()})[:2] == (200, {"status": "ok"})
    assert caller("POST", "/validate", {"config": "<View/>"})[0] == 400


def test_the_masks_are_those_of_a_session(backend: Backend, expected: list[npt.NDArray[np.bool_]]) -> None:
    caller = backend()
    for count, mask in enumerate(expected, start=1):
        (found,) = caller.masks(*CLICKS[:count])
        np.testing.assert_array_equal(found, mask)
    assert len({one.tobytes() for one in expected}) == 3, "the clicks tell nothing apart"
    np.testing.assert_array_equal(caller.masks(*CLICKS[:2])[0], expected[1])


def test_one_more_point_is_one_more_click(backend: Backend, service: Service, model: Model) -> None:
    caller, before = backend(), dict(model.runs)
    sessions = []
    original = Opening.session

    def session(opening: Opening, model: Model) -> Any:
        sessions.append(original(opening, model))
        return sessions[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Opening, "session", session)
        for count in range(1, len(CLICKS) + 1):
            caller.masks(*CLICKS[:count])
    (one,) = sessions
    assert sum(runs for stage, runs in one.runs.items() if "click" in stage) == len(CLICKS)
    assert [path for path, _ in service.requests].count(PATH) == 1
    assert dict(model.runs) == before


def test_the_region_is_of_the_tag_of_the_configuration(backend: Backend) -> None:
    _, answer, _ = backend().predict(point(CLICKS[0], SIZE))
    (result,) = answer["results"]
    (region,) = result["result"]
    shown = {name: region[name] for name in ("from_name", "to_name", "type", "original_width", "original_height")}
    assert shown == {
        "from_name": "area",
        "to_name": "pic",
        "type": "brushlabels",
        "original_width": 80,
        "original_height": 60,
    }
    assert (region["image_rotation"], region["value"]["format"]) == (0, "rle")
    assert region["value"]["brushlabels"] == ["object"]
    assert result["model_version"]


def test_a_bitmask_where_the_configuration_has_one(backend: Backend, expected: list[npt.NDArray[np.bool_]]) -> None:
    _, answer, _ = backend().predict(point(CLICKS[0], SIZE), label_config=configuration("BitmaskLabels"))
    (region,) = answer["results"][0]["result"]
    assert (region["type"], region["value"]["bitmasklabels"]) == ("bitmasklabels", ["object"])
    head, _, body = region["value"]["imageDataURL"].partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(body))) as opened:
        pixels = np.asarray(opened.convert("RGBA"))
    np.testing.assert_array_equal(pixels[:, :, 3], expected[0] * np.uint8(255))
    np.testing.assert_array_equal(pixels[:, :, 0], pixels[:, :, 3])


def test_every_label_is_an_object(backend: Backend, model: Model, picture: bytes) -> None:
    caller = backend()
    regions = [point(CLICKS[0], SIZE), point(CLICKS[2], SIZE, "other"), point(CLICKS[3], SIZE)]
    _, answer, _ = caller.predict(*regions)
    found = answer["results"][0]["result"]
    assert [one["value"]["brushlabels"] for one in found] == [["object"], ["other"]]
    for region, clicks in zip(found, ([CLICKS[0], CLICKS[3]], [CLICKS[2]]), strict=True):
        with model.session() as session:
            session.set_image(picture)
            mask = session.set_clicks(clicks).mask
        np.testing.assert_array_equal(mask_of_brush(region["value"]["rle"], SIZE), mask)
    # Coming back to a label whose pixels another one took does not change what its clicks say.
    np.testing.assert_array_equal(caller.masks(CLICKS[0], CLICKS[3])[0], mask_of_brush(found[0]["value"]["rle"], SIZE))


def test_without_a_context_there_are_no_predictions_and_without_points_no_regions(
    backend: Backend, service: Service
) -> None:
    caller = backend()
    tasks = [{"id": number, "data": {"photo": PATH}} for number in (1, 2)]
    body = {"tasks": tasks, "project": "3.1", "label_config": configuration()}
    for params in (None, {}, {"context": None}):
        status, answer, _ = caller("POST", "/predict", {**body, "params": params})
        assert (status, answer) == (200, {"results": [[], []]})
    for context in ({}, {"result": []}):
        status, answer, _ = caller("POST", "/predict", {**body, "params": {"context": context}})
        assert status == 200
        assert [one["result"] for one in answer["results"]] == [[], []]
    assert not service.requests, "no picture is fetched for nothing"


def test_an_empty_mask_is_no_region(backend: Backend, echo: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with Model(echo, engine="onnxruntime") as served:
        caller = backend(served)
        assert caller.masks(Click(40, 30))
        assert caller.masks(Click(40, 30, False)) == [] or caller.masks(Click(40, 30, False))[0].any()
        from mmms_deploy.doors.label_studio import tasks

        monkeypatch.setattr(tasks.Tasks, "answer", lambda *given: tasks.Answer(np.zeros(SIZE, bool), 0.5))
        assert caller.masks(Click(40, 30)) == []


def test_another_picture_of_a_task_begins_anew(backend: Backend, service: Service) -> None:
    caller = backend()
    service.files["/other.png"] = png(np.full((*SIZE, 3), 200, np.uint8))
    first = caller.masks(CLICKS[0])[0]
    other = caller.masks(CLICKS[0], data={"photo": "/other.png"})[0]
    assert (first != other).any()
    np.testing.assert_array_equal(caller.masks(CLICKS[0])[0], first)


def test_the_token_of_the_set_up_is_the_projects(backend: Backend, service: Service) -> None:
    service.takes_legacy = True
    caller = backend(access=None)
    assert caller.predict(point(CLICKS[0], SIZE))[0] == 400
    caller("POST", "/setup", {"project": "3.1700000000", "schema": configuration(), "access_token": LEGACY})
    assert caller.masks(CLICKS[0])
    assert caller.predict(point(CLICKS[0], SIZE), task=8, project="4.1")[0] == 400
    assert [token for _, token in service.requests] == [None, f"Token {LEGACY}", None]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"image_rotation": 180}, "turned by 180 degrees"),
        ({"original_width": 81}, "the picture has 80 x 60 pixels, and Label Studio shows one of 81 x 60"),
        ({"to_name": "nothing"}, "a point is on 'nothing'"),
        ({"value": {"x": 1, "y": 1, "keypointlabels": ["dog"]}}, "has the label 'dog' (area: object, other)"),
        ({"type": "polygonlabels"}, "neither a point nor a box"),
    ],
)
def test_what_cannot_be_answered_is_said_in_the_status_line(backend: Backend, more: Any, said: str) -> None:
    """Label Studio passes on the status line of an error, and nothing else."""
    status, answer, reason = backend().predict(point(CLICKS[0], SIZE, **more))
    assert status == 400
    assert said in answer["error"]["given"]
    assert said in reason
    assert "to fix: " in reason
    assert answer["error"]["kind"] == "DoorError"


def test_a_box_for_a_network_without_boxes_is_refused(backend: Backend) -> None:
    value = {"x": 10, "y": 10, "width": 30, "height": 30, "rectanglelabels": ["object"]}
    status, _, reason = backend().predict(point(CLICKS[0], SIZE, type="rectanglelabels", value=value))
    assert status == 400
    assert "box" in reason


def test_a_box_starts_an_object_where_the_network_takes_one(backend: Backend, picture: bytes, tmp_path: Path) -> None:
    skip_without_export()
    from mmms_deploy.export.pair.description import read_pair
    from mmms_deploy.export.pair.exporter import PairSource, export_pair

    (tmp_path / "pair.toml").write_text(DESCRIPTION + "box = true\n")
    encoder, decoder = write_encoder(tmp_path / "encoder.onnx"), write_decoder(tmp_path / "decoder.onnx")
    bundle = export_pair(PairSource(encoder, decoder, read_pair(tmp_path / "pair.toml")), tmp_path / "bundle").bundle
    value = {"x": 25, "y": 10, "width": 50, "height": 75, "rectanglelabels": ["object"], "rotation": 0}
    box = point(CLICKS[0], SIZE, type="rectanglelabels", value=value)
    with Model(bundle, engine="onnxruntime") as served, served.session() as session:
        session.set_image(picture)
        wanted = [session.set_box(19.5, 5.5, 59.5, 50.5).mask, session.click(70, 50, False).mask]
        caller = backend(served)
        for regions, mask in zip(([box], [box, point(Click(70, 50, False), SIZE)]), wanted, strict=True):
            status, answer, _ = caller.predict(*regions)
            assert status == 200, answer
            (region,) = answer["results"][0]["result"]
            np.testing.assert_array_equal(mask_of_brush(region["value"]["rle"], SIZE), mask)
        assert 0 < answer["results"][0]["score"] <= 1


def test_a_reason_is_one_short_line() -> None:
    long = reason_of(DoorError("é\n" + 1000 * "x", fix="a\r\nb"))
    assert len(long) == 600
    assert long.startswith("?; xxx")
    assert reason_of(DoorError("a", expected="b", fix="c")) == "a; expected: b; to fix: c"


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/predict", b"{", "request"),
        ("/predict", {}, "missing required field `tasks`"),
        ("/predict", {"tasks": [{"id": 1}]}, "missing required field `data`"),
        ("/predict", {"tasks": [], "params": {"context": {"result": [{"type": 3}]}}}, "Expected `str`"),
        ("/predict", b"[" * 100000, "request"),
        ("/setup", {"schema": "<View"}, "is no XML"),
        ("/setup", {}, "is no XML"),
        ("/validate", {}, "missing required field `config`"),
        ("/train", {}, "not found"),
    ],
)
def test_bad_requests_are_refused_by_name(backend: Backend, path: str, body: Any, said: str) -> None:
    status, answer, _ = backend()("POST", path, body)
    assert status in (400, 404)
    assert said in answer["error"]["given"]


def test_a_method_that_is_none_is_refused(backend: Backend) -> None:
    assert backend()("GET", "/predict")[0] == 405


def test_what_is_no_picture_or_too_large_is_refused(backend: Backend, service: Service) -> None:
    service.files["/text"] = b"no picture"
    status, answer, _ = backend().predict(point(CLICKS[0], SIZE), data={"photo": "/text"})
    assert (status, answer["error"]["kind"]) == (400, "ImageError")
    status, answer, _ = backend(most_pixels=4799).predict(point(CLICKS[0], SIZE))
    assert (status, answer["error"]["kind"]) == (413, "TooLargeError")
    service.files["/long"] = bytes(3001)
    status, answer, _ = backend(upload_bytes=3000).predict(point(CLICKS[0], SIZE), data={"photo": "/long"})
    assert (status, answer["error"]["kind"]) == (413, "TooLargeError")
    assert "/long' has more than 3000 bytes" in answer["error"]["given"]


def test_a_long_body_is_refused(backend: Backend) -> None:
    status, answer, _ = backend(upload_bytes=1000)("POST", "/webhook", b"x" * 1001)
    assert (status, answer["error"]["kind"]) == (413, "TooLargeError")


def test_a_token_is_the_password_of_basic_authentication(backend: Backend) -> None:
    caller = backend(token="known")
    for given in (None, "Bearer other", "Basic !!", "Basic " + base64.b64encode(b"known").decode()):
        status, answer, _ = caller("GET", "/health", headers={} if given is None else {"Authorization": given})
        assert (status, answer["error"]["kind"]) == (401, "TokenError")
    for given in ("Bearer known", "Basic " + base64.b64encode(b"any name:known").decode()):
        assert caller("GET", "/health", headers={"Authorization": given})[0] == 200


def test_other_sites_are_refused(backend: Backend) -> None:
    caller = backend()
    assert caller("GET", "/health", headers={"Host": "evil.example"})[0] == 403
    assert caller("POST", "/predict", {}, {"Origin": "https://evil.example"})[0] == 403


def test_a_failure_is_told_and_leaves_the_session(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmms_deploy import Session

    caller = backend()
    first = caller.masks(*CLICKS[:2])[0]

    def fail(*given: object) -> None:
        raise EngineError("the engine failed", fix="try again")

    with monkeypatch.context() as patch:
        patch.setattr(Session, "set_clicks", fail)
        status, _, reason = caller.predict(point(CLICKS[0], SIZE))
        assert (status, reason) == (500, "the engine failed; to fix: try again")
    np.testing.assert_array_equal(caller.masks(*CLICKS[:2])[0], first)


class TestSessions:
    """How many sessions there are, and when they are freed."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def tasks(self, model: Model, picture: bytes, clock: Clock) -> Iterator[Tasks]:
        tasks = Tasks(
            model, Opening(), lambda *given: picture, most=2, most_pixels=1 << 20, idle_seconds=100, clock=clock
        )
        yield tasks
        tasks.close()
        assert len(tasks) == 0

    def ask(self, tasks: Tasks, key: str) -> npt.NDArray[np.bool_]:
        return tasks.answer(key, PATH, None, Prompts("pic", ("object",), SIZE, tuple(CLICKS[:1]))).mask

    def test_the_one_that_was_left_longest_ago_makes_room(self, tasks: Tasks) -> None:
        for key in ("a", "b", "a", "c"):
            self.ask(tasks, key)
        assert set(tasks._open) == {"a", "c"}

    def test_idle_ones_are_freed(self, tasks: Tasks, clock: Clock) -> None:
        self.ask(tasks, "a")
        clock.now += 60
        self.ask(tasks, "b")
        assert tasks.free_idle() == 0
        clock.now += 60
        assert tasks.free_idle() == 1
        assert set(tasks._open) == {"b"}

    def test_one_that_could_not_be_opened_takes_no_place(self, tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*given: object) -> None:
            raise EngineError("no memory for another session")

        with monkeypatch.context() as patch:
            patch.setattr(Opening, "session", fail)
            with pytest.raises(EngineError):
                self.ask(tasks, "a")
        assert len(tasks) == 0

    def test_those_at_work_are_not_freed(self, model: Model, picture: bytes) -> None:
        goes_on, began = threading.Event(), threading.Semaphore(0)

        def fetch(address: str, token: str | None) -> bytes:
            began.release()
            assert goes_on.wait(30)
            return picture

        tasks = Tasks(model, Opening(), fetch, most=1, most_pixels=1 << 20, idle_seconds=0)
        found: list[npt.NDArray[np.bool_]] = []
        threads = [threading.Thread(target=lambda: found.append(self.ask(tasks, "a"))) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert began.acquire(timeout=30)
        assert tasks.free_idle() == 0
        with pytest.raises(FullError, match="all of the 1 sessions are at work"):
            self.ask(tasks, "b")
        goes_on.set()
        for thread in threads:
            thread.join(30)
        np.testing.assert_array_equal(*found)
        self.ask(tasks, "b")
        assert set(tasks._open) == {"b"}
        tasks.close()
