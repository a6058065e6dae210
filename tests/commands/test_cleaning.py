"""The options that clean masks: ``mmms-segment`` and ``mmms-demo``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Bundle, MaskCleaning, Session, server
from mmms_deploy.annotations import mask_of_rle
from mmms_deploy.commands import demo, segment
from tests.support.invoke import invoke

OPTIONS = ["--fill-holes", "30", "--drop-specks", "20", "--keep-largest", "2", "--simplify", "2.5"]
CLEANING = MaskCleaning(fill_holes=30, drop_specks=20, keep_largest=2, simplify=2.5)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "image.png"
    Image.fromarray(np.full((100, 150, 3), 51, dtype=np.uint8)).save(file)
    return file


def test_segment_writes_cleaned_masks(paint: Bundle, image: Path, tmp_path: Path) -> None:
    out, coco, labels = tmp_path / "mask.png", tmp_path / "all.json", tmp_path / "labels.png"
    line = [paint.path, image, "--pos", "30,20", "--pos", "100,60", *OPTIONS]
    result = invoke(segment.main, *line, "--out", out, "--coco", coco, "--labels", labels)
    assert result.exit_code == 0, result.output
    with Session(paint) as plain, Session(paint, cleaning=CLEANING) as session:
        for one in (plain, session):
            one.set_image(image)
            one.set_clicks([(30, 20), (100, 60)])
        assert not np.array_equal(session.mask, plain.mask)
        np.testing.assert_array_equal(np.asarray(Image.open(out)) > 0, session.mask)
        np.testing.assert_array_equal(np.asarray(Image.open(labels)), session.labels)
        found = json.loads(coco.read_text())["annotations"][0]["segmentation"]
        np.testing.assert_array_equal(mask_of_rle(found), session.mask)


@pytest.mark.parametrize("command", [segment.main, demo.main])
@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--fill-holes", "-1", "is not in the range"),
        ("--drop-specks", "few", "no whole number"),
        ("--keep-largest", str(1 << 31), "keep_largest is 2147483648"),
        ("--simplify", "nan", "no finite number"),
    ],
)
def test_odd_values_are_wrong_usage(
    paint: Bundle, image: Path, command: Any, option: str, value: str, said: str
) -> None:
    result = invoke(command, paint.path, image, option, value)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
    assert option in result.output


def test_what_is_missing_is_said_before_anything_is_opened(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    result = invoke(segment.main, tmp_path / "no bundle", image, "--fill-holes", "3")
    assert result.exit_code == 1
    assert "[clean]" in result.output
    assert "no bundle" not in result.output


def test_demo_serves_cleaned_masks_and_says_where_clicks_run(
    paint: Bundle, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Any] = []
    monkeypatch.setattr(server, "serve", lambda engine, settings, pictures, **more: served.append(settings))
    result = invoke(demo.main, "demo-small", image, "--no-open", *OPTIONS)
    assert result.exit_code == 0, result.output
    assert served[0].cleaning == CLEANING
    assert "clicks run on the server: masks are cleaned" in " ".join(result.output.split())
    result = invoke(demo.main, paint.path, image, "--no-open")
    assert result.exit_code == 0, result.output
    assert served[1].cleaning is None


def test_a_static_page_cleans_nothing(image: Path, tmp_path: Path) -> None:
    result = invoke(demo.main, "demo-small", "--image", image, "--static", tmp_path / "site", "--fill-holes", "3")
    assert result.exit_code == 2
    assert "--fill-holes" in result.output
    assert not (tmp_path / "site").exists()
