"""Scenes that are drawn."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from mmms_deploy.evaluation import open_dataset
from mmms_deploy.evaluation.errors import DatasetLayoutError


def test_scenes_are_the_same_every_time_and_differ_from_each_other() -> None:
    data, again = open_dataset("drawn", "6"), open_dataset("drawn", "3")
    assert data.scene_names == ("00000", "00001", "00002", "00003", "00004", "00005")
    for index in range(3):
        np.testing.assert_array_equal(data[index].image, again[index].image)
    images = [scene.image for scene in data]
    assert len({image.tobytes() for image in images}) == 6
    other = open_dataset("drawn", "1", seed=1)[0]
    assert (other.image != images[0]).any()


def test_surfaces_are_visible_and_apart() -> None:
    for scene in open_dataset("drawn", "20"):
        assert scene.image.shape == (240, 320, 3)
        masks = [surface.mask for surface in scene.surfaces]
        assert np.sum(masks, axis=0).max(initial=0) <= 1
        assert all(200 <= mask.sum() < mask.size * 0.8 for mask in masks)
        for mask in masks:
            assert np.abs(scene.image[mask].mean(0) - scene.image[~mask].mean(0)).max() > 1


@pytest.mark.parametrize("odd", ["0", "-1", "1.5", "many", "data/drawn", "1000000"])
def test_another_number_is_refused(odd: str) -> None:
    with pytest.raises(DatasetLayoutError, match="number of drawn scenes") as caught:
        open_dataset("drawn", odd)
    assert "expected: a whole number from 1 to 100000, as in drawn=20\n" in str(caught.value)


def test_they_need_no_library_but_pillow() -> None:
    script = (
        "import sys\nfrom mmms_deploy.evaluation import open_dataset\nopen_dataset('drawn', '1')[0]\n"
        "print({'cv2', 'scipy', 'skimage', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"
