from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from mmms_deploy.errors import MMMSDeployWarning
from mmms_deploy.evaluation.datasets import open_dataset
from mmms_deploy.evaluation.errors import DatasetFileError, DatasetLayoutError, DatasetLibraryError, DatasetOptionError
from tests.support.dataset_trees import DATA, RGB, SIZE, labels, needs, same, save, save_palette

MAP = labels(nw=1, ne=3, se=255)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images in one folder, one in another."""
    for name in ("b", "a", "more/a"):
        save(tmp_path / "images" / f"{name}.png", RGB)
        save(tmp_path / "masks" / f"{name}.png", MAP)
    return tmp_path


def test_every_value_is_a_surface(root: Path) -> None:
    data = open_dataset("folder", root)
    assert (data.name, data.modalities, len(data)) == ("folder", (), 3)
    assert [scene.name for scene in data] == ["a", "b", "more/a"]
    scene = data[0]
    np.testing.assert_array_equal(scene.image, RGB)
    same(scene, {"1": MAP == 1, "3": MAP == 3, "255": MAP == 255})
    assert scene.void is None
    assert data[-1].name == "more/a"
    with pytest.raises(IndexError):
        data[3]


def test_void(root: Path) -> None:
    scene = open_dataset("folder", root, void=255, name="mine")[0]
    same(scene, {"1": MAP == 1, "3": MAP == 3})
    np.testing.assert_array_equal(scene.void, MAP == 255)


def test_a_threshold_makes_one_object(root: Path) -> None:
    data = open_dataset("folder", root, threshold="1", void="255", name="mine")
    assert data.name == "mine"
    same(data[0], {"object": MAP == 3})
    np.testing.assert_array_equal(data[0].void, MAP == 255)


def test_small_surfaces_are_left_out_and_a_scene_may_be_empty(root: Path) -> None:
    dots = labels()
    dots[:2, :5] = 4
    dots[5, 5] = 9
    save(root / "masks" / "a.png", dots)
    same(open_dataset("folder", root, min_area=10)[0], {"4": dots == 4})
    same(open_dataset("folder", root, min_area=11)[0], {})


def test_components_are_numbered_from_the_top(root: Path) -> None:
    split = labels()
    split[2:4, 20:30] = 5  # second from the left, but first from the top
    split[8:10, 2:6] = 5
    split[9, 6] = split[10, 7] = 5  # connected by corners
    split[20:, :] = 2
    save(root / "masks" / "a.png", split)
    scene = open_dataset("folder", root, surfaces="components")[0]
    right = np.arange(SIZE[1]) > 15
    same(scene, {"2-1": split == 2, "5-1": (split == 5) & right, "5-2": (split == 5) & ~right})


def test_one_component_all_over(root: Path) -> None:
    save(root / "masks" / "a.png", np.full(SIZE, 3, np.uint8))
    same(open_dataset("folder", root, surfaces="components")[0], {"3-1": np.ones(SIZE, bool)})


def test_components_need_opencv(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_dataset("folder", root, surfaces="components")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(DatasetLibraryError, match="opencv-python-headless"):
        data[0]


def test_negative_labels(root: Path) -> None:
    (root / "masks" / "a.png").unlink()
    save(root / "masks" / "a.npy", MAP.astype(np.int32) - 1)
    scene = open_dataset("folder", root, void="-1")[0]
    same(scene, {"2": MAP == 3, "254": MAP == 255})
    np.testing.assert_array_equal(scene.void, MAP == 0)


def test_palette_indices_count_not_colours(root: Path) -> None:
    indices = labels(nw=7, ne=8, sw=1)
    save_palette(root / "masks" / "a.png", indices)
    same(open_dataset("folder", root)[0], {"1": indices == 1, "7": indices == 7, "8": indices == 8})


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_sixteen_bits(root: Path, suffix: str) -> None:
    (root / "masks" / "a.png").unlink()
    wide = labels(nw=1).astype(np.uint16) * 1000
    save(root / "masks" / f"a{suffix}", wide)
    same(open_dataset("folder", root)[0], {"1000": wide == 1000})


def test_jpeg_masks_are_cut_at_the_middle(root: Path) -> None:
    (root / "masks" / "a.png").unlink()
    round_mask = (np.hypot(*np.mgrid[-12:12, -18:18]) < 10).astype(np.uint8) * 255
    file = save(root / "masks" / "a.jpg", np.repeat(round_mask[:, :, None], 3, axis=2), quality=70)
    scene = open_dataset("folder", root)[0]
    assert [surface.name for surface in scene.surfaces] == ["255"]
    assert (scene.surfaces[0].mask != (round_mask > 0)).mean() < 0.03
    assert file.stat().st_size > 0


def test_grey_in_colour_and_bits(root: Path) -> None:
    save(root / "masks" / "a.png", np.repeat(MAP[:, :, None], 3, axis=2))
    save(root / "masks" / "b.png", MAP == 1)
    data = open_dataset("folder", root)
    same(data[0], {"1": MAP == 1, "3": MAP == 3, "255": MAP == 255})
    same(data[1], {"1": MAP == 1})


def test_colours_are_no_labels(root: Path) -> None:
    file = save(root / "masks" / "a.png", RGB)
    with pytest.raises(DatasetFileError, match=f"{file} has channels that differ"):
        open_dataset("folder", root)[0]


def test_a_smoothed_mask_is_not_taken_for_many_objects(root: Path) -> None:
    save(root / "masks" / "a.png", np.arange(SIZE[0] * SIZE[1], dtype=np.uint8).reshape(SIZE))
    with pytest.raises(DatasetFileError, match="threshold=127"):
        open_dataset("folder", root)[0]


def test_one_file_an_object(root: Path) -> None:
    (root / "masks" / "a.png").unlink()
    (root / "masks" / "b.png").unlink()
    (root / "masks" / "b").mkdir()
    upper, left = labels(nw=255, ne=255), labels(nw=255, sw=128)
    save(root / "masks" / "a" / "cup.png", upper)
    save(root / "masks" / "a" / "box.npy", left)
    data = open_dataset("folder", root, void=128)
    same(data[0], {"box": left == 255, "cup": upper == 255})
    np.testing.assert_array_equal(data[0].void, left == 128)
    same(data[1], {})
    with pytest.warns(MMMSDeployWarning, match="as trimaps do"):
        same(open_dataset("folder", root)[0], {"box-128": left == 128, "box-255": left == 255, "cup": upper == 255})


def test_modalities_of_known_names_as_stored(root: Path) -> None:
    metres = np.linspace(0.5, 9, SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE)
    for name in ("a", "b", "more/a"):
        save(root / "depth" / f"{name}.tif", metres)
        save(root / "thermal" / f"{name}.npy", metres.astype(np.float16))
        save(root / "nir" / f"{name}_nir.png", (metres * 1000).astype(np.uint16))
        save(root / "Normals" / f"{name}.png", RGB[:, ::-1])
    data = open_dataset("folder", root)
    assert data.modalities == ("depth", "thermal", "nir")
    found = data[2].modalities
    np.testing.assert_array_equal(found["depth"], metres[:, :, None])
    assert [(array.shape, array.dtype.name) for array in found.values()] == [
        ((*SIZE, 1), "float32"), ((*SIZE, 1), "float16"), ((*SIZE, 1), "uint16"),
    ]  # fmt: skip
    assert found["nir"].max() == 9000
    data = open_dataset("folder", root, modalities="normals@Normals,nir")
    assert data.modalities == ("normals", "nir")
    np.testing.assert_array_equal(data[0].modalities["normals"], RGB[:, ::-1])
    assert open_dataset("folder", root, modalities="none").modalities == ()
    assert open_dataset("folder", root, modalities=("depth",))[0].modalities.keys() == {"depth"}


def test_missing_files_are_named_at_opening(root: Path) -> None:
    save(root / "depth" / "a.png", MAP)
    with pytest.raises(DatasetFileError, match=r"no depth for image 'b' in .*depth \(nor for 1 others of 3\)"):
        open_dataset("folder", root)
    (root / "masks" / "b.png").unlink()
    with pytest.raises(DatasetFileError, match=r"no mask for image 'b' in .*masks\n"):
        open_dataset("folder", root, modalities="none")


def test_other_sizes_are_named(root: Path) -> None:
    file = save(root / "masks" / "a.png", MAP[:, 1:])
    with pytest.raises(DatasetFileError, match=f"mask {file} has 24 rows and 35 columns") as caught:
        open_dataset("folder", root)[0]
    assert "24 rows and 36 columns" in str(caught.value)
    save(root / "masks" / "a.png", MAP)
    for name in ("a", "b", "more/a"):
        file = save(root / "depth" / f"{name}.png", MAP[1:])
    with pytest.raises(DatasetFileError, match=r"depth .* has 23 rows"):
        open_dataset("folder", root)[0]


def test_broken_files_are_named(root: Path) -> None:
    file = root / "masks" / "a.png"
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(DatasetFileError, match=str(file)):
        open_dataset("folder", root)[0]
    file.write_text("no image")
    with pytest.raises(DatasetFileError, match="is a text file"):
        open_dataset("folder", root)[0]
    file.unlink()
    np.save(root / "masks" / "a.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DatasetFileError, match=r"a\.npy"):
        open_dataset("folder", root)[0]
    for name in ("a", "b", "more/a"):
        save_palette(root / "lidar" / f"{name}.png", MAP)
    with pytest.raises(DatasetFileError, match=f"{root / 'lidar' / 'b.png'} is a palette"):
        open_dataset("folder", root)[1]
    save(root / "images" / "b.tif", MAP.astype(np.float32))
    (root / "images" / "b.png").unlink()
    with pytest.raises(DatasetFileError, match=f"{root / 'images' / 'b.tif'} has mode 'F'"):
        open_dataset("folder", root)[1]


def test_two_files_of_one_name(root: Path) -> None:
    save(root / "images" / "a.jpg", RGB)
    with pytest.raises(DatasetFileError, match="same name"):
        open_dataset("folder", root)


def test_another_layout_is_an_error(root: Path, tmp_path: Path) -> None:
    (root / "masks").rename(root / "gt")
    with pytest.raises(DatasetLayoutError) as caught:
        open_dataset("folder", root)
    for part in ("there is no folder 'masks'", "found: gt/, images/", "masks/NAME.png"):
        assert part in str(caught.value)
    assert len(open_dataset("folder", root, masks="gt")) == 3
    with pytest.raises(DatasetLayoutError, match="there is nothing at this path"):
        open_dataset("folder", tmp_path / "nowhere")
    with pytest.raises(DatasetLayoutError, match="it is a file"):
        open_dataset("folder", root / "images" / "a.png")
    (tmp_path / "empty" / "images").mkdir(parents=True)
    with pytest.raises(DatasetLayoutError, match="there are no images"):
        open_dataset("folder", tmp_path / "empty")


def test_opening_reads_no_image(root: Path) -> None:
    for file in root.rglob("*.png"):
        file.write_bytes(b"")
    assert len(open_dataset("folder", root)) == 3


def test_links_to_folders_are_followed_but_not_in_circles(root: Path, tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (root / kind / "more").rename(tmp_path / f"elsewhere-{kind}")
        (root / kind / "linked").symlink_to(tmp_path / f"elsewhere-{kind}")
        (root / kind / "circle").symlink_to(root / kind)
    data = open_dataset("folder", root)
    assert data.scene_names == ("a", "b", "linked/a")
    assert data[2].surfaces


def test_hidden_files_do_not_count(root: Path) -> None:
    save(root / "images" / ".thumbs" / "c.png", RGB)
    (root / "images" / "._a.jpg").write_bytes(b"")
    (root / "images" / "Thumbs.db").write_bytes(b"")
    assert len(open_dataset("folder", root)) == 3


@pytest.mark.parametrize(
    "option",
    [
        {"min_area": 0},
        {"void": "x"},
        {"surfaces": "objects"},
        {"images": ""},
        {"modalities": ""},
        {"modalities": 3},
        {"modalities": "depth,depth"},
        {"modalities": "depth@images,depth@masks"},
        {"threshold": 1, "surfaces": "components"},
        {"color": 1},
    ],
)
def test_options_are_checked(root: Path, option: dict[str, object]) -> None:
    with pytest.raises(DatasetOptionError, match=next(iter(option))):
        open_dataset("folder", root, **option)


@pytest.mark.parametrize("path", [None, 0, b"photos", "", "a\0b"])
def test_paths_without_sense_are_named(path: object) -> None:
    with pytest.raises(DatasetOptionError, match="path of the data set"):
        open_dataset("folder", path)  # type: ignore[arg-type]
    with pytest.raises(DatasetOptionError, match="no kind of data set"):
        open_dataset(path, "photos")  # type: ignore[arg-type]


@needs("davis")
def test_davis_frames() -> None:
    data = open_dataset("folder", DATA / "davis", threshold=0)
    assert len(data) == 332
    for index in (0, 100, 331):
        scene = data[index]
        assert scene.image.shape == (480, 854, 3)
        assert [surface.name for surface in scene.surfaces] == ["object"]
        assert 0 < scene.surfaces[0].mask.mean() < 0.7


@needs("rgbd-real")
def test_rgbd_photographs() -> None:
    root = DATA / "rgbd-real"
    ssd = open_dataset("folder", root / "ssd", images="RGB", masks="GT")
    assert (len(ssd), ssd.modalities) == (3, ("depth",))
    assert all(scene.surfaces and scene.modalities["depth"].dtype == np.uint8 for scene in ssd)
    nlpr = open_dataset("folder", root / "nlpr", images="RGB", masks="groundtruth", modalities="depth@Depth")
    (scene,) = nlpr
    assert scene.modalities["depth"].dtype == np.uint16
    assert scene.modalities["depth"].shape == (640, 480, 1)
    assert [surface.name for surface in scene.surfaces] == ["255"]
