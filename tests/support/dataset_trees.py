"""Tiny data sets on disk: real files in the published layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from mmms_deploy.evaluation.scene import Scene
from tests.support.paths import DATA

SIZE = (24, 36)
RGB = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def needs(folder: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not (DATA / folder).is_dir(), reason=f"needs {folder} (MMMS_TEST_DATA)")


def save(file: Path, array: npt.NDArray, **options: object) -> Path:
    """Write an array as its suffix says."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".npy":
        np.save(file, array)
    else:
        Image.fromarray(array).save(file, **options)
    return file


def save_palette(file: Path, labels: npt.NDArray[np.uint8]) -> Path:
    """Write labels as a palette PNG whose colours tell nothing of the indices."""
    image = Image.new("P", labels.shape[::-1])
    image.putdata(labels.ravel().tolist())
    colours = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
    colours[7:9] = colours[1]  # two labels of one colour
    image.putpalette(colours.tobytes())
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)
    return file


def labels(**boxes: int) -> npt.NDArray[np.uint8]:
    """A label map of four quarters: ``labels(nw=1, se=255)``; the others are 0."""
    height, width = SIZE[0] // 2, SIZE[1] // 2
    array = np.zeros(SIZE, np.uint8)
    for corner, value in boxes.items():
        rows = slice(0, height) if corner[0] == "n" else slice(height, None)
        columns = slice(0, width) if corner[1] == "w" else slice(width, None)
        array[rows, columns] = value
    return array


def masks(scene: Scene) -> dict[str, npt.NDArray[np.bool_]]:
    """The surfaces' masks by name."""
    assert len({surface.name for surface in scene.surfaces}) == len(scene.surfaces)
    return {surface.name: surface.mask for surface in scene.surfaces}


def same(scene: Scene, expected: dict[str, npt.NDArray]) -> None:
    """Check names, order and masks of a scene's surfaces."""
    found = masks(scene)
    assert list(found) == list(expected)
    for name, mask in expected.items():
        assert found[name].dtype == np.bool_
        np.testing.assert_array_equal(found[name], mask, err_msg=name)
