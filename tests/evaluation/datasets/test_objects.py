"""SBD, Pascal VOC, COCO: many objects an image."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from mmms_deploy.annotations.rle import draw_runs
from mmms_deploy.evaluation.datasets import open_dataset
from mmms_deploy.evaluation.errors import DatasetFileError, DatasetLayoutError, DatasetLibraryError
from tests.support.dataset_trees import RGB, SIZE, labels, same, save, save_palette

OBJECTS = labels(nw=1, ne=2, sw=255)


@pytest.fixture
def sbd(tmp_path: Path) -> Path:
    scipy_io = pytest.importorskip("scipy.io")
    root = tmp_path / "benchmark_RELEASE" / "dataset"
    for name in ("2008_000003", "2008_000002"):
        save(root / "img" / f"{name}.jpg", RGB)
        boundaries = np.empty((2, 1), object)
        boundaries[:, 0] = [np.eye(3), np.eye(3)]
        instances = {"Segmentation": OBJECTS, "Boundaries": boundaries, "Categories": np.array([[15], [7]], np.uint8)}
        (root / "inst").mkdir(exist_ok=True)
        scipy_io.savemat(root / "inst" / f"{name}.mat", {"GTinst": instances}, do_compression=True)
    (root / "val.txt").write_text("2008_000003\n2008_000002\n")
    (root / "train.txt").write_text("2008_000009\n")
    return tmp_path


def test_sbd(sbd: Path) -> None:
    data = open_dataset("sbd", sbd)
    assert [scene.name for scene in data] == ["2008_000002", "2008_000003"]
    same(data[0], {"person-1": OBJECTS == 1, "car-2": OBJECTS == 2})
    np.testing.assert_array_equal(data[0].void, OBJECTS == 255)
    inner = open_dataset("sbd", sbd / "benchmark_RELEASE" / "dataset", min_area=OBJECTS.size)
    assert inner[1].surfaces == ()


def test_sbd_incomplete(sbd: Path) -> None:
    with pytest.raises(DatasetFileError, match="no image for image '2008_000009'"):
        open_dataset("sbd", sbd, split="train")
    with pytest.raises(DatasetLayoutError, match=r"no list test\.txt"):
        open_dataset("sbd", sbd, split="test")
    data = open_dataset("sbd", sbd)
    inst = sbd / "benchmark_RELEASE" / "dataset" / "inst" / "2008_000002.mat"
    whole = inst.read_bytes()
    for broken in (b"", whole[:300], b"MATLAB 7.3 MAT-file" + bytes(600), b"x" * 1000):
        inst.write_bytes(broken)
        with pytest.raises(DatasetFileError, match=str(inst)):
            data[0]
    inst.unlink()
    with pytest.raises(DatasetFileError, match=r"no mask for image '2008_000002' in .*inst"):
        open_dataset("sbd", sbd)


@pytest.mark.parametrize(
    "instances",
    [
        {"Segmentation": OBJECTS},
        {"Segmentation": OBJECTS, "Categories": np.array([[15]])},
        {"Segmentation": OBJECTS, "Categories": np.array([[15], [21]])},
        {"Segmentation": OBJECTS.astype(float), "Categories": np.array([[15], [7]])},
        {"Segmentation": OBJECTS[:, 1:], "Categories": np.array([[15], [7]])},
    ],
    ids=["no categories", "too few categories", "unknown category", "no integers", "other size"],
)
def test_sbd_contradictions(sbd: Path, instances: dict[str, np.ndarray]) -> None:
    from scipy.io import savemat

    file = sbd / "benchmark_RELEASE" / "dataset" / "inst" / "2008_000002.mat"
    savemat(file, {"GTinst": instances})
    with pytest.raises(DatasetFileError, match=str(file)):
        open_dataset("sbd", sbd)[0]


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "VOC2012"
    for name in ("2007_000033", "2007_000032"):
        save(root / "JPEGImages" / f"{name}.jpg", RGB)
        save_palette(root / "SegmentationObject" / f"{name}.png", OBJECTS)
        save_palette(root / "SegmentationClass" / f"{name}.png", np.where(OBJECTS == 2, 1, OBJECTS).astype(np.uint8))
    save(root / "JPEGImages" / "2007_000099.jpg", RGB)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_000033\n")
    return tmp_path


def test_voc(voc: Path) -> None:
    (scene,) = open_dataset("voc", voc)
    assert scene.name == "2007_000033"
    same(scene, {"object-1": OBJECTS == 1, "object-2": OBJECTS == 2})
    np.testing.assert_array_equal(scene.void, OBJECTS == 255)
    data = open_dataset("voc", voc / "VOC2012", split="all", annotations="class")
    assert data.scene_names == ("2007_000032", "2007_000033")
    same(data[0], {"aeroplane": (OBJECTS == 1) | (OBJECTS == 2)})


def test_voc_incomplete(voc: Path) -> None:
    with pytest.raises(DatasetLayoutError, match=r"no list ImageSets/Segmentation/test\.txt \(split=all"):
        open_dataset("voc", voc, split="test")
    (voc / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_000033\n2007_000099\n")
    with pytest.raises(DatasetFileError, match="no mask for image '2007_000099'"):
        open_dataset("voc", voc)
    (voc / "VOC2012" / "SegmentationObject").rename(voc / "VOC2012" / "Objects")
    with pytest.raises(DatasetLayoutError, match="no folder 'SegmentationObject'"):
        open_dataset("voc", voc)


HEIGHT, WIDTH = SIZE
SQUARE = labels(nw=1) == 1
BAND = np.zeros(SIZE, bool)
BAND[:, 2:4] = True
POLYGON = [[0, 0, WIDTH // 2, 0, WIDTH // 2, HEIGHT // 2, 0, HEIGHT // 2]]
RUNS = {"size": list(SIZE), "counts": [2 * HEIGHT, 2 * HEIGHT, (WIDTH - 4) * HEIGHT]}


def coco_file(root: Path, annotations: list[dict[str, object]], **image: object) -> None:
    content = {
        "info": {"year": 2017},
        "images": [
            {"id": 7, "height": HEIGHT, "width": WIDTH, "file_name": "000000000139.png", "license": 2} | image,
            {"id": 3, "height": HEIGHT, "width": WIDTH, "file_name": "000000000009.png"},
            {"id": 4, "height": 9, "width": 9, "file_name": "nothing in it and not there.png"},
        ],
        "annotations": [{"id": 1, "image_id": 3, "category_id": 1, "segmentation": POLYGON}, *annotations],
        "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog", "supercategory": "animal"}],
    }  # fmt: skip
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))


def object_of(number: int, category: int, segmentation: object, crowd: int = 0) -> dict[str, object]:
    return {
        "id": number, "image_id": 7, "category_id": category, "iscrowd": crowd, "segmentation": segmentation,
        "area": 12.5, "bbox": [0, 0, 1, 1],
    }  # fmt: skip


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    coco_mask = pytest.importorskip("pycocotools.mask")
    for name in ("000000000139", "000000000009"):
        save(tmp_path / "val2017" / f"{name}.png", RGB)
    compressed = coco_mask.encode(np.asfortranarray(SQUARE.astype(np.uint8)))
    text = {"size": list(SIZE), "counts": compressed["counts"].decode()}
    coco_file(
        tmp_path,
        [object_of(12, 1, text), object_of(10, 18, RUNS), object_of(11, 1, POLYGON), object_of(13, 1, RUNS, crowd=1),
         object_of(14, 1, []), object_of(15, 18, [[1, 1, 2, 2]])],
    )  # fmt: skip
    return tmp_path


def test_coco(coco: Path) -> None:
    data = open_dataset("coco", coco)
    assert [scene.name for scene in data] == ["000000000009", "000000000139"]
    same(data[0], {"person-1": SQUARE})
    same(data[1], {"dog-1": BAND, "person-1": SQUARE, "person-2": SQUARE})
    assert data[1].void is None
    assert len(open_dataset("coco", coco, min_area=100)[1].surfaces) == 2


def test_coco_under_other_names(coco: Path) -> None:
    (coco / "val2017").rename(coco / "images")
    (coco / "annotations" / "instances_val2017.json").rename(coco / "mine.json")
    with pytest.raises(DatasetLayoutError, match=r"no file annotations/instances_val2017\.json"):
        open_dataset("coco", coco)
    with pytest.raises(DatasetLayoutError, match="no folder 'val2017'"):
        open_dataset("coco", coco, annotations="mine.json")
    assert len(open_dataset("coco", coco, annotations="mine.json", images="images")) == 2


def test_lvis_names_files_by_address(coco: Path) -> None:
    coco_file(coco, [object_of(1, 1, RUNS)], file_name=None, coco_url="http://x.org/val2017/000000000139.png")
    file = coco / "annotations" / "instances_val2017.json"
    file.write_text(file.read_text().replace('"000000000009.png"', '"val2017/000000000009.png"'))
    data = open_dataset("coco", coco, images=".")
    assert data.scene_names == ("val2017/000000000009", "val2017/000000000139")


def test_coco_incomplete(coco: Path) -> None:
    (coco / "val2017" / "000000000009.png").unlink()
    with pytest.raises(DatasetFileError, match=r"no file for image '000000000009\.png'"):
        open_dataset("coco", coco)
    file = coco / "annotations" / "instances_val2017.json"
    for text in ("", "{}", '{"images": [{"id": "x"}]}', file.read_text()[:-20]):
        file.write_text(text)
        with pytest.raises(DatasetFileError, match=str(file)):
            open_dataset("coco", coco)


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [5, 5], "counts": [5, 20]},
        {"size": list(SIZE), "counts": [5, 20]},
        {"size": list(SIZE), "counts": "~~~~garbage~~~~"},
        {"size": list(SIZE), "counts": "Oo"},
        {"size": list(SIZE), "counts": [-5, HEIGHT * WIDTH + 5]},
        {"size": list(SIZE), "counts": [1 << 62] * 4 + [HEIGHT * WIDTH]},
        [[0, 0, 1e9, 0, 1e9, 1e9]],
    ],
    ids=["size", "length", "text", "cut off", "negative", "overflow", "polygon far out"],
)
def test_coco_broken_segmentations(coco: Path, segmentation: object) -> None:
    coco_file(coco, [object_of(5, 1, segmentation)])
    with pytest.raises(DatasetFileError, match=r"annotation 5 in .*json"):
        open_dataset("coco", coco)[1]


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_like_the_library(seed: int) -> None:
    coco_mask = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(seed)
    mask = random.random((40, 30 + seed)) < [0.5, 0.01, 0.99, 0, 1][seed]
    text = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    np.testing.assert_array_equal(draw_runs(text, mask.shape), mask)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_polygons_like_the_library(coco: Path) -> None:
    coco_mask = pytest.importorskip("pycocotools.mask")
    polygons = (np.random.default_rng(3).random((3, 10)) * ([WIDTH, HEIGHT] * 5)).tolist()
    coco_file(coco, [object_of(5, 1, polygons)])
    drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *SIZE)))
    np.testing.assert_array_equal(open_dataset("coco", coco)[1].surfaces[0].mask, drawn > 0)


def test_coco_images_of_another_size(coco: Path) -> None:
    coco_file(coco, [object_of(5, 1, RUNS)], height=HEIGHT + 1)
    with pytest.raises(DatasetFileError, match=r"000000000139.*24 rows and 36 columns") as caught:
        open_dataset("coco", coco)[1]
    assert "25 rows" in str(caught.value)


@pytest.mark.parametrize("name", ["../secret.png", "/secret.png", ""])
def test_coco_files_stay_in_their_folder(coco: Path, name: str) -> None:
    coco_file(coco, [object_of(5, 1, RUNS)], file_name=name)
    with pytest.raises(DatasetFileError, match="for image 7"):
        open_dataset("coco", coco)


@pytest.mark.parametrize(("kind", "module", "package"), [("sbd", "scipy.io", "scipy"),
                                                         ("coco", "pycocotools.mask", "pycocotools")])  # fmt: skip
def test_missing_libraries_are_named(
    kind: str, module: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DatasetLibraryError, match=f"the package {package}"):
        open_dataset(kind, tmp_path)
