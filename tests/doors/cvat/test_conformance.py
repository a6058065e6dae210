"""Both doors as the comparison opens them answer as a session."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from mmms_deploy import Session
from mmms_deploy.bundle import Bundle
from mmms_deploy.doors.cvat.conformance import doors
from mmms_deploy.doors.opening import Opening
from mmms_deploy.replay import load_golden
from mmms_deploy.session import Click

AGENT, FUNCTION = doors


def test_their_names() -> None:
    assert [door.name for door in doors] == ["cvat", "cvat-nuclio"]
    assert FUNCTION.missing() is None


def test_the_agent_is_missing_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cvat_sdk", None)
    missing = AGENT.missing()
    assert missing is not None
    assert "[cvat]" in missing


@pytest.mark.parametrize("door", doors, ids=[door.name for door in doors])
def test_masks_are_those_of_a_session_on_the_golden_pictures(sdk: None, door: object) -> None:
    bundle = Bundle("demo-small")
    opening = Opening(engine="onnxruntime")
    opened = door.open(bundle, opening)
    try:
        with Session(bundle, engine="onnxruntime") as session:
            for case in load_golden(bundle.file("golden.npz"))[:2]:
                clicks = [Click(float(x), float(y), bool(positive)) for x, y, positive in case.clicks[:4]]
                opened.set_image(case.image)
                session.set_image(case.image)
                for count in range(1, len(clicks) + 1):
                    expected = session.set_clicks(clicks[:count]).mask
                    np.testing.assert_array_equal(opened.mask(clicks[:count]), expected)
    finally:
        opened.close()
