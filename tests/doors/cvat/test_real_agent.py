"""The real ``cvat-cli`` runs the function against a stand-in of a CVAT server, and nuclio's SDK calls the other one.

``make test-cvat`` installs what these tests need.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import logging
import os
import runpy
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Session
from mmms_deploy.bundle import Bundle
from mmms_deploy.doors.cvat.conformance import placed
from mmms_deploy.doors.cvat.function_folder import write_function
from mmms_deploy.doors.cvat.order import split
from mmms_deploy.doors.cvat.prompts import as_point
from mmms_deploy.session import Click
from tests.standins import cvat_sdk as standin
from tests.standins import cvat_server
from tests.support.paths import ROOT

pytestmark = [
    pytest.mark.cvat,
    *(
        pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed (make test-cvat)")
        for name in ("cvat_sdk", "cvat_cli", "nuclio_sdk")
    ),
]

MODULE = "mmms_deploy.doors.cvat"
PHOTO = ROOT / "docs/images/photo.jpg"
BUNDLE = "demo-small"
CLICKS = [Click(420, 440), Click(60, 50, False), Click(320, 450), Click(10.25, 400.75, False), Click(300, 300)]


def points(clicks: list[Click]) -> tuple[list[list[float]], list[list[float]]]:
    """The two lists of a request."""
    positives, negatives = split(clicks)
    return [list(as_point(c)) for c in positives], [list(as_point(c)) for c in negatives]


@pytest.fixture(scope="module")
def pixels() -> Any:
    with Image.open(PHOTO) as photo:
        return np.asarray(photo.convert("RGB"))


@pytest.fixture
def cvat(pixels: Any) -> Iterator[cvat_server.Cvat]:
    """A server with a task of the photograph and a black picture."""
    black = io.BytesIO()
    Image.new("RGB", (64, 48)).save(black, "PNG")
    height, width, _ = pixels.shape
    with cvat_server.running([(PHOTO.read_bytes(), (width, height)), (black.getvalue(), (64, 48))]) as server:
        yield server


@pytest.fixture
def answers(pixels: Any) -> Iterator[Any]:
    """A session's own masks of the photograph, or of a part of it."""
    with Session(BUNDLE, engine="onnxruntime") as session:

        def answer(clicks: Any, roi: tuple[int, int, int, int] | None = None) -> Any:
            x0, y0, x1, y1 = roi or (0, 0, pixels.shape[1], pixels.shape[0])
            session.set_image(np.ascontiguousarray(pixels[y0:y1, x0:x1]))
            return session.set_clicks(clicks).mask

        yield answer


