from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from mmms_deploy.errors import MMMSDeployWarning
from mmms_deploy.evaluation.datasets import open_dataset
from mmms_deploy.evaluation.datasets.labels import read_labels
from mmms_deploy.evaluation.errors import DatasetFileError
from tests.support.dataset_trees import RGB, SIZE, labels, masks, same, save

DISK = np.hypot(*np.mgrid[-32:32, -48:48]) < 22
LARGE = np.random.default_rng(0).integers(0, 256, (*DISK.shape, 3), dtype=np.uint8)
TRIMAP = labels(nw=255, ne=128)


def pair(root: Path, mask: np.ndarray, image: np.ndarray = RGB, name: str = "a", folders: str = "images masks") -> Path:
    images, masks_ = folders.split()
    save(root / images / f"{name}.png", image)
    return save(root / masks_ / f"{name}.png", mask)


@pytest.mark.parametrize("kind", ["davis", "hqseg", "voc"])
def test_a_trimap_is_no_other_kind_of_mask(tmp_path: Path, kind: str) -> None:
    folders = {
        "davis": "images masks",
        "hqseg": "thin_object_detection/COIFT/images thin_object_detection/COIFT/masks",
        "voc": "JPEGImages SegmentationObject",
    }[kind]
    pair(tmp_path, TRIMAP, folders=folders)
    options = {"voc": {"split": "all"}, "hqseg": {"sets": "coift"}}.get(kind, {})
    with pytest.raises(DatasetFileError, match="values 0, 128 and 255: it looks like a trimap") as caught:
        open_dataset(kind, tmp_path, **options)[0]
    assert "'grabcut' or 'berkeley'" in str(caught.value.fix)
    if kind == "davis":
        with pytest.raises(DatasetFileError, match="looks like a trimap"):
            open_dataset(kind, tmp_path, objects="each")[0]
        same(open_dataset(kind, tmp_path, void=128)[0], {"object": TRIMAP == 255})
        same(open_dataset("berkeley", tmp_path)[0], {"object": TRIMAP == 255})
    if kind == "hqseg":
        same(open_dataset(kind, tmp_path, threshold=127, **options)[0], {"object": TRIMAP >= 128})


def test_a_plain_folder_takes_a_trimap_with_a_warning(tmp_path: Path) -> None:
    pair(tmp_path, TRIMAP)
    with pytest.warns(MMMSDeployWarning, match="with the option void=128 it is left out"):
        same(open_dataset("folder", tmp_path)[0], {"128": TRIMAP == 128, "255": TRIMAP == 255})
    same(open_dataset("folder", tmp_path, void=128)[0], {"255": TRIMAP == 255})


@pytest.mark.parametrize("values", [{"nw": 1}, {"nw": 1, "ne": 2, "sw": 3}])
def test_a_label_map_is_no_trimap(tmp_path: Path, values: dict[str, int]) -> None:
    pair(tmp_path, labels(**values))
    with pytest.raises(DatasetFileError, match="expected: a trimap"):
        open_dataset("berkeley", tmp_path)[0]
    pair(tmp_path, labels())  # an image without an object
    same(open_dataset("berkeley", tmp_path)[0], {})


def test_255_beside_numbers_of_objects_has_to_be_said(tmp_path: Path) -> None:
    found = labels(nw=1, ne=2, sw=255)
    pair(tmp_path, found)
    with pytest.raises(DatasetFileError, match=r"value 255 beside numbers of objects \(1, 2\)[\s\S]*void=255"):
        open_dataset("davis", tmp_path)[0]
    scene = open_dataset("davis", tmp_path, void=255)[0]
    same(scene, {"object": (found == 1) | (found == 2)})
    pair(tmp_path, labels(nw=1, ne=2))
    same(open_dataset("davis", tmp_path)[0], {"object": (found == 1) | (found == 2)})


@pytest.mark.parametrize("how", ["blur", "wide blur", "enlarged", "supersampled", "16 bits"])
def test_a_smoothed_mask_is_no_crowd_of_objects(tmp_path: Path, how: str) -> None:
    mask = Image.fromarray(DISK.astype(np.uint8) * 255)
    if how == "enlarged":
        mask = mask.resize((24, 16)).resize(mask.size, Image.Resampling.BILINEAR)
    elif how == "supersampled":
        mask = mask.resize((288, 192), Image.Resampling.NEAREST).rotate(7).resize(mask.size, Image.Resampling.BOX)
    else:
        mask = mask.filter(ImageFilter.GaussianBlur(6 if how == "wide blur" else 1))
    array = np.asarray(mask).astype(np.uint16) * 257 if how == "16 bits" else np.asarray(mask)
    file = pair(tmp_path, array, LARGE)
    with pytest.raises(DatasetFileError, match=r"looks like a smoothed mask|different values") as caught:
        open_dataset("folder", tmp_path)[0]
    assert "threshold=127" in str(caught.value.fix)
    assert str(file) in caught.value.given
    found = masks(open_dataset("folder", tmp_path, threshold=127 * (257 if how == "16 bits" else 1))[0])
    assert (found["object"] != DISK).mean() < 0.03


