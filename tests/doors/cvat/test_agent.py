"""The agent's function, called as the agent's driver calls it: masks of a session, memory with limits, errors told."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import warnings
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
from mmms_deploy.doors.cvat.agent import AgentSettings, Frame, Interactor
from mmms_deploy.doors.cvat.prompts import as_point
from mmms_deploy.errors import BundleNotFoundError, DoorError, MMMSDeployWarning
from mmms_deploy.files import MIB
from mmms_deploy.session import Click
from tests.support.paths import ROOT

CLICKS = [Click(20, 10), Click(5, 30, False), Click(60, 25), Click(33, 3), Click(40, 30, False)]
SIZE = (40, 70)


def picture(seed: int, size: tuple[int, int] = SIZE) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def prompts(clicks: list[Click], box: Any = None) -> Any:
    return SimpleNamespace(
        pos_points=[as_point(c) for c in clicks if c.positive],
        neg_points=[as_point(c) for c in clicks if not c.positive],
        bounding_box=box,
    )


def encoded(interactor: Interactor, pixels: Any) -> Frame:
    """A frame, whose picture came to the worker as pickled pixels."""
    return interactor.preprocess_image(None, pickle.loads(pickle.dumps(Image.fromarray(pixels))))


def mask(interactor: Interactor, frame: Frame, clicks: list[Click], size: tuple[int, int] = SIZE) -> Any:
    from cvat_sdk.masks import decode_mask

    shapes = interactor.detect(None, frame, prompts(clicks))
    if not shapes:
        return np.zeros(size, dtype=np.bool_)
    (shape,) = shapes
    assert shape.type == "mask"
    assert all(isinstance(number, int) for number in shape.points), "JSON takes no numbers of NumPy"
    return decode_mask(shape.points, image_width=size[1], image_height=size[0])


@pytest.fixture
def made(sdk: None, paint: Bundle) -> Iterator[Any]:
    """Makes functions on ``paint``, and closes them."""
    opened: list[Interactor] = []

    def make(**settings: Any) -> Interactor:
        opened.append(create(str(paint.path), **settings))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


@pytest.fixture
def answers(paint: Bundle) -> Iterator[Any]:
    """A session's own masks."""
    with Session(paint, engine="onnxruntime") as session:

        def answer(pixels: Any, clicks: list[Click]) -> Any:
            session.set_image(pixels)
            return session.set_clicks(clicks).mask

        yield answer


def runs(interactor: Interactor) -> int:
    """How often the image's stage ran."""
    return interactor._model.runs["image"]


def test_masks_are_those_of_a_session_click_by_click(made: Any, answers: Any) -> None:
    interactor, pixels = made(engine="onnxruntime"), picture(1)
    frame = encoded(interactor, pixels)
    for count in range(1, len(CLICKS) + 1):
        np.testing.assert_array_equal(mask(interactor, frame, CLICKS[:count]), answers(pixels, CLICKS[:count]))
    np.testing.assert_array_equal(mask(interactor, frame, CLICKS[:2]), answers(pixels, CLICKS[:2]))
    assert runs(interactor) == 1


def test_a_click_costs_one_run_of_the_click_stage(made: Any) -> None:
    interactor = made()
    frame = encoded(interactor, picture(1))
    for count in range(1, len(CLICKS) + 1):
        mask(interactor, frame, CLICKS[:count])
    (session,) = interactor._frames._sessions.values()
    assert session.runs["click"] == len(CLICKS)


def test_an_empty_mask_is_no_shape(made: Any) -> None:
    interactor = made()
    frame = encoded(interactor, np.zeros((*SIZE, 3), dtype=np.uint8))
    assert interactor.detect(None, frame, prompts([Click(20, 10, False)])) == []
    assert interactor.detect(None, frame, prompts([])) == []


def test_every_picture_is_a_frame_of_its_own(made: Any, answers: Any) -> None:
    """A region of interest is another picture to the function: the driver crops it."""
    interactor, pixels = made(engine="onnxruntime"), picture(2)
    part = pixels[5:35, 10:60]
    whole, roi = encoded(interactor, pixels), encoded(interactor, part)
    clicks = [Click(20, 10), Click(40, 25)]
    for count in (1, 2):
        np.testing.assert_array_equal(mask(interactor, whole, clicks[:count]), answers(pixels, clicks[:count]))
        found = mask(interactor, roi, clicks[:count], part.shape[:2])
        np.testing.assert_array_equal(found, answers(part, clicks[:count]))


def test_sessions_have_a_limit_and_clicks_go_on_in_their_order(made: Any, answers: Any) -> None:
    interactor = made(sessions=2, engine="onnxruntime")
    pixels = [picture(seed) for seed in range(4)]
    frames = [encoded(interactor, one) for one in pixels]
    for count in range(1, len(CLICKS) + 1):
        for frame, one in zip(frames, pixels, strict=True):
            # The order of the clicks is known though the session that had them is gone.
            np.testing.assert_array_equal(mask(interactor, frame, CLICKS[:count]), answers(one, CLICKS[:count]))
            assert len(interactor._frames) <= 2
    assert runs(interactor) == 4, "the store has the features"


