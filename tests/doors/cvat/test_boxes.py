"""A box, where the network takes one: CVAT offers it, and the answer is that of ``set_box`` and the clicks after it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Session
from mmms_deploy.bundle import Bundle
from mmms_deploy.doors.cvat import create
from mmms_deploy.doors.cvat.conformance import placed
from mmms_deploy.doors.cvat.function import Function
from mmms_deploy.doors.cvat.function_folder import _yaml
from mmms_deploy.doors.cvat.prompts import as_point
from mmms_deploy.session import Click
from tests.support.exporting import skip_without_export
from tests.support.joint import write_joint

yaml = pytest.importorskip("yaml")

PIXELS = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
SIZE = PIXELS.shape[:2]
CORNERS = ((70.5, 10.5), (20.5, 50.5))
BOX = (20.0, 10.0, 70.0, 50.0)
CLICKS = [Click(40, 30), Click(75, 55, False), Click(30, 20)]


@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small encoder and decoder, of which the decoder takes a box."""
    skip_without_export()
    from mmms_deploy.export.pair.description import read_pair
    from mmms_deploy.export.pair.exporter import PairSource, export_pair
    from tests.support.pair import DESCRIPTION, write_decoder, write_encoder

    folder = tmp_path_factory.mktemp("boxed")
    description = folder / "pair.toml"
    description.write_text(DESCRIPTION + "box = true\n")
    files = write_encoder(folder / "encoder.onnx"), write_decoder(folder / "decoder.onnx")
    return export_pair(PairSource(*files, read_pair(description)), folder / "bundle").bundle


@pytest.fixture
def expected(boxed: Bundle) -> Iterator[Any]:
    """Masks of a session after the box and some clicks."""
    with Session(boxed, engine="onnxruntime") as session:
        session.set_image(PIXELS)

        def mask(count: int) -> Any:
            session.reset()
            session.set_box(*BOX)
            for click in CLICKS[:count]:
                session.click(click.x, click.y, click.positive)
            return session.mask

        yield mask


def lists(count: int) -> tuple[list[Any], list[Any]]:
    clicks = CLICKS[:count]
    return [as_point(c) for c in clicks if c.positive], [as_point(c) for c in clicks if not c.positive]


def test_an_agent_offers_a_box_and_answers_it(sdk: None, boxed: Bundle, expected: Any) -> None:
    from cvat_sdk.masks import decode_mask

    interactor = create(str(boxed.path), engine="onnxruntime")
    try:
        spec = interactor.spec
        assert (spec.min_pos_points, spec.min_neg_points, spec.min_bounding_boxes) == (0, 0, 0)
        frame = interactor.preprocess_image(None, Image.fromarray(PIXELS))
        for count in range(len(CLICKS) + 1):
            positives, negatives = lists(count)
            prompts = SimpleNamespace(pos_points=positives, neg_points=negatives, bounding_box=CORNERS)
            (shape,) = interactor.detect(None, frame, prompts)
            found = decode_mask(shape.points, image_width=SIZE[1], image_height=SIZE[0])
            np.testing.assert_array_equal(found, expected(count))
        (session,) = interactor._frames._sessions.values()
        assert session.runs["click"] == 1 + len(CLICKS), "the box and every click ran once"
    finally:
        interactor.close()


def test_a_function_offers_a_box_and_answers_it(boxed: Bundle, expected: Any) -> None:
    annotations = yaml.safe_load(_yaml("boxed", boxed, "x.whl"))["metadata"]["annotations"]
    assert (annotations["min_pos_points"], annotations["startswith_box_optional"]) == (0, True)
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "PNG")
    image = base64.b64encode(stream.getvalue()).decode()
    function = Function(boxed.path, engine="onnxruntime")
    try:
        for count in range(len(CLICKS) + 1):
            positives, negatives = lists(count)
            body = {"image": image, "pos_points": positives, "neg_points": negatives, "obj_bbox": CORNERS}
            status, text = function.answer(json.dumps(body))
            assert status == 200, text
            np.testing.assert_array_equal(placed(json.loads(text), SIZE), expected(count))
    finally:
        function.close()


def test_a_network_of_several_objects_answers_for_one_at_a_time(sdk: None, tmp_path: Path) -> None:
    from cvat_sdk.masks import decode_mask

    bundle = write_joint(tmp_path / "joint")
    interactor = create(str(bundle.path), engine="onnxruntime")
    with Session(bundle, engine="onnxruntime") as session:
        session.set_image(PIXELS)
        frame = interactor.preprocess_image(None, Image.fromarray(PIXELS))
        for clicks in ([CLICKS[0]], CLICKS[:2], CLICKS, [Click(80, 50)]):
            prompts = SimpleNamespace(
                pos_points=[as_point(c) for c in clicks if c.positive],
                neg_points=[as_point(c) for c in clicks if not c.positive],
                bounding_box=None,
            )
            shapes = interactor.detect(None, frame, prompts)
            expected = session.set_clicks(clicks).mask
            assert expected.any()
            found = decode_mask(shapes[0].points, image_width=SIZE[1], image_height=SIZE[0])
            np.testing.assert_array_equal(found, expected)
    interactor.close()