def cli(cvat: cvat_server.Cvat, folder: Path, *words: str, bundle: str = BUNDLE) -> subprocess.CompletedProcess[str]:
    """Run ``cvat-cli function`` with the function's module."""
    server, _, port = cvat.url.rpartition(":")
    command = [sys.executable, "-m", "cvat_cli", "--server-host", server, "--server-port", port, "function", *words]
    options = ["--function-module", MODULE, "-p", f"bundle=str:{bundle}", "-p", "engine=str:onnxruntime"]
    folder.mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "CVAT_ACCESS_TOKEN": cvat.token,
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(folder),
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(
        [*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert not cvat.unknown, cvat.unknown
    return done


def run_agent(cvat: cvat_server.Cvat, folder: Path) -> subprocess.CompletedProcess[str]:
    """Create the function, and answer all that is in the queue."""
    created = cli(cvat, folder, "create-native", "mmms")
    assert created.returncode == 0, created.stderr
    done = cli(cvat, folder, "run-agent", created.stdout.strip(), "--burst")
    assert done.returncode == 0, done.stderr
    return done


def decoded(shapes: list[dict[str, Any]], size: tuple[int, int]) -> Any:
    from cvat_sdk.masks import decode_mask

    (shape,) = shapes
    assert shape["type"] == "mask"
    return decode_mask(shape["points"], image_width=size[1], image_height=size[0])


def test_the_function_is_created_as_it_says(cvat: cvat_server.Cvat, tmp_path: Path) -> None:
    done = cli(cvat, tmp_path / "tmp", "create-native", "My function")
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    created = cvat.functions[1]
    assert (created["provider"], created["kind"], created["name"]) == ("native", "interactor", "My function")
    assert (created["min_pos_points"], created["min_neg_points"]) == (1, 0)
    assert not created["startswith_box"]
    assert not created["startswith_box_optional"]


def test_masks_that_arrive_are_those_of_a_session(
    cvat: cvat_server.Cvat, answers: Any, pixels: Any, tmp_path: Path
) -> None:
    for count in range(1, len(CLICKS) + 1):
        cvat.ask(*points(CLICKS[:count]))
    cvat.ask(*points(CLICKS[:2]))  # three clicks are undone
    cvat.ask(*points([CLICKS[4]]))  # another object
    run_agent(cvat, tmp_path / "tmp")
    assert cvat.failed == []
    assert cvat.downloads == [0], "the picture came once"
    wanted = [*(CLICKS[:count] for count in range(1, len(CLICKS) + 1)), CLICKS[:2], [CLICKS[4]]]
    assert len(cvat.completed) == len(wanted)
    for shapes, clicks in zip(cvat.completed, wanted, strict=True):
        expected = answers(clicks)
        assert 0 < expected.sum() < expected.size
        np.testing.assert_array_equal(decoded(shapes, pixels.shape[:2]), expected)
        assert shapes[0]["points"] == standin.encode_mask(expected, box_of(expected))


def box_of(mask: Any) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_the_order_is_that_of_the_rule_where_it_is_lost(
    cvat: cvat_server.Cvat, answers: Any, pixels: Any, tmp_path: Path
) -> None:
    cvat.ask(*points(CLICKS))  # five at once: nothing says their order
    cvat.ask(*points([CLICKS[4]]))
    cvat.ask(*points([CLICKS[4], CLICKS[1], CLICKS[0], CLICKS[3]]))  # three more at once
    run_agent(cvat, tmp_path / "tmp")
    positives, negatives = split(CLICKS)
    after = [CLICKS[4], CLICKS[0], CLICKS[1], CLICKS[3]]
    for shapes, clicks in zip(cvat.completed, [[*positives, *negatives], [CLICKS[4]], after], strict=True):
        np.testing.assert_array_equal(decoded(shapes, pixels.shape[:2]), answers(clicks))


def test_a_region_of_interest_is_a_picture_of_its_own(cvat: cvat_server.Cvat, answers: Any, tmp_path: Path) -> None:
    roi = (100, 200, 400, 500)
    clicks = [Click(150, 120), Click(20, 20, False), Click(200, 250)]
    for count in (1, 2, 3):
        cvat.ask(*points(clicks[:count]), roi=list(roi))
    cvat.ask(*points(CLICKS[:1]))
    run_agent(cvat, tmp_path / "tmp")
    assert cvat.failed == []
    for count in (1, 2, 3):
        found = decoded(cvat.completed[count - 1], (300, 300))
        np.testing.assert_array_equal(found, answers(clicks[:count], roi))
    np.testing.assert_array_equal(decoded(cvat.completed[3], (512, 512)), answers(CLICKS[:1]))


def test_an_empty_mask_arrives_as_no_shape(cvat: cvat_server.Cvat, paint: Bundle, tmp_path: Path) -> None:
    created = cli(cvat, tmp_path / "tmp", "create-native", "toy", bundle=str(paint.path))
    # Two clicks on one place: the negative one takes the whole of the positive one's disk away.
    cvat.ask(*points([Click(20, 20), Click(20, 20, False)]), frame=1)
    done = cli(cvat, tmp_path / "tmp", "run-agent", created.stdout.strip(), "--burst", bundle=str(paint.path))
    assert done.returncode == 0, done.stderr
    assert (cvat.completed, cvat.failed) == ([[]], [])


def test_what_is_wrong_reaches_the_annotator_and_the_next_request_is_answered(
    cvat: cvat_server.Cvat, answers: Any, pixels: Any, tmp_path: Path
) -> None:
    cvat.ask([[4000.0, 3.0]], [])
    cvat.ask(*points(CLICKS[:1]))
    run_agent(cvat, tmp_path / "tmp")
    (said,) = cvat.failed
    assert "outside of the image" in said
    np.testing.assert_array_equal(decoded(cvat.completed[1], pixels.shape[:2]), answers(CLICKS[:1]))


def test_nothing_stays_on_the_disk(cvat: cvat_server.Cvat, tmp_path: Path) -> None:
    cvat.ask(*points(CLICKS[:1]))
    run_agent(cvat, tmp_path / "tmp")
    assert [path.name for path in (tmp_path / "tmp").rglob("*") if "mmms" in path.name] == []


def test_an_unknown_setting_is_named_when_the_agent_starts(cvat: cvat_server.Cvat, tmp_path: Path) -> None:
    done = cli(cvat, tmp_path / "tmp", "create-native", "mmms", "-p", "engin=str:openvino")
    assert done.returncode != 0
    assert "engin" in done.stderr
    assert "did you mean" in done.stderr
    assert cvat.functions == {}


def test_the_stand_in_of_the_sdk_takes_what_the_real_one_takes() -> None:
    import cvat_sdk.auto_annotation as real
    from cvat_sdk.masks import decode_mask, encode_mask

    assert {"BadFunctionError", "InteractionFunctionSpec", "InteractionResultShape"} <= set(dir(real))
    for values in ((1, 0, None), (0, 0, 0)):
        names = ("min_pos_points", "min_neg_points", "min_bounding_boxes")
        arguments: Any = dict(zip(names, values, strict=True))
        specs = real.InteractionFunctionSpec(**arguments), standin.InteractionFunctionSpec(**arguments)
        assert [[getattr(spec, name) for name in names] for spec in specs] == [list(values)] * 2
    random = np.random.default_rng(0)
    for _ in range(50):
        mask = random.random((7, 9)) < 0.3
        mask[3, 4] = True
        box = box_of(mask)
        points = encode_mask(mask)
        assert points == encode_mask(mask, box) == standin.encode_mask(mask, box)
        for decode in (decode_mask, standin.decode_mask):
            np.testing.assert_array_equal(decode(points, image_width=9, image_height=7), mask)


def test_nuclio_calls_the_written_function(answers: Any, pixels: Any, tmp_path: Path) -> None:
    import nuclio_sdk

    wheel = tmp_path / "mmms_deploy-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("mmms_deploy/__init__.py", "")
    folder = write_function(tmp_path / "function", BUNDLE, wheel, settings={"engine": "onnxruntime"})
    made = runpy.run_path(str(folder / "main.py"))
    context = nuclio_sdk.Context(logger=nuclio_sdk.Logger(logging.ERROR))
    context.logger.set_handler("test", io.StringIO(), nuclio_sdk.logger.JSONFormatter())
    made["init_context"](context)
    image = base64.b64encode(PHOTO.read_bytes()).decode()
    for count in range(1, len(CLICKS) + 1):
        positives, negatives = points(CLICKS[:count])
        body = {"image": image, "pos_points": positives, "neg_points": negatives, "obj_bbox": None}
        response = made["handler"](context, nuclio_sdk.Event(body=body))
        sent = nuclio_sdk.Response.from_entrypoint_output(json.dumps, response)
        assert (sent["status_code"], sent["content_type"], sent["body_encoding"]) == (200, "application/json", "text")
        np.testing.assert_array_equal(placed(json.loads(sent["body"]), pixels.shape[:2]), answers(CLICKS[:count]))
    response = made["handler"](context, nuclio_sdk.Event(body=b"no JSON"))
    assert response.status_code == 400
    assert "not what CVAT sends" in json.loads(response.body)["error"]
    context.user_data.function.close()
