"""DeLiVER, MFNet, FMB, MCubeS: semantic label maps and modalities."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from mmms_deploy.evaluation.datasets import open_dataset
from mmms_deploy.evaluation.errors import DatasetFileError, DatasetLayoutError, DatasetOptionError
from tests.support.dataset_trees import DATA, RGB, SIZE, labels, needs, same, save

STREET = labels(nw=1, ne=10, sw=255)
"""Building, car, and no class at the bottom: 255 and 0."""
ALPHA = np.full(SIZE, 255, np.uint8)
DEEP, RANGE = RGB[::-1], RGB[:, ::-1]


def rgba(array: np.ndarray) -> np.ndarray:
    return np.dstack([array, ALPHA])


def deliver_scene(root: Path, place: str, number: int = 45050) -> None:
    for folder, word, array in (
        ("img", "rgb", RGB),
        ("hha", "depth", DEEP),
        ("lidar", "lidar", RANGE),
        ("event", "event", RANGE[::-1]),
        # The simulator's label images: the class is in the red channel.
        ("semantic", "semantic", np.dstack([STREET, np.zeros((*SIZE, 2), np.uint8)])),
    ):
        save(root / folder / place / f"{number:06d}_{word}_front.png", rgba(array))
    save(root / "depth" / place / f"{number:06d}_depth_front.png", DEEP[:, :, 0])


@pytest.fixture
def deliver(tmp_path: Path) -> Path:
    deliver_scene(tmp_path, "sun/val/MAP_10_point102")
    deliver_scene(tmp_path, "cloud/val/MAP_1_point2_eventlowres")
    deliver_scene(tmp_path, "cloud/test/MAP_1_point9")
    deliver_scene(tmp_path, "cloud/val/MAP_1_point2_eventlowres", 2)
    return tmp_path


def test_deliver(deliver: Path) -> None:
    data = open_dataset("deliver", deliver)
    assert (data.name, data.modalities) == ("deliver", ("depth", "lidar", "event"))
    assert [scene.name for scene in data] == [
        "cloud/MAP_1_point2_eventlowres/000002_front",
        "cloud/MAP_1_point2_eventlowres/045050_front",
        "sun/MAP_10_point102/045050_front",
    ]
    scene = data[2]
    np.testing.assert_array_equal(scene.image, RGB)
    same(scene, {"building": STREET == 1, "car": STREET == 10})
    np.testing.assert_array_equal(scene.void, labels(sw=1, se=1) == 1)
    for name, array in (("depth", DEEP), ("lidar", RANGE), ("event", RANGE[::-1])):
        np.testing.assert_array_equal(scene.modalities[name], array)


def test_deliver_options(deliver: Path) -> None:
    assert open_dataset("deliver", deliver, split="test").scene_names == ("cloud/MAP_1_point9/045050_front",)
    assert len(open_dataset("deliver", deliver, case="eventlowres")) == 2
    assert len(open_dataset("deliver", deliver, case="sun")) == 1
    scene = open_dataset("deliver", deliver, modalities="depth", depth="depth", unlabelled="background")[0]
    assert scene.void is None
    assert list(scene.modalities) == ["depth"]
    np.testing.assert_array_equal(scene.modalities["depth"], DEEP[:, :, :1])
    with pytest.raises(DatasetOptionError, match="depth, lidar, event"):
        open_dataset("deliver", deliver, modalities="depth,thermal")
    with pytest.raises(DatasetLayoutError, match="no images of split 'train'"):
        open_dataset("deliver", deliver, split="train")
    with pytest.raises(DatasetLayoutError, match="and case 'fog'"):
        open_dataset("deliver", deliver, case="fog")


def test_deliver_small_events_are_enlarged_to_the_nearest_pixel(deliver: Path) -> None:
    small = RGB[:12, :18]
    for number in (2, 45050):
        file = deliver / f"event/cloud/val/MAP_1_point2_eventlowres/{number:06d}_event_front.png"
        save(file, small)
    event = open_dataset("deliver", deliver)[0].modalities["event"]
    np.testing.assert_array_equal(event, small.repeat(2, axis=0).repeat(2, axis=1))
    save(deliver / "lidar/cloud/val/MAP_1_point2_eventlowres/000002_lidar_front.png", small)
    with pytest.raises(DatasetFileError, match=r"lidar .*000002_lidar_front\.png has 12 rows and 18 columns"):
        open_dataset("deliver", deliver)[0]


def test_deliver_incomplete(deliver: Path) -> None:
    shutil.rmtree(deliver / "hha")
    with pytest.raises(DatasetLayoutError, match="no folder 'hha'"):
        open_dataset("deliver", deliver)
    (deliver / "lidar/sun/val/MAP_10_point102/045050_lidar_front.png").unlink()
    with pytest.raises(DatasetFileError, match="no lidar file for image 'sun/MAP_10_point102/045050_front'"):
        open_dataset("deliver", deliver, depth="depth")
    assert len(open_dataset("deliver", deliver, modalities="event")) == 3
    save(deliver / "semantic/sun/val/MAP_10_point102/045050_semantic_front.png", np.full(SIZE, 26, np.uint8))
    with pytest.raises(DatasetFileError, match="has the value 26"):
        open_dataset("deliver", deliver, modalities="none")[2]


ROAD = labels(nw=1, ne=2)
THERMAL = np.arange(SIZE[0] * SIZE[1], dtype=np.uint32).astype(np.uint8).reshape(SIZE)


@pytest.fixture
def mfnet(tmp_path: Path) -> Path:
    for name in ("00003N", "00001D", "00002D"):
        save(tmp_path / "images" / f"{name}.png", np.dstack([RGB, THERMAL]))
        save(tmp_path / "labels" / f"{name}.png", ROAD)
    return tmp_path


def test_mfnet(mfnet: Path) -> None:
    data = open_dataset("mfnet", mfnet)
    assert data.modalities == ("thermal",)
    assert [scene.name for scene in data] == ["00001D", "00002D", "00003N"]
    scene = data[0]
    np.testing.assert_array_equal(scene.image, RGB)
    np.testing.assert_array_equal(scene.modalities["thermal"], THERMAL[:, :, None])
    same(scene, {"car": ROAD == 1, "person": ROAD == 2})
    assert scene.void is None
    np.testing.assert_array_equal(open_dataset("mfnet", mfnet, unlabelled="void")[0].void, ROAD == 0)


def test_mfnet_lists(mfnet: Path) -> None:
    (mfnet / "test.txt").write_text("00003N\n00001D\n")
    (mfnet / "train.txt").write_text("00001D_flip\n")
    assert open_dataset("mfnet", mfnet).scene_names == ("00001D", "00003N")
    assert len(open_dataset("mfnet", mfnet, split="all")) == 3
    with pytest.raises(DatasetFileError, match="no file for image '00001D_flip'"):
        open_dataset("mfnet", mfnet, split="train")
    with pytest.raises(DatasetLayoutError, match=r"no list val\.txt \(split=all"):
        open_dataset("mfnet", mfnet, split="val")


def test_mfnet_without_the_fourth_channel(mfnet: Path) -> None:
    file = save(mfnet / "images" / "00001D.png", RGB)
    with pytest.raises(DatasetFileError, match=f"{file} of scene '00001D' has 3 channels"):
        open_dataset("mfnet", mfnet)[0]
    assert open_dataset("mfnet", mfnet, modalities="none")[0].modalities == {}


def test_small_surfaces_do_not_count_by_default(mfnet: Path) -> None:
    small = labels()
    small[:8, :10] = 3  # 80 pixels, below the disk of a click
    small[10:19, :9] = 4  # 81
    save(mfnet / "labels" / "00001D.png", small)
    same(open_dataset("mfnet", mfnet)[0], {"curve": small == 4})
    same(open_dataset("mfnet", mfnet, min_area=1)[0], {"bike": small == 3, "curve": small == 4})
    same(open_dataset("mfnet", mfnet, min_area=82)[0], {})


def test_surfaces_by_component(mfnet: Path) -> None:
    two = labels(nw=2, se=2)
    two[SIZE[0] // 2 - 1] = 0
    save(mfnet / "labels" / "00001D.png", two)
    upper = np.arange(SIZE[0])[:, None] < SIZE[0] // 2
    scene = open_dataset("mfnet", mfnet, surfaces="components")[0]
    same(scene, {"person-1": (two == 2) & upper, "person-2": (two == 2) & ~upper})


@needs("mfnet")
def test_real_mfnet() -> None:
    data = open_dataset("mfnet", DATA / "mfnet")
    assert len(data) == 100
    for index in (0, 50, 99):
        scene = data[index]
        assert scene.image.shape == (480, 640, 3)
        assert scene.modalities["thermal"].shape == (480, 640, 1)
        assert scene.modalities["thermal"].std() > 1
        assert all(surface.mask.sum() >= 81 for surface in scene.surfaces)
    assert {s.name for s in data[0].surfaces} == {"person", "car-stop", "color-cone"}


@pytest.fixture
def fmb(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        for name in ("00002", "00001"):
            save(tmp_path / split / "Visible" / f"{name}.png", RGB)
            save(tmp_path / split / "Infrared" / f"{name}.png", THERMAL)
            save(tmp_path / split / "Label" / f"{name}.png", labels(nw=1, ne=14))
    return tmp_path


def test_fmb(fmb: Path) -> None:
    data = open_dataset("fmb", fmb)
    assert (data.modalities, data.scene_names) == (("thermal",), ("00001", "00002"))
    scene = data[1]
    same(scene, {"road": labels(nw=1) == 1, "pole": labels(ne=1) == 1})
    np.testing.assert_array_equal(scene.void, labels(sw=1, se=1) == 1)
    np.testing.assert_array_equal(scene.modalities["thermal"], THERMAL[:, :, None])
    (fmb / "train" / "Infrared" / "00002.png").unlink()
    with pytest.raises(DatasetFileError, match="no infrared image for image '00002'"):
        open_dataset("fmb", fmb, split="train")
    shutil.rmtree(fmb / "train" / "Infrared")
    with pytest.raises(DatasetLayoutError, match="no folder 'train/Infrared'"):
        open_dataset("fmb", fmb, split="train")
    assert open_dataset("fmb", fmb, split="train", modalities=())[0].modalities == {}
    with pytest.raises(DatasetOptionError, match="train or test"):
        open_dataset("fmb", fmb, split="val")


CUBE = labels(nw=0, ne=19, sw=3, se=255)
SIN, COS = (np.linspace(-1, 1, SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE) for _ in range(2))


@pytest.fixture
def mcubes(tmp_path: Path) -> Path:
    root = tmp_path / "multimodal_dataset"
    unseen = np.zeros(SIZE, np.uint8)
    unseen[:, -3:] = 255
    for name in ("outscene1208_2_0000000180", "outscene1208_2_0000000150"):
        save(root / "polL_color" / f"{name}.png", RGB)
        save(root / "polL_aolp_sin" / f"{name}.npy", SIN)
        save(root / "polL_aolp_cos" / f"{name}.npy", -COS)
        save(root / "polL_dolp" / f"{name}.npy", SIN.astype(np.float64))
        save(root / "NIR_warped" / f"{name}.png", (np.abs(SIN) * 65535).astype(np.uint16))
        save(root / "NIR_warped_mask" / f"{name}.png", unseen)
        save(root / "GT" / f"{name}.png", CUBE)
    (root / "list_folder").mkdir()
    (root / "list_folder" / "test.txt").write_text("outscene1208_2_0000000180\noutscene1208_2_0000000150\n")
    return tmp_path


def test_mcubes(mcubes: Path) -> None:
    data = open_dataset("mcubes", mcubes, crop=4)
    assert data.modalities == ("aolp", "dolp", "nir")
    assert data.scene_names == ("outscene1208_2_0000000150", "outscene1208_2_0000000180")
    scene = data[0]
    np.testing.assert_array_equal(scene.image, RGB[:, 4:])
    seen = np.arange(SIZE[1]) < SIZE[1] - 3
    materials = {"asphalt": 0, "road-marking": 3, "sky": 19}
    same(scene, {name: ((value == CUBE) & seen)[:, 4:] for name, value in materials.items()})
    np.testing.assert_array_equal(scene.void, ((CUBE == 255) | ~seen)[:, 4:])
    np.testing.assert_array_equal(scene.modalities["aolp"], np.dstack([SIN, -COS])[:, 4:])
    assert [(name, array.shape, array.dtype.name) for name, array in scene.modalities.items()] == [
        ("aolp", (24, 32, 2), "float32"), ("dolp", (24, 32, 1), "float64"), ("nir", (24, 32, 1), "uint16"),
    ]  # fmt: skip


def test_mcubes_options(mcubes: Path) -> None:
    scene = open_dataset("mcubes", mcubes, crop=0, modalities="aolp", aolp="sin-cos-sin", unlabelled="background")[1]
    assert scene.void is None
    same(scene, {"asphalt": CUBE == 0, "road-marking": CUBE == 3, "sky": CUBE == 19})
    np.testing.assert_array_equal(scene.modalities["aolp"], np.dstack([SIN, -COS, SIN]))
    with pytest.raises(DatasetFileError, match="has 36 columns"):
        open_dataset("mcubes", mcubes)[0]
    with pytest.raises(DatasetLayoutError, match=r"no list list_folder/val\.txt"):
        open_dataset("mcubes", mcubes, split="val")
    shutil.rmtree(mcubes / "multimodal_dataset" / "NIR_warped_mask")
    with pytest.raises(DatasetLayoutError, match="no folder 'NIR_warped_mask'"):
        open_dataset("mcubes", mcubes)
    (mcubes / "multimodal_dataset" / "polL_dolp" / "outscene1208_2_0000000150.npy").unlink()
    with pytest.raises(DatasetFileError, match=r"no file for image 'outscene1208_2_0000000150' in .*polL_dolp"):
        open_dataset("mcubes", mcubes, modalities="dolp")
