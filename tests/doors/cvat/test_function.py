"""The nuclio function: requests as CVAT's server posts them, answers as its page takes them."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from mmms_deploy import Session
from mmms_deploy.bundle import Bundle
from mmms_deploy.doors.cvat import function as function_module
from mmms_deploy.doors.cvat.conformance import placed
from mmms_deploy.doors.cvat.function import BAD_REQUEST, FAILED, OK, Function, rows_of
from mmms_deploy.doors.cvat.prompts import as_point
from mmms_deploy.errors import DoorError, EngineError
from mmms_deploy.session import Click

CLICKS = [Click(20, 10), Click(5, 30, False), Click(60, 25), Click(33, 3)]
SIZE = (40, 70)


def picture(seed: int = 1) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def text_of(pixels: Any, form: str = "PNG") -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return base64.b64encode(stream.getvalue()).decode()


def request(image: str, clicks: list[Click], **more: Any) -> dict[str, Any]:
    positives = [list(as_point(c)) for c in clicks if c.positive]
    negatives = [list(as_point(c)) for c in clicks if not c.positive]
    return {"image": image, "pos_points": positives, "neg_points": negatives, "obj_bbox": None, **more}


class Log:
    """A logger of nuclio, as far as the function uses it."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def error(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def opened(paint: Bundle) -> Iterator[Any]:
    """Opens functions on ``paint``, and closes them."""
    there: list[Function] = []

    def make(**settings: Any) -> Function:
        there.append(Function(paint.path, engine="onnxruntime", **settings))
        return there[-1]

    yield make
    for one in there:
        one.close()


def answered(function: Function, body: object) -> dict[str, Any]:
    status, text = function.answer(body)
    assert status == OK, text
    return json.loads(text)


@pytest.mark.parametrize("settings", [{}, {"whole_image": True}])
def test_masks_are_those_of_a_session(opened: Any, paint: Bundle, settings: dict) -> None:
    function, pixels = opened(**settings), picture()
    image = text_of(pixels)
    with Session(paint, engine="onnxruntime") as session:
        session.set_image(pixels)
        for count in range(1, len(CLICKS) + 1):
            answer = answered(function, request(image, CLICKS[:count]))
            assert ("bounds" in answer) == (not settings)
            np.testing.assert_array_equal(placed(answer, SIZE), session.set_clicks(CLICKS[:count]).mask)


def test_a_picture_that_comes_again_is_neither_decoded_nor_encoded(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    load = function_module.load_rgb
    monkeypatch.setattr(function_module, "load_rgb", lambda content: decoded.append(content) or load(content))
    function = opened(sessions=2)
    images = [text_of(picture(seed)) for seed in range(3)]
    for count in (1, 2, 3):
        for image in images[:2]:
            answered(function, request(image, CLICKS[:count]))
    assert len(decoded) == 2
    for image in images * 2:
        answered(function, request(image, CLICKS[:1]))
    assert len(decoded) == 6, "three pictures and two sessions: the first two were there"
    assert function._model.runs["image"] == 3, "and none is encoded again"


def test_the_rows_of_an_empty_mask_are_one_pixel(opened: Any) -> None:
    image = text_of(np.zeros((*SIZE, 3), dtype=np.uint8))
    for clicks in ([], [Click(20, 10, False)]):
        assert answered(opened(), request(image, clicks)) == {"mask": [[0]], "bounds": [0, 0, 0, 0]}
    whole = answered(opened(whole_image=True), request(image, []))
    assert whole == {"mask": np.zeros(SIZE, dtype=int).tolist()}


@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
@settings(deadline=None)
def test_rows_are_json(mask: Any) -> None:
    assert json.loads(rows_of(mask)) == mask.astype(int).tolist()


def test_a_request_may_be_text_or_what_nuclio_made_of_it(opened: Any) -> None:
    function, body = opened(), request(text_of(picture()), CLICKS[:1])
    answers = [answered(function, one) for one in (body, json.dumps(body), json.dumps(body).encode())]
    assert answers[0] == answers[1] == answers[2]
    assert answered(function, {**body, "obj_bbox": [], "mapping": {}, "threshold": 0.5}) == answers[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": "%%%"}, "no base64"),
        ({"image": base64.b64encode(b"%PDF-1.4 text").decode()}, "the picture of a request"),
        ({"image": text_of(picture())[:200]}, "the picture of a request|the image"),
        ({"image": 5}, "not what CVAT sends"),
        ({"pos_points": "here"}, "not what CVAT sends"),
        ({"pos_points": [[1]]}, "pos_points"),
        ({"pos_points": [[500, 3]]}, "outside of the image"),
        ({"obj_bbox": [[1, 2], [30, 20]]}, "takes points, no boxes"),
        ({"obj_bbox": [[1, 2]]}, "the box of a request"),
    ],
)
def test_a_wrong_request_is_answered_with_400_and_what_is_wrong(opened: Any, change: dict, said: str) -> None:
    function, log = opened(), Log()
    body = {**request(text_of(picture()), CLICKS[:1]), **change}
    status, text = function.answer(body, log)
    assert status == BAD_REQUEST
    assert list(json.loads(text)) == ["error"]
    assert re.search(said, json.loads(text)["error"])
    assert log.said == [json.loads(text)["error"]]


