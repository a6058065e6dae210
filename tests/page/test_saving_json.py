"""The page's COCO files and outlines: equal to what the package makes of the same label map."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pycocotools.mask
import pytest

from mmms_deploy import Session, __version__
from mmms_deploy.annotations import CocoObject, CocoWriter, Polygon, mask_of_polygons, mask_of_segmentation
from tests.support.annotating import GREY, SIZE
from tests.support.joint import write_joint
from tests.support.masks import AWKWARD, noisy
from tests.support.saving import Refused, as_map, call_saving, outlines_of, patches

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

NAMES = ['dög "x"', "犬 \U0001f408", "__proto__", "1", "a\n\t\\", "</script>"]


def objects_of(labels: np.ndarray, gone: int = 2) -> list[dict[str, Any]]:
    """The objects of a label map, not in the order of their labels, and one without a pixel."""
    there = [int(label) for label in np.unique(labels) if label]
    found = [
        {"label": label, "name": f"{NAMES[label % len(NAMES)]} {label}", "clicks": [[label % 7, 1.5, label % 2]]}
        for label in [*there[1::2], *there[::2]]
    ]
    return [*found, {"label": max([*there, 1]) + gone, "name": "gone", "clicks": []}]


def label_maps() -> list[np.ndarray]:
    found = [patches(size, [1, 2, 5, 300], n) for n, size in enumerate([(1, 1), (1, 9), (8, 1), (17, 13), (200, 300)])]
    found.append(patches((30, 40), range(1, 500), 2))
    found += [mask.astype(np.int32) * 7 for mask in AWKWARD.values()]
    # The mask and what is around it, both as objects.
    found += [np.where(mask, 2, 1) for mask in AWKWARD.values()]
    found += [np.where(mask, 2, 1) for mask in noisy(60)]
    for seed, density in enumerate((0.1, 0.3, 0.45, 0.6, 0.8)):
        random = np.random.default_rng(seed)
        found.append((random.random((60, 50)) < density) * random.integers(1, 3, (60, 50)))
    rings = np.hypot(*np.indices((61, 61)) - 30).astype(int) // 3 % 3  # holes in islands in holes
    dense = np.random.default_rng(9).random((80, 90)) < 0.7  # hundreds of holes in several pieces
    return [*found, dense.astype(np.int32), rings, 1 + rings]


def python_coco(
    labels: np.ndarray, objects: list[dict[str, Any]], polygons: bool, empty: bool, version: str = __version__
) -> dict[str, Any]:
    writer = CocoWriter(polygons=polygons)
    kept = [one for one in objects if empty or (labels == one["label"]).any()]
    made = [
        CocoObject(
            labels == one["label"],
            one.get("category", one["name"]),
            [(x, y, bool(positive)) for x, y, positive in one["clicks"]],
            surface=one["name"],
        )
        for one in kept
    ]
    writer.add_image("für/a.jpg", (labels.shape[0], labels.shape[1]), made)
    found = writer.dataset()
    found["info"] = {"description": f"annotated with mmms-deploy {version}".strip()}
    return found


def as_given(labels: np.ndarray, objects: list[dict[str, Any]], **more: Any) -> list[Any]:
    return [{**as_map(labels), "fileName": "für/a.jpg", "objects": objects, **more}]


@pytest.mark.parametrize("polygons", [False, True])
def test_coco_is_that_of_python(modules: Page, polygons: bool) -> None:
    cases = [(labels, objects_of(labels)) for labels in label_maps()]
    calls = [as_given(*case, polygons=polygons, empty=n % 2 == 0) for n, case in enumerate(cases)]
    forms = set()
    for number, (case, text) in enumerate(zip(cases, call_saving(modules, "cocoJson", calls), strict=True)):
        labels = case[0]
        found = json.loads(text)
        assert found == python_coco(*case, polygons, number % 2 == 0, version="")
        assert list(found["categories"]) == sorted(found["categories"], key=lambda one: one["id"])
        by_name = {one["name"]: one["label"] for one in case[1]}
        for annotation in found["annotations"]:
            mask = labels == by_name[annotation["surface"]]
            segmentation = annotation["segmentation"]
            forms.add(type(segmentation))
            if isinstance(segmentation, dict):
                encoded = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
                assert segmentation["counts"].encode() == encoded["counts"]
            size = (labels.shape[0], labels.shape[1])
            np.testing.assert_array_equal(mask_of_segmentation(segmentation, size), mask)
    assert forms == ({dict, list} if polygons else {dict})


def test_outlines_are_those_of_python(modules: Page) -> None:
    cases = [(labels, objects_of(labels)) for labels in label_maps()]
    answers = call_saving(modules, "polygonsJson", [as_given(*case) for case in cases])
    holes = 0
    for (labels, objects), text in zip(cases, answers, strict=True):
        found = json.loads(text)
        size = (labels.shape[0], labels.shape[1])
        assert found == {
            "format": "mmms-deploy-polygons",
            "version": 1,
            "file_name": "für/a.jpg",
            "size": list(size),
            "objects": outlines_of(labels, objects),
        }
        for one in found["objects"]:
            drawn = [
                Polygon(np.array(p["outer"], float), tuple(np.array(hole, float) for hole in p["holes"]))
                for p in one["polygons"]
            ]
            holes += sum(len(polygon.holes) for polygon in drawn)
            np.testing.assert_array_equal(mask_of_polygons(drawn, size), labels == one["label"])
    assert holes > 500


def test_categories_of_several_objects(modules: Page) -> None:
    labels = patches((20, 30), [1, 2, 3], 4)
    objects = [
        {"label": 3, "name": "dog 1", "category": "dog", "clicks": []},
        {"label": 1, "name": "cat", "clicks": [[0, 0, 1]]},
        {"label": 2, "name": "dog 2", "category": "dog", "clicks": []},
    ]
    (text,) = call_saving(modules, "cocoJson", [as_given(labels, objects, version=__version__)])
    found = json.loads(text)
    assert found == python_coco(labels, objects, False, False)
    assert [one["category_id"] for one in found["annotations"]] == [1, 2, 1]


def test_coco_of_a_session(modules: Page, tmp_path: Path) -> None:
    """A network that answers for all objects at once: its masks never overlap, so the label map says everything."""
    with Session(write_joint(tmp_path / "joint"), threads=1) as session:
        session.set_image(GREY)
        made = (("1", 10, 10, True), ("dög", 40, 30, True), ("1", 20.25, 12, True), ("dög", 30, 30, False))
        for name, x, y, positive in made:
            session.select(name)
            session.click(x, y, positive)
        session.select("none")
        session.click(60, 40)
        session.undo()
        session.rename("1", "first")
        labels, dataset, with_polygons = (
            session.labels,
            session.to_coco("a.jpg"),
            session.to_coco("a.jpg", polygons=True),
        )
        clicks: dict[str, list[Any]] = {name: [] for name in session.surfaces}
        for name, click in session.all_clicks:
            clicks[name].append(click.to_list())
        objects = [{"label": label, "name": name, "clicks": clicks[name]} for name, label in session.surfaces.items()]
        outlines = []
        for name in ("first", "dög", "none"):
            plain = session.select(name).to_dict(mask="polygons")
            outlines.append({key: plain[key] for key in ("clicks", "area", "bbox", "polygons")})
    given = {**as_map(labels), "fileName": "a.jpg", "objects": objects, "version": __version__}
    found = call_saving(modules, "cocoJson", [[given], [{**given, "polygons": True}]])
    assert [json.loads(text) for text in found] == [dataset, with_polygons]
    assert len(dataset["annotations"]) == 2
    (text,) = call_saving(modules, "polygonsJson", [[given]])
    read = json.loads(text)["objects"]
    assert [(one.pop("name"), one.pop("label")) for one in read] == [("first", 1), ("dög", 2), ("none", 3)]
    assert read == outlines
    assert labels.shape == SIZE


@pytest.mark.parametrize("function", ["cocoJson", "polygonsJson"])
def test_what_is_refused(modules: Page, function: str) -> None:
    plain = as_given(np.ones((4, 5), int), [])[0]
    one = {"label": 1, "name": "dog", "clicks": []}
    wrong: list[dict[str, Any]] = [
        {**plain, "height": 5},
        {**plain, "labels": [1] * 20},
        {**plain, "fileName": None},
        {**plain, "objects": [one, {**one, "name": "cat"}]},
        {**plain, "objects": [{**one, "label": 0}]},
        {**plain, "objects": [{**one, "label": 1.5}]},
        {**plain, "objects": [{**one, "name": ""}]},
        {**plain, "objects": [{**one, "name": 3}]},
        {**plain, "objects": [{**one, "category": ""}]},
        {**plain, "objects": [{**one, "clicks": [[1, 2]]}]},
        {**plain, "objects": [{**one, "clicks": [[1, 2, 2]]}]},
        {**plain, "objects": [{**one, "clicks": [[1, None, 1]]}]},
        {**plain, "objects": [{**one, "clicks": ["abc"]}]},
    ]
    for given, answer in zip(wrong, call_saving(modules, function, [[one] for one in wrong]), strict=True):
        assert isinstance(answer, Refused), given
        assert (answer.name, answer.kind) == ("AnswerError", "AnnotationError"), (given, answer)
