"""GrabCut, Berkeley, DAVIS, HQSeg-44K: one object an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmms_deploy.evaluation.datasets import DATASETS, open_dataset
from mmms_deploy.evaluation.errors import DatasetFileError, DatasetLayoutError, DatasetOptionError
from tests.support.dataset_trees import DATA, RGB, labels, needs, same, save, save_palette

TRIMAP = labels(nw=255, ne=128, sw=64)
"""64 is background: in RITM the object is above 128."""


@pytest.mark.parametrize(
    ("kind", "images", "masks", "suffix"),
    [("grabcut", "data_GT", "boundary_GT", "bmp"), ("berkeley", "images", "masks", "png")],
)
def test_trimaps(tmp_path: Path, kind: str, images: str, masks: str, suffix: str) -> None:
    save(tmp_path / images / "person7.jpg", RGB)
    save(tmp_path / images / "book.bmp", RGB)
    for name in ("person7", "book"):
        save(tmp_path / masks / f"{name}.{suffix}", np.repeat(TRIMAP[:, :, None], 3, axis=2))
    save(tmp_path / masks / f"unused.{suffix}", TRIMAP)
    data = open_dataset(kind, tmp_path)
    assert (data.name, data.modalities, [scene.name for scene in data]) == (kind, (), ["book", "person7"])
    np.testing.assert_array_equal(data[0].image, RGB)
    same(data[0], {"object": TRIMAP == 255})
    np.testing.assert_array_equal(data[0].void, TRIMAP == 128)
    (tmp_path / masks / f"book.{suffix}").unlink()
    with pytest.raises(DatasetFileError, match=f"no mask for image 'book' in .*{masks}"):
        open_dataset(kind, tmp_path)


@needs("voc-objects")
def test_real_trimaps() -> None:
    data = open_dataset("berkeley", DATA / "voc-objects")
    assert len(data) == 68
    for scene in (data[0], data[30], data[67]):
        (surface,) = scene.surfaces
        assert surface.mask.any()
        assert scene.void is not None
        assert not (surface.mask & scene.void).any()


def frame(root: Path, name: str, images: str, masks: str, values: np.ndarray) -> None:
    save(root / images / f"{name}.jpg", RGB)
    save_palette(root / masks / f"{name}.png", values)


TWO = labels(nw=1, se=2)


def test_davis_of_ritm(tmp_path: Path) -> None:
    for name in ("bear_00010", "bear_00001"):
        frame(tmp_path, name, "img", "gt", TWO)
    data = open_dataset("davis", tmp_path)
    assert [scene.name for scene in data] == ["bear_00001", "bear_00010"]
    same(data[0], {"object": TWO > 0})
    assert data[0].void is None
    (tmp_path / "list.txt").write_text("bear_00010.jpg\n")
    assert [s.name for s in open_dataset("davis", tmp_path, frames=str(tmp_path / "list.txt"))] == ["bear_00010"]


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Three sequences of five frames in the layout of the publishers, 2016 and 2017 at once."""
    for sequence in ("cows", "bear", "goat"):
        for number in range(5):
            frame(tmp_path, f"{sequence}/{number:05d}", "JPEGImages/480p", "Annotations/480p", TWO)
    (tmp_path / "ImageSets" / "480p").mkdir(parents=True)
    (tmp_path / "ImageSets" / "2017").mkdir()
    lines = "".join(f"/JPEGImages/480p/cows/{n:05d}.jpg /Annotations/480p/cows/{n:05d}.png\n" for n in range(5))
    (tmp_path / "ImageSets" / "480p" / "val.txt").write_text(lines)
    (tmp_path / "ImageSets" / "2017" / "val.txt").write_text("bear\ngoat\n")
    return tmp_path


def names(*args: object, **options: object) -> list[str]:
    return [scene.name for scene in open_dataset("davis", *args, **options)]


def test_davis_as_published(davis: Path) -> None:
    assert names(davis) == [f"{s}/{n:05d}" for s in ("bear", "cows", "goat") for n in range(5)]
    assert names(davis, split="val", every=2) == ["cows/00000", "cows/00002", "cows/00004"]
    assert names(davis, split="2017/val", every="4") == ["bear/00000", "bear/00004", "goat/00000", "goat/00004"]
    with pytest.raises(DatasetLayoutError, match=r"no list ImageSets/480p/test\.txt"):
        open_dataset("davis", davis, split="test")
    with pytest.raises(DatasetLayoutError, match="no folder 'img' nor 'JPEGImages/1080p'"):
        open_dataset("davis", davis, resolution="1080p")