def test_small_and_thin_objects_are_no_smoothing(tmp_path: Path) -> None:
    dots = np.zeros(DISK.shape, np.uint8)
    for number in range(1, 41):
        dots[2 * (number // 20) * 4 + 3, (number % 20) * 4 + 2] = number  # single pixels
    dots[40:60, 10:80] = 200
    pair(tmp_path, dots, LARGE)
    assert len(masks(open_dataset("folder", tmp_path)[0])) == 41
    lines = np.zeros(DISK.shape, np.uint8)
    for number in range(1, 30):
        lines[2 * number : 2 * number + 1] = number
    lines[:, 40:60] = 250
    pair(tmp_path, lines, LARGE)
    assert len(masks(open_dataset("folder", tmp_path)[0])) == 30


def test_many_touching_objects_are_no_smoothing(tmp_path: Path) -> None:
    cells = np.kron(np.arange(1, 97).reshape(8, 12), np.ones((8, 8))).astype(np.uint8)
    pair(tmp_path, cells, LARGE)
    assert len(masks(open_dataset("folder", tmp_path)[0])) == 96


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_an_object_in_alpha_alone_is_found(tmp_path: Path, value: int, mode: str) -> None:
    alpha = labels(nw=255)
    colours = np.full((*SIZE, len(mode) - 1), value, np.uint8)
    pair(tmp_path, np.dstack([colours, alpha]))
    same(open_dataset("folder", tmp_path)[0], {"255": alpha == 255})
    same(open_dataset("davis", tmp_path)[0], {"object": alpha == 255})


def test_alpha_that_says_the_same_or_something_else(tmp_path: Path) -> None:
    numbers = labels(nw=3, se=5)
    colours = np.repeat(numbers[:, :, None], 3, axis=2)
    pair(tmp_path, np.dstack([colours, (numbers > 0) * np.uint8(255)]))
    same(open_dataset("folder", tmp_path)[0], {"3": numbers == 3, "5": numbers == 5})
    pair(tmp_path, np.dstack([colours, (numbers == 3) * np.uint8(255)]))
    with pytest.raises(DatasetFileError, match="marks other pixels by its colours than by its alpha channel"):
        open_dataset("folder", tmp_path)[0]


def test_colours_that_are_no_labels_are_named(tmp_path: Path) -> None:
    file = tmp_path / "mask.tif"
    Image.new("CMYK", (4, 3)).save(file)
    with pytest.raises(DatasetFileError, match="colour mode 'CMYK'"):
        read_labels(file)


def test_labels_of_few_bits_are_as_they_are_stored(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    file = tmp_path / "mask.png"
    numbers = np.arange(12, dtype=np.uint8).reshape(3, 4) % 2
    cv2.imwrite(str(file), numbers * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])
    np.testing.assert_array_equal(read_labels(file), numbers)


@pytest.mark.parametrize(("of_images", "of_masks"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_both_forms_of_an_accented_name_match(tmp_path: Path, of_images: str, of_masks: str) -> None:
    def name(form: str) -> str:
        return unicodedata.normalize(form, "Größe é")

    mask = labels(nw=255)
    save(tmp_path / "images" / f"{name(of_images)}.png", RGB)
    save(tmp_path / "masks" / f"{name(of_masks)}.png", mask)
    save(tmp_path / "depth" / f"{name(of_masks)}_depth.png", mask)
    data = open_dataset("folder", tmp_path)
    assert data.scene_names == (name("NFC"),)
    same(data[0], {"255": mask == 255})
    listed = tmp_path / "frames.txt"
    listed.write_text(f"{name(of_masks).replace(' ', '_')}\n", encoding="utf-8")
    for folder, form in (("images", of_images), ("masks", of_masks)):
        save(tmp_path / "davis" / folder / f"{name(form).replace(' ', '_')}.png", mask if folder == "masks" else RGB)
    assert len(open_dataset("davis", tmp_path / "davis", frames=str(listed))) == 1
    save(tmp_path / "images" / f"{name('NFC')}.png", RGB)
    save(tmp_path / "images" / f"{name('NFD')}.png", RGB)
    with pytest.raises(DatasetFileError, match="same name"):
        open_dataset("folder", tmp_path)


def test_names_in_a_coco_file_match_in_both_forms(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    save(tmp_path / "val2017" / f"{unicodedata.normalize('NFD', 'Größe')}.png", RGB)
    (tmp_path / "annotations").mkdir()
    content = {
        "images": [{"id": 1, "height": SIZE[0], "width": SIZE[1], "file_name": "Größe.png"}],
        "categories": [],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 9, 0, 9, 5, 0, 5]]}],
    }
    file = tmp_path / "annotations" / "instances_val2017.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    data = open_dataset("coco", tmp_path)
    assert data.scene_names == ("Größe",)
    assert data[0].surfaces[0].mask.sum() == 45
    for broken in (b'{"images": "\xff"}', b"[" * 100_000, b'{"images": [' * 20_000):
        file.write_bytes(broken)
        with pytest.raises(DatasetFileError, match="cannot be read"):
            open_dataset("coco", tmp_path)


def test_names_that_are_no_utf8_can_be_stored(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        save(tmp_path / folder / "a.png", RGB if folder == "images" else labels(nw=255))
        try:
            (tmp_path / folder / "a.png").rename(tmp_path / folder / os.fsdecode(b"\xff.png"))
        except OSError:
            pytest.skip("this disk takes names in UTF-8 alone")
    data = open_dataset("folder", tmp_path)
    assert data.scene_names == ("\\xff",)
    data.scene_names[0].encode()
    assert data[0].surfaces
