"""What is taken out of results and sessions, and read back."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mmms_deploy import Bundle, Session
from mmms_deploy.annotations import CocoWriter, mask_of_polygons, mask_of_rle, read_annotation, read_labels
from mmms_deploy.errors import (
    AnnotationError,
    ImageError,
    NoImageError,
    OutputExistsError,
    OutputFormatError,
    SessionClosedError,
)
from mmms_deploy.evaluation import open_dataset
from mmms_deploy.session import draw_overlay
from tests.support.annotating import GREY, SIZE
from tests.support.toy import write_toy

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
# pycocotools reads its arrays the way of NumPy 1.

NOISE = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)


@pytest.fixture
def annotated(paint: Bundle) -> Iterator[Session]:
    """Three objects: two that overlap, one without a pixel."""
    with Session(paint, threads=1) as session:
        session.set_image(NOISE)
        session.click(10, 10)
        session.click(30, 20, positive=False)
        session.select("dog")
        session.click(14, 12)
        session.select("none")
        yield session


def each(session: Session) -> dict[str, np.ndarray]:
    """The own mask of every surface."""
    return {name: session._result_of(surface).mask for name, surface in session._state.surfaces.all.items()}


# --- one result -------------------------------------------------------------------------------------------------------


def test_a_result_in_every_form(annotated: Session) -> None:
    annotated.select("dog")
    result = annotated.result
    assert result.area == result.mask.sum() > 0
    x, y, width, height = result.bbox
    assert result.xyxy == (x, y, x + width, y + height)
    assert result.mask[y : y + height, x : x + width].sum() == result.area
    for compressed in (True, False):
        np.testing.assert_array_equal(mask_of_rle(result.rle(compressed)), result.mask)
    np.testing.assert_array_equal(coco_mask.decode(result.rle()), result.mask)
    np.testing.assert_array_equal(mask_of_polygons(result.polygons(), SIZE), result.mask)
    assert len(result.polygons(3)[0].outer) < len(result.polygons()[0].outer)


def test_an_empty_result(session: Session) -> None:
    result = session.result
    assert (result.area, result.bbox, result.xyxy, result.polygons()) == (0, (0, 0, 0, 0), (0, 0, 0, 0), ())
    assert not mask_of_rle(result.rle()).any()
    np.testing.assert_array_equal(result.overlay(), draw_overlay(GREY, result.mask))


def test_a_result_knows_its_clicks(session: Session) -> None:
    first = session.click(10, 10)
    second = session.click(40, 30, positive=False)
    assert first.clicks == session.clicks[:1]
    assert second.clicks == session.clicks
    assert session.undo().clicks == first.clicks
    assert session.set_mask(np.ones(SIZE, np.bool_)).clicks == first.clicks


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (300, 2)])
def test_small_images(paint: Bundle, size: tuple[int, int], tmp_path: Path) -> None:
    with Session(paint) as session:
        session.set_image(np.zeros((*size, 3), np.uint8))
        for result in (session.click(0, 0), session.set_mask(np.ones(size, np.bool_)), session.undo()):
            np.testing.assert_array_equal(mask_of_rle(result.rle()), result.mask)
            np.testing.assert_array_equal(mask_of_polygons(result.polygons(), size), result.mask)
            assert result.overlay().size == size[::-1]
            result.save(tmp_path / "mask.json", overwrite=True)
            np.testing.assert_array_equal(read_annotation(tmp_path / "mask.json").mask, result.mask)
        session.to_coco()
        session.save_labels(tmp_path / "labels.png")


def test_saved_and_read_back(session: Session, paint: Bundle, tmp_path: Path) -> None:
    session.click(10, 10)
    result = session.click(40.25, 30, positive=False)
    result.save(tmp_path / "mask.json")
    result.save(str(tmp_path / "mask.png"))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "mask.png")), result.mask * 255)
    with pytest.raises(OutputExistsError):
        result.save(tmp_path / "mask.png")
    with pytest.raises(OutputFormatError, match=r"\.png, .*\.json"):
        result.save(tmp_path / "mask.jpg")
    read = read_annotation(tmp_path / "mask.json")
    np.testing.assert_array_equal(read.mask, result.mask)
    with Session(paint) as other:
        other.set_image(GREY)
        for x, y, positive in read.clicks:
            other.click(x, y, positive)
        np.testing.assert_array_equal(other.mask, result.mask)
        assert other.clicks == result.clicks


# --- overlays ---------------------------------------------------------------------------------------------------------


def test_an_overlay_of_the_image_that_was_set(annotated: Session) -> None:
    result = annotated.select("1")
    np.testing.assert_array_equal(result.overlay(), draw_overlay(NOISE, result.mask, annotated.clicks))
    np.testing.assert_array_equal(result.overlay(GREY), draw_overlay(GREY, result.mask, annotated.clicks))
    with pytest.raises(ImageError, match="rows"):
        result.overlay(GREY[1:])


def test_a_buffer_that_is_used_again_changes_no_overlay(session: Session) -> None:
    buffer = NOISE.copy()
    session.set_image(buffer[:, ::-1])
    result = session.click(10, 10)
    expected = np.asarray(result.overlay())
    buffer[:] = 0
    np.testing.assert_array_equal(result.overlay(), expected)
    session.set_image(GREY)  # an older result keeps its own image
    np.testing.assert_array_equal(result.overlay(), expected)


def test_files_and_pil_images(session: Session, tmp_path: Path) -> None:
    Image.fromarray(NOISE).save(tmp_path / "photo.png")
    session.set_image(tmp_path / "photo.png")
    expected = np.asarray(session.click(10, 10).overlay())
    assert session.to_coco()["images"][0]["file_name"] == "photo.png"
    session.set_image(Image.fromarray(NOISE))
    np.testing.assert_array_equal(session.click(10, 10).overlay(), expected)
    assert session.to_coco()["images"][0]["file_name"] == ""
    with Image.open(tmp_path / "photo.png") as image:
        session.set_image(image)
    assert session.to_coco()["images"][0]["file_name"] == "photo.png"
    with (tmp_path / "photo.png").open("rb") as stream:
        session.set_image(stream)
    assert session.to_coco()["images"][0]["file_name"] == "photo.png"
    with TemporaryFile() as stream:  # its name is a number
        stream.write((tmp_path / "photo.png").read_bytes())
        session.set_image(stream)
    assert session.to_coco()["images"][0]["file_name"] == ""
    assert session.to_coco(Path("folder/other.jpg"))["images"][0]["file_name"] == "folder/other.jpg"
    assert session.to_coco("other.jpg")["images"][0]["file_name"] == "other.jpg"


def test_without_the_image(paint: Bundle) -> None:
    with Session(paint, keep_image=False) as session:
        assert not session.keep_image
        session.set_image(NOISE)
        result = session.click(10, 10)
    assert result._picture is None
    with pytest.raises(NoImageError, match="keep_image"):
        result.overlay()
    np.testing.assert_array_equal(result.overlay(NOISE), draw_overlay(NOISE, result.mask, result.clicks))


def test_features_have_no_picture(tmp_path: Path) -> None:
    with Session(write_toy(tmp_path / "provider", black_box=True)) as session:
        session.set_features({"f1": np.zeros((1, 1, 1, 1), np.float32)}, SIZE)
        result = session.click(10, 10)
        with pytest.raises(NoImageError, match="pass the image"):
            result.overlay()
        assert result.overlay(NOISE).size == SIZE[::-1]
        assert session.to_coco("a.jpg")["images"][0]["height"] == SIZE[0]
        assert len(session.detections()) == 1


# --- all objects of a session -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("polygons", [False, True])
def test_pycocotools_reads_every_surface(annotated: Session, polygons: bool, tmp_path: Path) -> None:
    writer = CocoWriter()
    writer.add(annotated.to_coco("photo.jpg", polygons=polygons, empty=True))
    writer.write(tmp_path / "coco.json")
    coco = COCO(tmp_path / "coco.json")
    masks = each(annotated)
    assert (masks["1"] & masks["dog"]).any()
    for name, mask in masks.items():
        (annotation,) = coco.loadAnns(coco.getAnnIds(catIds=coco.getCatIds([name])))
        np.testing.assert_array_equal(coco.annToMask(annotation), mask)
        assert annotation["surface"] == name
    assert coco.loadAnns(1)[0]["clicks"] == [[10, 10, 1], [30, 20, 0]]


def test_categories_and_empty_surfaces(annotated: Session) -> None:
    dataset = annotated.to_coco(categories={"1": "dog"})
    assert [one["name"] for one in dataset["categories"]] == ["dog"]
    assert [one["surface"] for one in dataset["annotations"]] == ["1", "dog"]
    annotated.select("dog")
    annotated.undo()
    assert [one["surface"] for one in annotated.to_coco()["annotations"]] == ["1"]
    annotated.redo()
    annotated.remove("1")
    assert [one["surface"] for one in annotated.to_coco()["annotations"]] == ["dog"]
    with pytest.raises(AnnotationError, match="tolerance"):
        annotated.to_coco(polygons=True, tolerance=-1)


def test_names_are_texts(annotated: Session) -> None:
    for call in (
        lambda: annotated.to_coco(3),  # type: ignore[arg-type]
        lambda: annotated.to_coco(categories=["dog"]),  # type: ignore[arg-type]
        lambda: annotated.to_coco(categories={"1": 3}),  # type: ignore[dict-item]
    ):
        with pytest.raises(AnnotationError, match="to fix: "):
            call()


def test_labels_are_saved_with_names(annotated: Session, tmp_path: Path) -> None:
    annotated.save_labels(tmp_path / "labels.png")
    labels, names = read_labels(tmp_path / "labels.png")
    np.testing.assert_array_equal(labels, annotated.labels)
    assert names == annotated.surfaces == {"1": 1, "dog": 2, "none": 3}
    with pytest.raises(OutputExistsError):
        annotated.save_labels(tmp_path / "labels.png")


def test_detections(annotated: Session) -> None:
    found = annotated.detections()
    masks = each(annotated)
    assert found.names == ("1", "dog")
    assert found.xyxy.dtype == np.float32
    assert found.mask.dtype == np.bool_
    np.testing.assert_array_equal(found.class_id, [1, 2])
    for box, mask, name in zip(found.xyxy.astype(int), found.mask, found.names, strict=True):
        np.testing.assert_array_equal(mask, masks[name])
        assert mask[box[1] : box[3], box[0] : box[2]].sum() == mask.sum()


def test_no_detections(session: Session) -> None:
    found = session.detections()
    assert (found.xyxy.shape, found.mask.shape, found.class_id.shape, len(found)) == ((0, 4), (0, *SIZE), (0,), 0)


def test_supervision_takes_them(annotated: Session) -> None:
    supervision = pytest.importorskip("supervision")
    found = annotated.detections()
    theirs = supervision.Detections(xyxy=found.xyxy, mask=found.mask, class_id=found.class_id)
    assert len(theirs) == 2
    np.testing.assert_array_equal(theirs.area, found.mask.sum((1, 2)))


def test_nothing_without_an_image(paint: Bundle, tmp_path: Path) -> None:
    with Session(paint) as session:
        calls = (session.to_coco, session.detections, lambda: session.save_labels(tmp_path / "labels.png"))
        for call in calls:
            with pytest.raises(NoImageError):
                call()
    for call in calls:
        with pytest.raises(SessionClosedError):
            call()
    assert not list(tmp_path.iterdir())


def test_evaluations_read_the_coco_file(annotated: Session, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(NOISE).save(tmp_path / "images" / "photo.png")
    writer = CocoWriter()
    writer.add(annotated.to_coco("photo.png"))
    writer.write(tmp_path / "coco.json")
    (scene,) = open_dataset("coco", tmp_path, annotations="coco.json", images="images")
    masks = each(annotated)
    for surface, name in zip(scene.surfaces, ("1", "dog"), strict=True):
        np.testing.assert_array_equal(surface.mask, masks[name])


def test_a_result_is_pickled_without_the_image(session: Session) -> None:
    session.set_image(NOISE)
    result = session.click(10, 10)
    content = pickle.dumps(result)
    assert NOISE.tobytes()[:3000] not in content
    again = pickle.loads(content)
    np.testing.assert_array_equal(again.mask, result.mask)
    np.testing.assert_array_equal(again.overlay(NOISE), result.overlay())
    with pytest.raises(NoImageError):
        again.overlay()


def test_names_that_no_file_can_hold(session: Session, tmp_path: Path) -> None:
    session.select("half \ud800")
    session.click(10, 10)
    writer = CocoWriter()
    writer.add(session.to_coco("a.jpg"))
    for write in (
        lambda: session.save_labels(tmp_path / "labels.png"),
        lambda: writer.write(tmp_path / "coco.json"),
    ):
        with pytest.raises(AnnotationError, match="ud800"):
            write()
    assert not list(tmp_path.iterdir())


def test_a_tolerance_needs_polygons(annotated: Session) -> None:
    with pytest.raises(AnnotationError, match="polygons=True"):
        annotated.to_coco(tolerance=1)
    simple = annotated.to_coco(polygons=True, tolerance=2)["annotations"]
    exact = annotated.to_coco(polygons=True)["annotations"]
    assert len(simple[1]["segmentation"][0]) < len(exact[1]["segmentation"][0])
