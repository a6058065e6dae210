"""COCO files: pycocotools reads back every mask."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from mmms_deploy.annotations import CocoObject, CocoWriter, coco_dataset, mask_of_segmentation
from mmms_deploy.errors import AnnotationError, OutputExistsError, OutputFormatError
from tests.support.masks import AWKWARD, whole

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
# pycocotools reads its arrays the way of NumPy 1.

SIZE = (4, 5)
RING, EYE = AWKWARD["a hole"], np.eye(*SIZE, dtype=np.bool_)


@pytest.mark.parametrize("polygons", [False, True])
def test_pycocotools_reads_every_mask(polygons: bool, tmp_path: Path) -> None:
    masks = list(whole())
    writer = CocoWriter(polygons=polygons)
    for number, mask in enumerate(masks):
        # Two objects that overlap.
        assert writer.add_image(f"{number}.jpg", mask.shape, [CocoObject(mask, "thing"), CocoObject(~mask, "rest")])
    writer.write(tmp_path / "coco.json")
    coco = COCO(tmp_path / "coco.json")
    assert len(coco.getImgIds()) == len(masks)
    for number, mask in enumerate(masks, 1):
        image = coco.loadImgs(number)[0]
        assert (image["file_name"], image["height"], image["width"]) == (f"{number - 1}.jpg", *mask.shape)
        for category, expected in (("thing", mask), ("rest", ~mask)):
            (annotation,) = coco.loadAnns(coco.getAnnIds(number, coco.getCatIds([category])))
            np.testing.assert_array_equal(coco.annToMask(annotation), expected)
            assert annotation["area"] == expected.sum()
            assert annotation["iscrowd"] == 0


def test_holes_are_run_lengths() -> None:
    writer = CocoWriter(polygons=True)
    writer.add_image("a.jpg", SIZE, [CocoObject(RING, "ring"), CocoObject(EYE, "eye"), CocoObject(EYE & False, "none")])
    ring, eye, none = (one["segmentation"] for one in writer.dataset()["annotations"])
    assert isinstance(ring, dict)
    assert isinstance(none, dict)
    assert len(eye) == 4
    assert all(len(polygon) == 8 for polygon in eye)


def test_an_annotation_has_its_clicks_and_its_surface() -> None:
    writer = CocoWriter()
    writer.add_image(
        "a.jpg", SIZE, [CocoObject(RING * np.uint8(255), "ring", ((1.5, 2, True), (0, 0, False)), "ring 1")]
    )
    (annotation,) = json.loads(json.dumps(writer.dataset()))["annotations"]
    assert annotation["clicks"] == [[1.5, 2, 1], [0, 0, 0]]
    assert annotation["surface"] == "ring 1"
    assert annotation["bbox"] == [0, 0, 5, 4]


def of_one(name: str, *categories: str) -> dict:
    writer = CocoWriter()
    writer.add_image(name, SIZE, [CocoObject(EYE, category) for category in categories])
    return writer.dataset()


def test_joined_data_sets_have_ids_of_their_own() -> None:
    first, second = of_one("a.jpg", "dog", "cat"), of_one("b.jpg", "cat", "cow")
    before = json.dumps([first, second])
    joined = coco_dataset(first, second, categories=["cow"])
    assert json.dumps([first, second]) == before
    assert [(one["id"], one["name"]) for one in joined["categories"]] == [(1, "cow"), (2, "dog"), (3, "cat")]
    assert [(one["id"], one["file_name"]) for one in joined["images"]] == [(1, "a.jpg"), (2, "b.jpg")]
    numbers = [(one["id"], one["image_id"], one["category_id"]) for one in joined["annotations"]]
    assert numbers == [(1, 1, 2), (2, 1, 3), (3, 2, 3), (4, 2, 1)]
    joined["images"].clear()
    assert coco_dataset(first)["images"]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"images": [], "annotations": [{"id": 1, "image_id": 1, "category_id": 1}], "categories": []},
        {"images": 3, "annotations": [], "categories": []},
        {"images": [{}], "annotations": [], "categories": []},
        [],
    ],
    ids=str,
)
def test_what_is_no_data_set_changes_nothing(wrong: dict) -> None:
    writer = CocoWriter()
    writer.add(of_one("a.jpg", "dog"))
    before = writer.dataset()
    with pytest.raises(AnnotationError, match="cannot be added"):
        writer.add(wrong)
    assert writer.dataset() == before


def test_masks_of_another_size_change_nothing() -> None:
    writer = CocoWriter()
    with pytest.raises(AnnotationError, match="'small' has shape"):
        writer.add_image("a.jpg", SIZE, [CocoObject(EYE, "dog"), CocoObject(EYE[1:], "small")])
    assert not writer.dataset()["images"]
    assert not writer.dataset()["categories"]


def test_files(tmp_path: Path) -> None:
    writer = CocoWriter()
    with pytest.raises(OutputFormatError, match=r"\.json"):
        writer.write(tmp_path / "coco.txt")
    writer.write(tmp_path / "coco.json")
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        writer.write(tmp_path / "coco.json")
    writer.add(of_one("\u00e4.jpg", "dog"))
    writer.write(tmp_path / "coco.json", overwrite=True)
    assert json.loads((tmp_path / "coco.json").read_text("utf-8")) == writer.dataset()


def test_segmentations_are_read_back() -> None:
    for polygons in (False, True):
        for mask in whole(30):
            writer = CocoWriter(polygons=polygons)
            writer.add_image("a.jpg", mask.shape, [CocoObject(mask, "thing")])
            (annotation,) = json.loads(json.dumps(writer.dataset()))["annotations"]
            np.testing.assert_array_equal(mask_of_segmentation(annotation["segmentation"], mask.shape), mask)


def test_segmentations_of_others_are_drawn_as_by_the_library(tmp_path: Path) -> None:
    polygons = (np.random.default_rng(3).random((3, 10)) * ([60, 40] * 5)).tolist()
    image = {"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": polygons}
    dataset = {"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "a.json").write_text(json.dumps(dataset))
    coco = COCO(tmp_path / "a.json")
    np.testing.assert_array_equal(mask_of_segmentation(polygons, (40, 60)), coco.annToMask(coco.anns[1]))
    assert not mask_of_segmentation([], (40, 60)).any()


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "text",
        3,
        [1, 2, 3, 4, 5, 6],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 1e9]],
        [[0] * 7],
        [[None] * 6],
        {},
        [[[0, 1]] * 3],
    ],
)
def test_segmentations_that_are_none(wrong: object) -> None:
    with pytest.raises(AnnotationError):
        mask_of_segmentation(wrong, SIZE)
    with pytest.raises(AnnotationError, match="rows"):
        mask_of_segmentation({"size": [2, 2], "counts": [4]}, SIZE)


def test_categories_are_names() -> None:
    for wrong in ("dog", 3, [1, 2]):
        with pytest.raises(AnnotationError, match="to fix: pass"):
            CocoWriter(wrong)  # type: ignore[arg-type]
    writer = CocoWriter()
    with pytest.raises(AnnotationError, match="category is 7"):
        writer.add_image("a.jpg", (4, 5), [CocoObject(np.ones((4, 5), bool), 7)])  # type: ignore[arg-type]
    with pytest.raises(AnnotationError, match="image's name is None"):
        writer.add_image(None, (4, 5))  # type: ignore[arg-type]
    assert writer.dataset()["images"] == []
