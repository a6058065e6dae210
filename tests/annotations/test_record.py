"""Files of one mask: read back exactly, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_deploy.annotations import mask_of_rle, read_annotation, write_mask
from mmms_deploy.errors import AnnotationError, OutputExistsError, OutputFormatError, OutputWriteError
from tests.support.masks import AWKWARD, whole

CLICKS = ((3.25, 1.0, True), (0.0, -0.5, False))


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".TIFF"])
def test_pictures(suffix: str, tmp_path: Path) -> None:
    for mask in whole(5):
        path = tmp_path / f"mask{suffix}"
        write_mask(path, mask, CLICKS, overwrite=True)
        with Image.open(path) as image:
            assert image.mode == "L"
            np.testing.assert_array_equal(np.asarray(image), mask * 255)


def test_json_read_back_exactly(tmp_path: Path) -> None:
    for number, mask in enumerate(whole(5)):
        path = tmp_path / f"{number}.json"
        write_mask(str(path), mask, CLICKS)
        found = read_annotation(path)
        np.testing.assert_array_equal(found.mask, mask)
        assert found.clicks == CLICKS


def test_json_for_others(tmp_path: Path) -> None:
    mask = AWKWARD["a hole"]
    write_mask(tmp_path / "a.json", mask, CLICKS)
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["size"] == [4, 5]
    assert written["area"] == mask.sum()
    assert written["bbox"] == [0, 0, 5, 4]
    assert written["clicks"] == [[3.25, 1, 1], [0, -0.5, 0]]
    assert len(written["polygons"]) == len(written["polygons"][0]["holes"]) == 1
    np.testing.assert_array_equal(mask_of_rle(written["rle"]), mask)


def test_nothing_is_replaced_by_accident(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_text("mine")
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        write_mask(path, AWKWARD["a hole"])
    assert path.read_text() == "mine"
    write_mask(path, AWKWARD["a hole"], overwrite=True)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OutputWriteError):
        write_mask(tmp_path / "no folder" / "mask.png", AWKWARD["a hole"])


@pytest.mark.parametrize("name", ["mask.jpg", "mask", "mask.npy", "mask.png.gz"])
def test_other_suffixes_are_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(OutputFormatError, match=r"\.png, \.bmp, \.tif, \.tiff, \.json"):
        write_mask(tmp_path / name, AWKWARD["a hole"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "other"},
        {"version": 2},
        {"rle": None},
        {"rle": {"size": [4, 5], "counts": "1"}},
        {"size": [5, 4]},
        {"clicks": 3},
        {"clicks": [[1, 2]]},
        {"clicks": [[1, 2, 3]]},
        {"clicks": [["1", 2, 1]]},
        {"clicks": [{}]},
    ],
    ids=str,
)
def test_damaged_files(changes: dict, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_mask(path, AWKWARD["a hole"], CLICKS)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(AnnotationError, match="is no annotation"):
        read_annotation(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", "{", "[" * 1000])
def test_other_files(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(AnnotationError):
        read_annotation(tmp_path / "a.json")
    with pytest.raises(AnnotationError):
        read_annotation(tmp_path / "missing.json")