def test_davis_frames_from_a_list(davis: Path, tmp_path: Path) -> None:
    file = tmp_path / "frames.txt"
    file.write_text("goat/00003\n/JPEGImages/480p/bear/00001.jpg\n\n")
    assert names(davis, frames=str(file)) == ["bear/00001", "goat/00003"]
    file.write_text("goat/00009\n")
    with pytest.raises(DatasetFileError, match="no frame for image 'goat/00009'"):
        open_dataset("davis", davis, frames=str(file))
    with pytest.raises(DatasetFileError, match="nowhere"):
        open_dataset("davis", davis, frames="nowhere.txt")


def test_davis_objects(davis: Path) -> None:
    same(open_dataset("davis", davis, objects="each")[0], {"1": TWO == 1, "2": TWO == 2})
    scene = open_dataset("davis", davis, void=2)[0]
    same(scene, {"object": TWO == 1})
    np.testing.assert_array_equal(scene.void, TWO == 2)


def test_a_frame_without_an_object_has_no_surface(davis: Path) -> None:
    save_palette(davis / "Annotations" / "480p" / "bear" / "00000.png", labels())
    assert open_dataset("davis", davis)[0].surfaces == ()


def test_one_object_in_any_colour(davis: Path) -> None:
    """As in the field's code, every pixel that is not black counts."""
    colours = np.dstack([np.where(TWO == 1, 200, 0), np.where(TWO == 2, 3, 0), np.zeros_like(TWO)]).astype(np.uint8)
    file = save(davis / "Annotations" / "480p" / "bear" / "00000.png", colours)
    same(open_dataset("davis", davis)[0], {"object": TWO > 0})
    with pytest.raises(DatasetFileError, match=f"{file} has channels that differ"):
        open_dataset("davis", davis, objects="each")[0]


@needs("davis")
def test_real_davis() -> None:
    data = open_dataset("davis", DATA / "davis", every=12)
    assert len({scene_name.partition("/")[0] for scene_name in data.scene_names}) == 14
    scene = data[3]
    assert scene.name in data.scene_names
    assert scene.image.shape == (480, 854, 3)
    assert scene.surfaces[0].mask.any()


SMOOTH = np.linspace(0, 255, TWO.size).astype(np.uint8).reshape(TWO.shape)


@pytest.fixture
def hqseg(tmp_path: Path) -> Path:
    thin = "thin_object_detection"
    for images, masks in (
        ("DIS5K/DIS-VD/im", "DIS5K/DIS-VD/gt"),
        (f"{thin}/COIFT/images", f"{thin}/COIFT/masks"),
        (f"{thin}/HRSOD/images", f"{thin}/HRSOD/masks_max255"),
        (f"{thin}/ThinObject5K/images_test", f"{thin}/ThinObject5K/masks_test"),
    ):
        save(tmp_path / images / "a.jpg", RGB)
        save(tmp_path / masks / "a.png", SMOOTH)
    return tmp_path


def test_hqseg(hqseg: Path) -> None:
    data = open_dataset("hqseg", hqseg)
    assert data.scene_names == ("COIFT/a", "DIS5K-VD/a", "HRSOD/a", "ThinObject5K-TE/a")
    same(data[2], {"object": SMOOTH > 0})
    same(open_dataset("hqseg", hqseg, threshold=128)[0], {"object": SMOOTH > 128})
    assert open_dataset("hqseg", hqseg, sets="thin,dis").scene_names == ("DIS5K-VD/a", "ThinObject5K-TE/a")
    (hqseg / "thin_object_detection" / "COIFT").rename(hqseg / "COIFT")
    with pytest.raises(DatasetLayoutError, match="no folder 'thin_object_detection/COIFT/images'"):
        open_dataset("hqseg", hqseg)
    assert len(open_dataset("hqseg", hqseg, sets=("hrsod",))) == 1
    with pytest.raises(DatasetOptionError, match="dis, coift, hrsod, thin"):
        open_dataset("hqseg", hqseg, sets="big")


def test_all_of_them_are_listed() -> None:
    assert {"grabcut", "berkeley", "davis", "hqseg"} <= set(DATASETS)
