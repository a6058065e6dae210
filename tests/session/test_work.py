"""Files of work: written whole or not at all, read without a network, taken up again in a session."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmms_deploy import LATER, Bundle, Session, read_work
from mmms_deploy.annotations import coco_dataset
from mmms_deploy.bundle import ZoomRule
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.errors import (
    AnswerError,
    NoImageError,
    OtherImageError,
    OutputExistsError,
    OutputWriteError,
    SessionError,
    WorkError,
)
from mmms_deploy.session.mask_mark import agreement
from tests.support.annotating import GREY, SIZE
from tests.support.joint import write_joint
from tests.support.journals import DEPTH, PICTURE, joint_walk, modal_walk, proposing_walk, separate_walk
from tests.support.toy import write_toy


def masks(session: Session) -> dict[str, np.ndarray[Any, Any]]:
    return {one.name: one.result.mask for one in session._objects()}


@pytest.mark.parametrize("kind", ["separate", "joint", "proposing", "modalities", "zoom"])
def test_everything_comes_back(paint: Bundle, proposing: Bundle, tmp_path: Path, kind: str) -> None:
    modalities = (ModalitySpec(name="depth", scale=0.01, optional=True),)
    made: dict[str, tuple[Callable[[], Bundle], Callable[[Session], None], dict[str, Any]]] = {
        "separate": (lambda: paint, separate_walk, {}),
        "joint": (lambda: write_joint(tmp_path / "joint"), joint_walk, {}),
        "proposing": (lambda: proposing, proposing_walk, {}),
        "modalities": (lambda: write_toy(tmp_path / "late", modalities=modalities), modal_walk, {}),
        "zoom": (lambda: paint, separate_walk, {"zoom": ZoomRule(smallest=20), "flip": True}),
    }
    make, walk, options = made[kind]
    bundle, path = make(), tmp_path / "work.json"
    with Session(bundle, threads=1, **options) as first, Session(bundle, threads=1, **options) as second:
        walk(first)
        first.save(path)
        second.use(first.features) if kind != "zoom" else second.set_image(PICTURE[::-1])
        second.click(9, 9)
        loaded = second.load(path)
        assert second.to_dict() == first.to_dict()
        np.testing.assert_array_equal(second.labels, first.labels)
        for name, mask in masks(first).items():
            np.testing.assert_array_equal(masks(second)[name], mask)
        assert loaded.result is second.result
        assert [one.name for one in loaded.objects] == list(first.surfaces)
        assert all((one.iou, one.pixels) == (1.0, 0) for one in loaded.objects)
        assert not loaded.differing
        assert (loaded.same_bundle, loaded.same_engine, loaded.same_views, loaded.same_image) == (True,) * 4


def test_it_is_read_without_a_network(paint: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "work.json"
    with Session(paint, threads=1) as session:
        separate_walk(session)
        session.select("\ud800 half")
        session.click(50, 30)
        session.select("empty")
        session.save(path)
        work = read_work(path)
        assert work.annotation == session.to_dict()
        assert work.image.size == SIZE
        assert work.image.content == session.features.content
        assert (work.bundle.name, work.bundle.digest) == ("paint", paint.manifest.digest)
        np.testing.assert_array_equal(work.labels(), session.labels)
        for name, mask in masks(session).items():
            np.testing.assert_array_equal(work.annotations[name].mask, mask)
        assert work.annotations["\ud800 half"].clicks == ((50.0, 30.0, True),)
        assert [(one.name, one.label) for one in work.objects] == list(session.surfaces.items())
        assert work.to_coco("a.png")["annotations"] == session.to_coco("a.png")["annotations"]
        np.testing.assert_array_equal(work.detections().mask, session.detections().mask)
        coco_dataset(work.to_coco("a.png"))
    assert json.loads(path.read_text())["format"] == "mmms-deploy-work"
    assert str(GREY.tobytes()[:6]) not in path.read_text()


def test_undone_clicks_are_no_clicks_of_the_mask(session: Session, tmp_path: Path) -> None:
    session.click(10, 10)
    session.click(20, 20)
    session.undo()
    session.save(tmp_path / "work.json")
    (one,) = read_work(tmp_path / "work.json").objects
    assert one.clicks == ((10.0, 10.0, True),)
    assert one.area == np.count_nonzero(one.mask) == session.result.area


def test_the_image_can_be_passed_in(paint: Bundle, session: Session, tmp_path: Path) -> None:
    session.click(10, 10)
    session.save(tmp_path / "work.json")
    with Session(paint, threads=1) as other:
        with pytest.raises(NoImageError, match="no image is set"):
            other.load(tmp_path / "work.json")
        assert not other.load(tmp_path / "work.json", image=GREY).differing
        assert not other.load(tmp_path / "work.json", features=session.features).differing
        assert not other.load(tmp_path / "work.json").differing
        with pytest.raises(SessionError, match="both an image and features"):
            other.load(tmp_path / "work.json", image=GREY, features=session.features)
        with pytest.raises(SessionError, match="modalities alone"):
            other.load(tmp_path / "work.json", depth=DEPTH)


def test_another_image_is_refused_and_changes_nothing(paint: Bundle, session: Session, tmp_path: Path) -> None:
    session.click(10, 10)
    session.save(tmp_path / "work.json")
    with Session(paint, threads=1) as other:
        other.set_image(PICTURE)
        before = other.click(5, 5)
        with pytest.raises(OtherImageError, match=r"that is set .*the part 'rgb' differs") as caught:
            other.load(tmp_path / "work.json")
        assert "70 x 50 pixels" in str(caught.value.expected)
        with pytest.raises(OtherImageError, match="that was given"):
            other.load(tmp_path / "work.json", image=PICTURE[::-1])
        assert other.result is before
        loaded = other.load(tmp_path / "work.json", other_image=True)
        assert not loaded.same_image
        assert other.clicks == session.clicks
        other.set_image(PICTURE[:30])
        with pytest.raises(OtherImageError, match="the size"):
            other.load(tmp_path / "work.json")
        with pytest.raises(SessionError, match="about an image of"):
            other.load(tmp_path / "work.json", other_image=True)


def test_another_modality_is_another_image(tmp_path: Path) -> None:
    modalities = (ModalitySpec(name="depth", scale=0.01, optional=True),)
    bundle = write_toy(tmp_path / "late", modalities=modalities)
    with Session(bundle, threads=1) as session:
        session.set_image(GREY, depth=DEPTH)
        session.click(10, 10)
        session.save(tmp_path / "work.json")
        session.set_modalities(depth=DEPTH // 2)
        with pytest.raises(OtherImageError, match="the part 'depth' differs"):
            session.load(tmp_path / "work.json")
        assert session.load(tmp_path / "work.json", image=GREY, depth=DEPTH).same_image
        session.set_image(GREY, depth=LATER)
        with pytest.raises(OtherImageError):
            session.load(tmp_path / "work.json")


def test_another_bundle_and_engine_say_how_masks_differ(session: Session, tmp_path: Path) -> None:
    session.click(10, 10)
    session.select("dog")
    session.click(50, 30)
    session.save(tmp_path / "work.json")
    kept = masks(session)
    modalities = (ModalitySpec(name="depth", optional=True),)
    other = write_toy(tmp_path / "other", radius=9.0, modalities=modalities)
    with Session(other, engine="onnxruntime", threads=1) as answering:
        loaded = answering.load(tmp_path / "work.json", image=GREY, depth=DEPTH)
        assert not loaded.same_bundle
        assert loaded.same_image, "another bundle has another idea of modalities"
        assert len(loaded.differing) == 2
        for one in loaded.objects:
            found = agreement(kept[one.name], masks(answering)[one.name])
            assert (one.iou, one.pixels) == found
            assert 0 < one.iou < 1
            assert (one.area, one.area_now) == (kept[one.name].sum(), masks(answering)[one.name].sum())


def test_a_failing_engine_changes_nothing(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session.click(10, 10)
    session.save(tmp_path / "work.json")
    session.set_image(PICTURE)
    before = session.click(20, 20)

    def failing(*_: object) -> object:
        raise AnswerError("no answer")

    monkeypatch.setattr(session, "_after_click", failing)
    with pytest.raises(AnswerError):
        session.load(tmp_path / "work.json", image=GREY)
    assert session.result is before


def test_nothing_is_replaced_by_accident(session: Session, tmp_path: Path) -> None:
    session.save(tmp_path / "work.json")
    before = (tmp_path / "work.json").read_bytes()
    session.click(10, 10)
    with pytest.raises(OutputExistsError, match="exists"):
        session.save(tmp_path / "work.json")
    assert (tmp_path / "work.json").read_bytes() == before
    session.save(tmp_path / "work.json", overwrite=True)
    assert len(read_work(tmp_path / "work.json").objects[0].clicks) == 1
    with pytest.raises(OutputWriteError):
        session.save(tmp_path / "no" / "work.json")
    assert [path.name for path in tmp_path.iterdir()] == ["work.json"]


def changed(path: list[str | int], value: object) -> Callable[[dict[str, Any]], None]:
    def change(saved: dict[str, Any]) -> None:
        place: Any = saved
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed(["format"], "coco"),
        changed(["version"], 2),
        changed(["sha256"], "0" * 64),
        changed(["image", "content"], "0" * 64),
        changed(["image", "size"], [1 << 20, 1 << 20]),
        changed(["annotation", "surfaces", 0, "interactions", 0, 0], 11.0),
        changed(["objects"], []),
        changed(["objects", 0, "counts"], "0"),
        changed(["surplus"], 1),
    ],
)
def test_what_was_changed_is_refused(
    session: Session, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    session.click(10, 10)
    path = tmp_path / "work.json"
    session.save(path)
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found, indent=2))
    assert read_work(path).objects, "spaces do not count"
    change(found)
    path.write_text(json.dumps(found))
    before = session.result
    with pytest.raises(WorkError, match="is no file of work"):
        session.load(path)
    assert session.result is before


def test_what_is_no_file_of_work(tmp_path: Path) -> None:
    for content in (b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b"nul"):
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(WorkError):
            read_work(tmp_path / "x.json")
    with pytest.raises(WorkError, match="no such file"):
        read_work(tmp_path / "no.json")
    with pytest.raises(WorkError, match="folder"):
        read_work(tmp_path)
