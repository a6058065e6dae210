from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_deploy.evaluation.datasets import open_dataset
from mmms_deploy.evaluation.errors import DatasetFileError
from mmms_deploy.imaging.picture import turned
from tests.support.dataset_trees import RGB, SIZE, labels, same, save
from tests.support.tiff import ORIENTATION

ORIENTATIONS = range(1, 9)
MAP = labels(nw=1, ne=1, sw=3)
MAP[2:5, 30:33] = 0
"""Other after every turn."""
SQUARE = np.ascontiguousarray(MAP[:, : SIZE[0]])


def oriented(file: Path, array: np.ndarray, orientation: int | None) -> Path:
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    return save(file, array, exif=exif)


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """Return the pixels that an orientation turns upright."""
    back = {6: 8, 8: 6}.get(orientation, orientation)
    return np.ascontiguousarray(turned(upright, back))


def expected(upright: np.ndarray) -> dict[str, np.ndarray]:
    return {str(value): upright == value for value in (1, 3)}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_mask_with_an_orientation_is_turned_by_it(tmp_path: Path, orientation: int) -> None:
    oriented(tmp_path / "images" / "a.png", stored(RGB, orientation), orientation)
    oriented(tmp_path / "masks" / "a.png", stored(MAP, orientation), orientation)
    save(tmp_path / "depth" / "a.png", MAP)
    scene = open_dataset("folder", tmp_path, modalities="none")[0]
    np.testing.assert_array_equal(scene.image, RGB)
    same(scene, expected(MAP))
    oriented(tmp_path / "masks" / "a.png", MAP, 1)  # it says that it is upright
    same(open_dataset("folder", tmp_path, modalities="none")[0], expected(MAP))
    oriented(tmp_path / "images" / "a.png", RGB, None)
    oriented(tmp_path / "masks" / "a.png", stored(MAP, orientation), orientation)
    same(open_dataset("folder", tmp_path, modalities="none")[0], expected(MAP))


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_the_size_tells_how_a_mask_was_drawn(tmp_path: Path, orientation: int) -> None:
    oriented(tmp_path / "images" / "a.png", stored(RGB, orientation), orientation)
    save(tmp_path / "depth" / "a.npy", stored(MAP, orientation).astype(np.float32))
    for drawn in (MAP, stored(MAP, orientation)):
        save(tmp_path / "masks" / "a.png", drawn)
        scene = open_dataset("folder", tmp_path)[0]
        same(scene, expected(MAP))
        np.testing.assert_array_equal(scene.modalities["depth"][:, :, 0], MAP)
    save(tmp_path / "masks" / "a.png", MAP[1:])
    with pytest.raises(DatasetFileError, match="23 rows and 36 columns"):
        open_dataset("folder", tmp_path)[0]


@pytest.mark.parametrize(
    ("orientation", "square"), [*((k, False) for k in (1, 2, 3, 4)), *((k, True) for k in ORIENTATIONS)]
)
def test_what_cannot_be_told_apart_is_refused(tmp_path: Path, orientation: int, square: bool) -> None:
    upright = SQUARE if square else MAP
    image = np.ascontiguousarray(RGB[:, : upright.shape[1]])
    oriented(tmp_path / "images" / "a.png", stored(image, orientation), orientation)
    save(tmp_path / "masks" / "a.png", upright)
    data = open_dataset("folder", tmp_path)
    if orientation == 1:
        same(data[0], expected(upright))
        return
    with pytest.raises(
        DatasetFileError, match=rf"EXIF orientation {orientation}, and the mask .*a\.png has none"
    ) as caught:
        data[0]
    assert "auto-orient" in str(caught.value.fix)
    save(tmp_path / "masks" / "a.png", upright * 0)  # the same either way
    same(data[0], {})
    (tmp_path / "depth").mkdir()
    save(tmp_path / "depth" / "a.png", upright)
    with pytest.raises(DatasetFileError, match=r"and the depth .* has none"):
        open_dataset("folder", tmp_path)[0]


@pytest.mark.parametrize("orientation", [3, 6])
def test_polygons_follow_the_same_rule(tmp_path: Path, orientation: int) -> None:
    pytest.importorskip("pycocotools")
    oriented(tmp_path / "val2017" / "a.jpg", np.zeros((*SIZE, 3), np.uint8), orientation)
    height, width = SIZE
    content = {
        "images": [{"id": 1, "height": height, "width": width, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 9, 0, 9, 5, 0, 5]]}],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    data = open_dataset("coco", tmp_path)
    if orientation == 3:
        with pytest.raises(DatasetFileError, match="EXIF orientation 3"):
            data[0]
        return
    scene = data[0]
    assert scene.image.shape[:2] == (width, height)
    (surface,) = scene.surfaces
    assert surface.mask[:9, -5:].all()
    assert surface.mask.sum() == 45
