"""The backend and the real Label Studio: connected, clicked, saved, exported (``make test-label-studio``)."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from mmms_deploy import Model
from mmms_deploy.doors.label_studio.brush import brush_rle
from mmms_deploy.doors.label_studio.brush_decoding import mask_of_brush
from mmms_deploy.doors.label_studio.settings import LabelStudio
from mmms_deploy.session import Click
from tests.support.label_studio import (
    OWN_MACHINE,
    LabelStudioClient,
    label_studio_path,
    python_path,
    running_label_studio,
)
from tests.support.labelling import configuration, point, running_backend
from tests.support.paths import ROOT

pytestmark = [
    pytest.mark.label_studio,
    pytest.mark.skipif(label_studio_path() is None, reason="there is no Label Studio (make test-label-studio)"),
]

PHOTO = ROOT / "docs" / "images" / "photo.jpg"
CLICKS = [Click(420, 440), Click(320, 450), Click(40, 50, False), Click(0, 0, False), Click(220.25, 130.5)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("label-studio")


@pytest.fixture(scope="module")
def server(data: Path) -> Iterator[LabelStudioClient]:
    with running_label_studio(data, **OWN_MACHINE) as url:
        yield LabelStudioClient(url)


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model("demo-small") as model:
        yield model


@pytest.fixture(scope="module")
def backend(model: Model, server: LabelStudioClient) -> Iterator[str]:
    with running_backend(model, LabelStudio(server.url, server.personal_token())) as url:
        yield url


@pytest.fixture(scope="module")
def masks(model: Model) -> list[npt.NDArray[np.bool_]]:
    """What a session answers after each click."""
    with model.session() as session:
        session.set_image(PHOTO)
        return [session.click(one.x, one.y, one.positive).mask for one in CLICKS]


def connected(server: LabelStudioClient, backend: str, project: int) -> int:
    body = {"url": backend, "project": project, "title": "mmms", "is_interactive": True}
    found = server.done("POST", "/api/ml", body)
    assert found["state"] == "CO", found
    return int(found["id"])


def clicked(server: LabelStudioClient, number: int, task: int, count: int) -> Any:
    """The answer to the first clicks as the page gets it."""
    with Image.open(PHOTO) as picture:
        size = (picture.height, picture.width)
    context = {"result": [point(one, size) for one in CLICKS[:count]]}
    return server.done("POST", f"/api/ml/{number}/interactive-annotating", {"task": task, "context": context})


def drawn(region: Any) -> npt.NDArray[np.bool_]:
    size = (region["original_height"], region["original_width"])
    if region["type"] == "brushlabels":
        return mask_of_brush(region["value"]["rle"], size)
    with Image.open(io.BytesIO(base64.b64decode(region["value"]["imageDataURL"].partition(",")[2]))) as picture:
        assert picture.size == size[::-1]
        return np.asarray(picture.convert("RGBA"))[:, :, 3] > 0


@pytest.mark.parametrize("kind", ["BrushLabels", "BitmaskLabels"])
def test_clicks_are_answered_saved_and_exported(
    server: LabelStudioClient, backend: str, masks: list[npt.NDArray[np.bool_]], kind: str
) -> None:
    project, task = server.project(configuration(kind), PHOTO.read_bytes())
    number = connected(server, backend, project)
    for count, mask in enumerate(masks, start=1):
        answer = clicked(server, number, task, count)
        assert "errors" not in answer, answer
        (region,) = answer["data"]["result"]
        assert (region["from_name"], region["to_name"], region["type"]) == ("area", "pic", kind.lower())
        np.testing.assert_array_equal(drawn(region), mask)
    server.done("POST", f"/api/tasks/{task}/annotations/", {"result": [region]})
    exported = server.done("GET", f"/api/projects/{project}/export?exportType=JSON")
    np.testing.assert_array_equal(drawn(exported[0]["annotations"][0]["result"][0]), masks[-1])
    if kind == "BrushLabels":
        status, png = server.ask("GET", f"/api/projects/{project}/export?exportType=BRUSH_TO_PNG")
        assert status == 200, png
        # One mask comes as it is, several as an archive.
        with Image.open(io.BytesIO(png)) as picture:
            np.testing.assert_array_equal(np.asarray(picture) > 0, masks[-1])


def test_without_points_nothing_is_predicted_or_stored(server: LabelStudioClient, backend: str) -> None:
    project, task = server.project(configuration(), PHOTO.read_bytes())
    number = connected(server, backend, project)
    answer = server.done("POST", f"/api/ml/{number}/interactive-annotating", {"task": task, "context": {"result": []}})
    assert answer["data"]["result"] == []
    found = server.done("POST", f"/api/ml/{number}/predict/test?random=true")
    assert found["response"] == [[]], found
    body = {"selectedItems": {"all": False, "included": [task]}}
    server.done("POST", f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}", body)
    assert server.done("GET", f"/api/predictions/?task={task}") == []


def test_a_legacy_token_is_refused_by_name_until_it_is_allowed(
    server: LabelStudioClient, model: Model, masks: list[npt.NDArray[np.bool_]]
) -> None:
    """Label Studio hands its project's owner's legacy token to models, and takes none in a new installation."""
    project, task = server.project(configuration(), PHOTO.read_bytes())
    with running_backend(model, LabelStudio(server.url)) as backend:
        number = connected(server, backend, project)
        (text,) = clicked(server, number, task, 1)["errors"]
        assert "refuses the legacy access token" in text
        assert "--access-token TOKEN" in text
        server.done("POST", "/api/jwt/settings", {"legacy_api_tokens_enabled": True, "api_tokens_enabled": True})
        try:
            (region,) = clicked(server, number, task, 1)["data"]["result"]
        finally:
            server.done("POST", "/api/jwt/settings", {"legacy_api_tokens_enabled": False, "api_tokens_enabled": True})
        np.testing.assert_array_equal(drawn(region), masks[0])


def test_a_configuration_that_sends_no_points_is_refused_when_it_is_connected(
    server: LabelStudioClient, backend: str
) -> None:
    project, _ = server.project(configuration(smart=False), PHOTO.read_bytes())
    status, answer = server.call("POST", "/api/ml", {"url": backend, "project": project, "is_interactive": True})
    assert status == 400
    assert "has no smart tag: points of dots" in json.dumps(answer)


def test_a_token_of_the_backend_is_the_password(server: LabelStudioClient, model: Model) -> None:
    project, _ = server.project(configuration(), PHOTO.read_bytes())
    with running_backend(model, LabelStudio(server.url), token="known") as backend:
        body = {"url": backend, "project": project, "is_interactive": True}
        status, answer = server.call("POST", "/api/ml", body)
        assert status == 400
        assert "authentication parameters" in json.dumps(answer)
        known = {**body, "auth_method": "BASIC_AUTH", "basic_auth_user": "any", "basic_auth_pass": "known"}
        assert server.done("POST", "/api/ml", known)["state"] == "CO"


def test_models_on_its_own_machine_are_refused_unless_it_is_told(
    server: LabelStudioClient, backend: str, data: Path, tmp_path: Path
) -> None:
    project, _ = server.project(configuration(), PHOTO.read_bytes())
    copy = tmp_path / "data"
    subprocess.run(["cp", "-r", str(data), str(copy)], check=True)
    for allowed in ({}, {"ML_BLOCK_LOCAL_IP": "false"}):
        with running_label_studio(copy, **allowed) as url:
            body = {"url": backend, "project": project, "is_interactive": True}
            status, answer = LabelStudioClient(url).call("POST", "/api/ml", body)
            assert status == 403, answer
            assert "reserved network address" in json.dumps(answer)


def test_the_bytes_are_those_of_its_own_encoder() -> None:
    """Random masks through ``label_studio_sdk``: the same bytes as ``mask2rle``, and back by ``decode_rle``."""
    random = np.random.default_rng(7)
    given = [np.ones((1, 1), bool), np.zeros((1, 1), bool), np.ones((300, 300), bool), np.zeros((129, 254), bool)]
    for _ in range(60):
        size = tuple(random.integers(1, 90, 2))
        scale = int(random.integers(1, 12))
        coarse = random.random((-(-size[0] // scale), -(-size[1] // scale))) < random.random()
        given.append(np.kron(coarse, np.ones((scale, scale), bool))[: size[0], : size[1]])
    program = """
import json, sys
import numpy as np
from label_studio_sdk.converter.brush import decode_rle, mask2rle
answers = []
for size, bits, ours in json.load(sys.stdin):
    mask = np.array(bits, dtype=np.uint8).reshape(size)
    back = decode_rle(ours).reshape(*size, 4)
    answers.append([mask2rle(mask * 255) == ours, bool((back == mask[:, :, None] * 255).all())])
json.dump(answers, sys.stdout)
"""
    sent = json.dumps([[one.shape, one.astype(int).ravel().tolist(), brush_rle(one)] for one in given], default=int)
    python = python_path()
    assert python is not None
    found = subprocess.run([python, "-c", program], input=sent, capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == [[True, True]] * len(given)
