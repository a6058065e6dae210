"""The ``model.py`` of the Python form as Triton runs it, on a stand-in of its backend."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Session
from mmms_deploy.bundle import Bundle
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.doors.opening import Opening
from mmms_deploy.doors.triton.repository import write_repository
from mmms_deploy.doors.triton.settings import RepositorySettings
from tests.standins import triton_backend
from tests.support.toy import write_toy
from tests.support.triton import read_pbtxt

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
OTHER = np.random.default_rng(1).integers(0, 256, (33, 21, 3), dtype=np.uint8)
OPENING = Opening(engine="onnxruntime")
Send = Callable[..., Any]


@pytest.fixture(autouse=True)
def backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", triton_backend)


def started(folder: Path, bundle: Bundle, **settings: Any) -> Any:
    """A model as Triton starts it."""
    write_repository(folder / "models", bundle, RepositorySettings(name="toy", opening=OPENING, **settings))
    return opened(folder)


def opened(folder: Path) -> Any:
    config = read_pbtxt((folder / "models" / "toy" / "config.pbtxt").read_text())
    config["parameters"] = {one["key"]: one["value"] for one in config["parameters"]}
    model = runpy.run_path(str(folder / "models" / "toy" / "1" / "model.py"))["TritonPythonModel"]()
    model.initialize(
        {"model_config": json.dumps(config), "model_repository": str(folder / "models" / "toy"), "model_version": "1"}
    )
    return model


@pytest.fixture
def model(tmp_path: Path, paint: Bundle) -> Iterator[Any]:
    made = started(tmp_path, paint)
    yield made
    made.finalize()


def send(model: Any, sequence: int, *, start: bool = False, end: bool = False, **inputs: Any) -> Any:
    """The mask, or the error."""
    tensors = {
        "START": np.array([start], np.int32),
        "END": np.array([end], np.int32),
        "CORRID": np.array([sequence], np.uint64),
        **inputs,
    }
    (response,) = model.execute([triton_backend.InferenceRequest(tensors)])
    return response.outputs["mask"] if response.failed is None else response.failed


def click(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float64)


def text(word: str) -> np.ndarray:
    return np.array([word.encode()], object)


def test_a_sequence_is_a_session(model: Any, paint: Bundle) -> None:
    with Session(paint, engine="onnxruntime") as session:
        session.set_image(IMAGE)
        blank = send(model, 7, start=True, image=IMAGE)
        assert (blank.dtype, blank.shape, blank.any()) == (np.uint8, (40, 60), False)
        assert (send(model, 7, click=click(20.25, 10, 1)) == session.click(20.25, 10).mask).all()
        assert (send(model, 7, click=click(40, 30, 0)) == session.click(40, 30, positive=False).mask).all()
        assert (send(model, 7) == session.mask).all(), "a request without anything asks where it stands"
        assert (send(model, 7, action=text("undo")) == session.undo().mask).all()
        assert (send(model, 7, action=text("redo")) == session.redo().mask).all()
        clicks = [[20.25, 10, 1], [5, 5, 1]]
        assert (send(model, 7, clicks=np.array(clicks)) == session.set_clicks(clicks).mask).all()
        assert not send(model, 7, action=text("reset")).any()
        assert not send(model, 7, clicks=np.zeros((0, 3))).any()


def test_sequences_are_apart_and_a_picture_follows_another(model: Any, paint: Bundle) -> None:
    file = BytesIO()
    Image.fromarray(OTHER).save(file, format="PNG")
    with Session(paint, engine="onnxruntime") as one, Session(paint, engine="onnxruntime") as other:
        one.set_image(IMAGE)
        other.set_image(OTHER)
        send(model, 1, start=True, image=IMAGE)
        first = send(model, 2, start=True, image_file=np.array([file.getvalue()], object), click=click(3, 4, 1))
        assert (first == other.click(3, 4).mask).all()
        assert (send(model, 1, click=click(9, 9, 1)) == one.click(9, 9).mask).all()
        assert (send(model, 2, click=click(15, 20, 1)) == other.click(15, 20).mask).all()
        one.set_image(OTHER)
        assert (send(model, 1, image=OTHER, click=click(1, 2, 1)) == one.click(1, 2).mask).all()
        assert send(model, 2, end=True).shape == (33, 21)
        assert "the sequence 2 is not open" in send(model, 2).text
        assert not send(model, 1, start=True, image=IMAGE).any(), "begun again"
        assert len(model.serving._sequences) == 1


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"click": click(99, 1, 1)}, "outside of the image\n  expected: -0.5 <= x < 59.5"),
    ({"click": click(1, 1, 2)}, "positive=2"),
    ({"click": click(np.nan, 1, 1)}, "nan"),
    ({"click": click(1, 1)}, "click has the shape (2,)\n  expected: (3,): x, y, 1 or 0"),
    ({"clicks": click(1, 1, 1)}, "clicks has the shape (3,)\n  expected: (N, 3)"),
    ({"action": text("unod")}, "action is 'unod'\n  expected: one of undo, redo, reset\n  to fix: correct the word"),
    ({"action": text("redo")}, "nothing to redo"),
    ({"action": text("undo"), "click": click(1, 1, 1)}, "a request has click and action"),
    ({"image": OTHER, "image_file": text("no")}, "a request has image and image_file"),
    ({"image_file": text("no picture")}, "image"),
    ({"image_file": np.array([b"1", b"2"], object)}, "image_file has the shape (2,)"),
    ({"image": OTHER, "click": click(50, 1, 1)}, "outside of the image"),
    ({"image": OTHER, "action": text("undo")}, "nothing to undo"),
]


@pytest.mark.parametrize(("inputs", "message"), REFUSED, ids=[message[:24] for _, message in REFUSED])
def test_what_is_refused_leaves_the_session_as_it_was(model: Any, inputs: dict[str, Any], message: str) -> None:
    send(model, 3, start=True, image=IMAGE)
    before = send(model, 3, click=click(20, 10, 1))
    error = send(model, 3, **inputs)
    assert isinstance(error, triton_backend.TritonError)
    assert message in error.text
    assert "to fix: " in error.text
    assert error.code == triton_backend.TritonError.INVALID_ARG
    assert (send(model, 3) == before).all()
    assert send(model, 3, action=text("undo")).shape == (40, 60)


def test_a_click_before_the_picture(model: Any) -> None:
    assert "the sequence 5 has no picture yet" in send(model, 5, start=True, click=click(1, 1, 1)).text
    assert send(model, 5, image=IMAGE, click=click(1, 1, 1)).shape == (40, 60), "it goes on"
    assert "not open" in send(model, 6, click=click(1, 1, 1)).text


def test_a_request_that_cannot_be_read_ends_its_sequence_too(model: Any) -> None:
    send(model, 5, start=True, image=IMAGE)
    assert "shape" in send(model, 5, end=True, click=click(1)).text
    assert len(model.serving._sequences) == 0


def test_modalities(tmp_path: Path) -> None:
    heat = np.random.default_rng(2).random((40, 60), dtype=np.float32)
    bundle = write_toy(tmp_path / "late", modalities=(ModalitySpec(name="heat", optional=True),))
    model = started(tmp_path, bundle)
    config = read_pbtxt((tmp_path / "models" / "toy" / "config.pbtxt").read_text())
    assert config["input"][-1] == {"name": "heat", "data_type": "TYPE_FP32", "dims": [-1, -1, -1], "optional": True}
    with Session(bundle, engine="onnxruntime") as session:
        session.set_image(IMAGE, heat=heat)
        mask = send(model, 1, start=True, image=IMAGE, heat=heat[..., None], click=click(9, 9, 1))
        assert (mask == session.click(9, 9).mask).all()
        session.set_modalities(heat=1 - heat)
        assert (send(model, 1, heat=(1 - heat)[..., None]) == session.mask).all()
        assert "without a picture" in send(model, 1, heat=heat[..., None], click=click(9, 9, 1)).text
        assert "rows" in send(model, 1, heat=heat[1:, :, None]).text
        assert (send(model, 1) == session.mask).all()
    model.finalize()


def test_the_bundle_lies_in_the_repository_or_elsewhere(tmp_path: Path, paint: Bundle) -> None:
    model = started(tmp_path, paint, copy=False, python_path=(tmp_path / "packages",))
    assert not (tmp_path / "models" / "toy" / "1" / "bundle").exists()
    assert model.serving._model.bundle.path == paint.path.resolve()
    assert sys.path[0] == str(tmp_path / "packages")
    sys.path.pop(0)
    model.finalize()
    (tmp_path / "models").rename(tmp_path / "other")
    model = started(tmp_path, paint)
    assert model.serving._model.bundle.path == tmp_path / "models" / "toy" / "1" / "bundle"
    model.finalize()


def test_a_numpy_that_the_stub_does_not_understand(
    tmp_path: Path, paint: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_backend.Tensor, "understood", staticmethod(lambda array: np.full_like(array, array[0])))
    if int(np.__version__.partition(".")[0]) < 2:
        pytest.skip("NumPy 1 is what every stub understands")
    with pytest.raises(Exception, match=r'does not understand arrays of NumPy [\s\S]*"numpy<2"'):
        started(tmp_path, paint)
