"""The door as it is compared: its masks are those of a session, bit for bit."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from mmms_deploy import Model
from mmms_deploy.bundle import Bundle
from mmms_deploy.doors.label_studio.conformance import LabelStudioDoor, doors
from mmms_deploy.doors.opening import Opening
from mmms_deploy.errors import DoorError
from mmms_deploy.session import Click

CLICKS = [Click(40, 30), Click(10.25, 12.5, False), Click(95, 63), Click(-0.5, -0.5)]


def test_there_is_one_for_each_form_of_masks() -> None:
    assert [(one.name, one.missing()) for one in doors] == [("label-studio", None), ("label-studio-bitmask", None)]


@pytest.mark.parametrize("door", doors, ids=lambda door: door.name)
def test_its_masks_are_those_of_a_session(door: LabelStudioDoor, paint: Bundle) -> None:
    random = np.random.default_rng(3)
    pictures = [random.integers(0, 255, size, dtype=np.uint8) for size in ((64, 96, 3), (70, 101, 3))]
    opening = Opening(engine="onnxruntime")
    opened = door.open(paint, opening)
    try:
        with Model(paint, engine="onnxruntime") as model, model.session() as session:
            for picture in pictures:
                opened.set_image(picture)
                session.set_image(picture)
                for count, click in enumerate(CLICKS, start=1):
                    mask = session.click(click.x, click.y, click.positive).mask
                    np.testing.assert_array_equal(opened.mask(CLICKS[:count]), mask)
        with pytest.raises(DoorError, match="POST /predict answers 400"):
            opened.mask([Click(1000, 1000)])
    finally:
        opened.close()


def test_an_empty_mask_is_one(echo: Bundle) -> None:
    opened = doors[0].open(echo, Opening(engine="onnxruntime"))
    try:
        opened.set_image(np.zeros((50, 60, 3), np.uint8))
        assert not opened.mask([]).any()
        assert opened.mask([]).shape == (50, 60)
    finally:
        opened.close()


def test_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert doors[0].missing() == 'uvicorn is not installed: pip install "mmms-deploy[demo]"'