@pytest.mark.parametrize("body", [None, 5, b"\xff", b"", "{", {}, [], {"image": None}])
def test_what_is_no_request_is_answered_with_400(opened: Any, body: object) -> None:
    status, text = opened().answer(body)
    assert status == BAD_REQUEST
    assert json.loads(text)["error"]


def test_large_pictures_are_refused_before_they_are_decoded(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_module, "load_rgb", lambda content: pytest.fail("it was decoded"))
    status, text = opened(most_pixels=SIZE[0] * SIZE[1] - 1).answer(request(text_of(picture()), CLICKS[:1]))
    assert (status, "70 x 40 pixels" in text) == (BAD_REQUEST, True)
    monkeypatch.setattr(function_module, "REQUEST_BYTES", 100)
    status, text = opened().answer(request(text_of(picture()), CLICKS[:1]))
    assert (status, "characters" in text) == (BAD_REQUEST, True)


@pytest.mark.parametrize("error", [EngineError("the engine failed"), MemoryError("no memory")])
def test_what_is_not_the_requests_fault_is_answered_with_500(
    opened: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*args: object) -> None:
        raise error

    function, log = opened(), Log()
    monkeypatch.setattr(function._frames, "answer", fail)
    status, text = function.answer(request(text_of(picture()), CLICKS[:1]), log)
    assert status == FAILED
    assert str(error) in json.loads(text)["error"]
    assert str(error) in log.said[0]


def test_a_refused_request_leaves_the_clicks_as_they_were(opened: Any) -> None:
    function, image = opened(), text_of(picture())
    before = [answered(function, request(image, CLICKS[:count])) for count in (1, 2, 3)][-1]
    assert function.answer(request(image, [*CLICKS[:3], Click(500, 3)]))[0] == BAD_REQUEST
    assert answered(function, request(image, CLICKS[:3])) == before
    assert next(iter(function._frames._sessions.values())).runs["click"] == 3


def test_nuclio_gets_a_response(opened: Any) -> None:
    context = SimpleNamespace(logger=None, Response=SimpleNamespace)
    response = opened().respond(context, SimpleNamespace(body=request(text_of(picture()), CLICKS[:1])))
    assert (response.status_code, response.content_type, response.headers) == (OK, "application/json", {})
    assert json.loads(response.body)["mask"]


def test_a_setting_of_another_name_is_refused(paint: Bundle) -> None:
    with pytest.raises(DoorError, match="sessions"):
        Function(paint.path, sesions=3)


def test_a_network_that_needs_more_than_pictures_is_refused(modal: Bundle) -> None:
    with pytest.raises(DoorError, match="needs depth, event"):
        Function(modal.path)


def test_json_of_a_large_mask_is_made_without_a_list_of_its_pixels() -> None:
    mask = np.zeros((1200, 1600), dtype=np.bool_)
    mask[300:900, 200:1000] = True
    assert msgspec.json.decode(rows_of(mask), type=list[list[int]])[300][199:201] == [0, 1]
