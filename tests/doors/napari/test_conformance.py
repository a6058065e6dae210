"""The door for the comparison of all doors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mmms_deploy import Session
from mmms_deploy.bundle import Bundle
from mmms_deploy.doors.conformance.comparison import compare_doors
from mmms_deploy.doors.napari import conformance
from mmms_deploy.doors.opening import Opening
from mmms_deploy.errors import DoorError, ImageError
from mmms_deploy.session import Click


def test_without_napari_the_extra_is_named(monkeypatch, paint: Bundle) -> None:
    monkeypatch.setattr(conformance, "find_spec", lambda name: None)
    (door,) = conformance.doors
    assert door.missing() == 'napari is not installed: pip install "mmms-deploy[napari]"'
    with pytest.raises(DoorError, match=r"mmms-deploy\[napari\]"):
        door.open(paint, Opening())


@pytest.mark.napari
def test_the_masks_are_those_of_a_session(paint: Bundle, picture: Any) -> None:
    pytest.importorskip("napari", reason="napari is not installed (make test-napari)")
    (door,) = conformance.doors
    assert door.missing() is None
    opened = door.open(paint, Opening())
    try:
        with pytest.raises(DoorError, match="clicks without a picture"):
            opened.mask([Click(60, 45)])
        with pytest.raises(ImageError):
            opened.set_image(picture.astype(np.float32) / 255)
        with Session(paint) as session:
            for image in (picture, picture[::-1]):
                opened.set_image(image)
                session.set_image(image)
                clicks = [Click(60, 45), Click(100, 20, False), Click(61.5, 50)]
                for number in range(1, 4):
                    answer = session.set_clicks(clicks[:number])
                    np.testing.assert_array_equal(opened.mask(clicks[:number]), answer.mask)
    finally:
        opened.close()


@pytest.mark.napari
def test_the_comparison_of_doors_passes() -> None:
    """On the golden clicks of the small demo."""
    pytest.importorskip("napari", reason="napari is not installed (make test-napari)")
    report = compare_doors(Bundle("demo-small"), Opening(), conformance.doors)
    (door,) = report.doors
    assert door.error is None
    assert door.passed
    assert len(door.clicks) > 10
