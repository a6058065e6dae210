"""Clicks that go along with an annotation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmms_deploy import Click
from mmms_deploy.annotations import CocoObject, CocoWriter, read_annotation, write_mask
from mmms_deploy.errors import AnnotationError
from tests.support.masks import AWKWARD

MASK = AWKWARD["a hole"]


def test_clicks_of_a_session_and_tuples(tmp_path: Path) -> None:
    clicks = [Click(1, 2.5), (np.float32(3), 4, np.False_), [0, -0.5, 1]]
    write_mask(tmp_path / "a.json", MASK, clicks)  # type: ignore[arg-type]
    assert read_annotation(tmp_path / "a.json").clicks == ((1, 2.5, True), (3, 4, False), (0, -0.5, True))
    writer = CocoWriter()
    writer.add_image("a.jpg", MASK.shape, [CocoObject(MASK, "thing", clicks)])  # type: ignore[arg-type]
    (annotation,) = json.loads(json.dumps(writer.dataset()))["annotations"]
    assert annotation["clicks"] == [[1, 2.5, 1], [3, 4, 0], [0, -0.5, 1]]


@pytest.mark.parametrize(
    "click", [3, None, (1, 2), (1, 2, 3), ("1", 2, 1), (np.nan, 2, 1), (1, 2, None), (10**400, 0, 1)]
)
def test_what_is_no_click(click: object, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="a click is"):
        write_mask(tmp_path / "a.json", MASK, [click])  # type: ignore[list-item]
    with pytest.raises(AnnotationError, match="a click is"):
        CocoWriter().add_image("a.jpg", MASK.shape, [CocoObject(MASK, "thing", [click])])  # type: ignore[list-item]
    assert not list(tmp_path.iterdir())