@pytest.mark.parametrize("view", [{}, {"zoom": True}, {"flip": True}])
def test_a_frame_whose_features_left_the_store_is_encoded_again(made: Any, paint: Bundle, view: dict) -> None:
    interactor = made(sessions=1, store_mib=0, engine="onnxruntime", **view)
    pixels = [picture(seed) for seed in range(2)]
    frames = [encoded(interactor, one) for one in pixels]
    with Session(paint, engine="onnxruntime", **view) as session:
        for frame, one in zip(frames * 2, pixels * 2, strict=True):
            session.set_image(one)
            for count in (1, 2, 3):
                expected = session.set_clicks(CLICKS[:count]).mask
                np.testing.assert_array_equal(mask(interactor, frame, CLICKS[:count]), expected)
    assert runs(interactor) > 2


def test_a_frame_that_is_kept_nowhere_any_more_is_told_so(made: Any) -> None:
    from cvat_sdk.auto_annotation import BadFunctionError

    interactor = made(sessions=1, store_mib=0, pictures_mib=0)
    first = encoded(interactor, picture(1))
    encoded(interactor, picture(2))
    with pytest.raises(BadFunctionError, match="left the memory of the agent"):
        mask(interactor, first, CLICKS[:1])


def test_pictures_have_a_budget_and_leave_with_the_frame(made: Any) -> None:
    interactor = made(pictures_mib=1)
    folder = interactor._pictures.folder
    size = (400, 500)
    frames = [encoded(interactor, picture(seed, size)) for seed in range(3)]
    assert interactor._pictures.bytes == 400 * 500 * 3 <= MIB, "one of them is 0.57 MiB"
    assert len(list(folder.iterdir())) == 1
    last = frames[-1].number
    assert last in interactor._frames
    del frames
    gc.collect()
    assert list(folder.iterdir()) == []
    assert len(interactor._frames) == 0
    interactor.close()
    assert not folder.exists()


def test_what_the_agent_keeps_of_a_frame_is_small(made: Any) -> None:
    frame = encoded(made(), picture(1, (600, 800)))
    assert set(Frame.__slots__) == {"__weakref__", "key", "number"}
    assert len(pickle.dumps((frame.key, frame.number))) < 1000


def test_a_full_disk_costs_a_warning_and_no_click(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    interactor = made()
    interactor._pictures.close()
    with pytest.warns(MMMSDeployWarning, match="cannot be encoded again"):
        frame = encoded(interactor, picture(1))
    assert mask(interactor, frame, CLICKS[:1]).any()


def test_what_is_wrong_with_a_request_is_told_and_the_clicks_stay(made: Any) -> None:
    from cvat_sdk.auto_annotation import BadFunctionError

    interactor = made()
    frame = encoded(interactor, picture(1))
    before = [mask(interactor, frame, CLICKS[:count]) for count in (1, 2, 3)][-1]
    with pytest.raises(BadFunctionError, match="outside of the image"):
        mask(interactor, frame, [*CLICKS[:3], Click(500, 3)])
    with pytest.raises(BadFunctionError, match="takes points, no boxes"):
        interactor.detect(None, frame, prompts(CLICKS[:1], ((1, 2), (30, 20))))
    with pytest.raises(BadFunctionError, match="pos_points"):
        interactor.detect(None, frame, SimpleNamespace(pos_points=[1], neg_points=[], bounding_box=None))
    assert interactor._frames.clicks(frame.number) == [tuple((c.x, c.y, c.positive) for c in CLICKS[:3])]
    np.testing.assert_array_equal(mask(interactor, frame, CLICKS[:3]), before)
    with pytest.raises(BadFunctionError, match="the image"):
        interactor.preprocess_image(None, Image.fromarray(np.zeros((4, 5), dtype=np.float32)))


def test_a_network_without_boxes_offers_none(made: Any) -> None:
    spec = made().spec
    assert (spec.min_pos_points, spec.min_neg_points, spec.min_bounding_boxes) == (1, 0, None)


def test_settings_are_those_of_a_session_in_words(made: Any) -> None:
    assert made(engine="onnxruntime", threads="1", sessions="3")._settings.sessions == 3
    with pytest.raises(DoorError, match="did you mean"):
        made(engin="onnxruntime")
    with pytest.raises(DoorError, match="sessions"):
        made(sessions=0)


def test_a_bundle_that_is_not_there_is_named(sdk: None, tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError):
        create(str(tmp_path / "none"))


def test_a_network_that_needs_more_than_pictures_is_refused_by_name(sdk: None, modal: Bundle) -> None:
    with pytest.raises(DoorError, match="needs depth, event"):
        create(str(modal.path))


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, paint: Bundle) -> None:
    monkeypatch.setitem(sys.modules, "cvat_sdk", None)
    with pytest.raises(DoorError, match=r"cvat_sdk") as caught:
        create(str(paint.path))
    assert "[cvat]" in str(caught.value)


def test_the_module_that_cvat_cli_names_is_light() -> None:
    heavy = "{'cvat_sdk', 'numpy', 'PIL', 'onnxruntime', 'openvino'}"
    code = f"import sys, mmms_deploy.doors.cvat as m; print(hasattr(m, 'create'), {heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "set()"]


def test_the_defaults_are_stated() -> None:
    with warnings.catch_warnings():
        settings = AgentSettings()
    assert (settings.sessions, settings.store_mib, settings.pictures_mib) == (8, 1024, 4096)
