"""A session that answers in the object's crop: the same as whole maps say, and every call works with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mmms_deploy import LATER, Bundle, Click, Session
from mmms_deploy.bundle import Outside, ZoomRule
from mmms_deploy.bundle.contract import Coordinates, ResizeRule
from mmms_deploy.errors import EngineError, NoImageError, SessionError
from tests.support.toy import write_toy
from tests.support.zoomed import ZoomedReference

ALIGNED = ResizeRule(align_corners=True)
SIZE = (150, 200)
PICTURE = np.random.default_rng(3).integers(0, 85, (*SIZE, 3), dtype=np.uint8)
PICTURE[:, :70] //= 2  # darker on the left; dark enough that the disks alone are above the threshold
RULE = ZoomRule(smallest=40)
CLICKS = [
    Click(60, 75),  # in the whole picture
    Click(66, 75),  # in the crop around its disk
    Click(75, 70, False),
    Click(160, 20),  # outside of the crop
    Click(58.25, 79.5),
    Click(5, 140, False),
    Click(2, 2),
]


@pytest.fixture(scope="module")
def ritm(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Coordinates and resizing as in RITM's family."""
    return write_toy(
        tmp_path_factory.mktemp("toy") / "ritm",
        coordinates=Coordinates.SCALE,
        mask_resize=ALIGNED,
        previous_resize=ALIGNED,
    )


@pytest.fixture
def session(ritm: Bundle) -> Iterator[Session]:
    with Session(ritm, engine="onnxruntime", threads=1, zoom=RULE) as session:
        session.set_image(PICTURE)
        yield session


def agree(session: Session, reference: ZoomedReference, click: Click) -> None:
    result, expected = session.click(click.x, click.y, click.positive), reference.click(click)
    assert reference.box is not None
    assert result.crop == (None if reference.zoom is None else reference.box.xyxy)
    np.testing.assert_allclose(result.probability, expected, atol=1e-5)
    certain = np.abs(expected - 0.5) > 1e-4
    np.testing.assert_array_equal(result.mask[certain], (expected > 0.5)[certain])


@pytest.mark.usefixtures("every_engine")
@pytest.mark.parametrize(
    ("zoom", "flip"),
    [(RULE, False), (ZoomRule(smallest=40, outside=Outside.KEPT), False), (RULE, True), (None, True)],
)
def test_click_by_click_as_whole_maps_say(ritm: Bundle, zoom: ZoomRule | None, flip: bool) -> None:
    with Session(ritm, threads=1, zoom=zoom or False, flip=flip) as session:
        session.set_image(PICTURE)
        reference = ZoomedReference(ritm.manifest, PICTURE, zoom, flip)
        crops = set()
        for click in CLICKS:
            agree(session, reference, click)
            crops.add(reference.box)
    assert len(crops) >= (4 if zoom is not None else 1)


def test_the_image_stage_runs_when_the_crop_changes_and_at_no_other_click(session: Session) -> None:
    assert session.runs == {"image": 1, "click": 0}
    seen = {session.click(*one.to_list()).crop for one in CLICKS}
    assert session.runs == {"image": len(seen), "click": len(CLICKS)}
    assert (0, 0, 200, 150) in seen  # the first click's, whose features set_image computed


def test_undo_and_redo_run_nothing_and_the_next_click_is_answered_where_it_has_to_be(session: Session) -> None:
    results = [session.click(*one.to_list()) for one in CLICKS[:4]]
    runs = session.runs
    for expected in (*results[2::-1], None):
        found = session.undo()
        assert found.crop == (expected.crop if expected else None)
        if expected is not None:
            np.testing.assert_array_equal(found.probability, expected.probability)
    assert not session.mask.any()
    for expected in results[:2]:
        np.testing.assert_array_equal(session.redo().mask, expected.mask)
    assert session.runs == runs
    reference = ZoomedReference(session.bundle.manifest, PICTURE, RULE, flip=False)
    for click in CLICKS[:2]:
        reference.click(click)
    for click in (Click(30, 120), Click(60, 75, False)):
        agree(session, reference, click)


def test_features_of_crops_are_kept_for_the_next_object(session: Session) -> None:
    first = session.click(60, 75), session.click(66, 75)
    session.select("other")
    session.click(160, 20)
    session.click(165, 20)
    runs = session.runs
    session.select("1")
    np.testing.assert_array_equal(session.mask, first[1].mask)
    again = session.click(62, 70)
    assert again.crop == first[1].crop
    assert session.runs["image"] == runs["image"]
    reference = ZoomedReference(session.bundle.manifest, PICTURE, RULE, flip=False)
    for click in (Click(60, 75), Click(66, 75), Click(62, 70)):
        expected = reference.click(click)
    np.testing.assert_allclose(again.probability, expected, atol=1e-5)


def test_a_mask_that_is_put_in_is_what_the_next_crop_is_around(ritm: Bundle, session: Session) -> None:
    """And a click in a crop is the same click in a session on that part of the picture alone."""
    mask = np.zeros(SIZE, bool)
    mask[80:120, 100:130] = True
    given = session.set_mask(mask)
    assert given.crop is None
    np.testing.assert_array_equal(given.mask, mask)
    result = session.click(110, 100)
    x0, y0, x1, y1 = result.crop or (0, 0, 0, 0)
    assert (x0, y0, x1, y1) == (94, 72, 137, 129)
    with Session(ritm, engine="onnxruntime", threads=1) as plain:
        plain.set_image(PICTURE[y0:y1, x0:x1])
        plain.set_mask(mask[y0:y1, x0:x1])
        alone = plain.click(110 - x0, 100 - y0)
    np.testing.assert_array_equal(result.network_probability, alone.network_probability)
    np.testing.assert_array_equal(result.mask[y0:y1, x0:x1], alone.mask)
    assert result.mask.sum() == alone.mask.sum()
    np.testing.assert_array_equal(session.undo().mask, mask)
    assert session.undo().area == 0


def test_modalities_are_cropped_like_the_picture(modal: Bundle) -> None:
    rng = np.random.default_rng(0)
    depth = np.linspace(0, 99, SIZE[1]) * np.ones(SIZE)
    event = rng.integers(0, 2, (*SIZE, 3)) / 10
    mask = np.zeros(SIZE, bool)
    mask[80:120, 100:130] = True
    with Session(modal, engine="onnxruntime", threads=1, zoom=RULE) as session:
        session.set_image(PICTURE, depth=depth, event=event)
        session.set_mask(mask)
        result = session.click(110, 100)
        x0, y0, x1, y1 = result.crop or (0, 0, 0, 0)
        part = np.s_[y0:y1, x0:x1]
        with Session(modal, engine="onnxruntime", threads=1) as plain:
            plain.set_image(PICTURE[part], depth=depth[part], event=event[part])
            plain.set_mask(mask[part])
            alone = plain.click(110 - x0, 100 - y0)
        np.testing.assert_array_equal(result.network_probability, alone.network_probability)
        # Another depth, and one that comes late: as from the start.
        session.set_modalities(depth=depth[:, ::-1])
        changed = session.result
        session.set_image(PICTURE, depth=LATER, event=event)
        session.set_modalities(depth=depth[:, ::-1])
        session.set_mask(mask)
        np.testing.assert_array_equal(session.click(110, 100).probability, changed.probability)
        assert (changed.probability != result.probability).any()


def test_lists_of_clicks_and_saved_sessions(ritm: Bundle, session: Session) -> None:
    clicks = [one.to_list() for one in CLICKS]
    mask = np.zeros(SIZE, bool)
    mask[80:120, 100:130] = True
    expected = session.set_clicks(clicks)
    session.select("given")
    session.set_mask(mask)
    session.click(110, 100)
    session.undo()
    session.select("probable")
    session.set_mask(np.where(mask, np.float32(0.75), np.float32(0.125)))
    probable = session.click(110, 100)
    stored = json.dumps(session.to_dict())
    with Session(ritm, engine="onnxruntime", threads=1, zoom=RULE) as other:
        other.set_image(PICTURE)
        answer = other.restore(json.loads(stored))
        np.testing.assert_array_equal(answer.mask, probable.mask)
        assert answer.crop == probable.crop
        assert other.to_dict() == json.loads(stored)
        other.remove("given")
        other.remove("probable")
        np.testing.assert_array_equal(other.select("1").probability, expected.probability)
    assert expected.to_dict()["crop"] == list(expected.crop or ())


def test_predict_gives_and_takes_logits_of_the_whole_picture(session: Session) -> None:
    points = np.array([[click.x, click.y] for click in CLICKS])
    labels = np.array([int(click.positive) for click in CLICKS])
    masks, _, low = session.predict(points[:3], labels[:3])
    assert low.shape == (1, 64, 96)
    runs = session.runs["click"]
    session.predict(points[:4], labels[:4], mask_input=low)
    assert session.runs["click"] == runs + 1
    reference = ZoomedReference(session.bundle.manifest, PICTURE, RULE, flip=False)
    for click in CLICKS[:4]:
        expected = reference.click(click)
        if click is CLICKS[2]:
            np.testing.assert_array_equal(masks[0], expected > 0.5)
    np.testing.assert_allclose(session.result.probability, expected, atol=1e-5)


def test_a_failing_image_stage_leaves_the_session_as_it_was(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    before = session.click(60, 75)
    run = session._runner.run

    def failing(stage: str, inputs: dict[str, object]) -> object:
        if stage == "image":
            raise EngineError("the image stage failed", expected="an answer", fix="try again")
        return run(stage, inputs)

    with monkeypatch.context() as patch:
        patch.setattr(session._runner, "run", failing)
        with pytest.raises(EngineError):
            session.click(66, 75)
    assert session.clicks == before.clicks
    reference = ZoomedReference(session.bundle.manifest, PICTURE, RULE, flip=False)
    reference.click(CLICKS[0])
    agree(session, reference, CLICKS[1])


def test_a_caller_may_use_its_buffer_again_and_keep_no_image(ritm: Bundle) -> None:
    buffer = PICTURE.copy()
    with Session(ritm, engine="onnxruntime", threads=1, zoom=RULE, keep_image=False) as session:
        session.set_image(buffer)
        buffer[:] = 255
        reference = ZoomedReference(ritm.manifest, PICTURE, RULE, flip=False)
        for click in CLICKS[:2]:
            agree(session, reference, click)
        with pytest.raises(NoImageError):
            session.result.overlay()


def test_the_rule_is_the_published_one_of_the_family(ritm: Bundle) -> None:
    for published, expected in ((None, ZoomRule()), (ZoomRule(outside=Outside.KEPT), ZoomRule(outside=Outside.KEPT))):
        from mmms_deploy.session.views import checked_zoom

        assert checked_zoom(True, published) == expected
    assert ZoomRule(outside="kept") == ZoomRule(outside=Outside.KEPT)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["yes", 1.4, {"expansion": 2}])
def test_another_zoom_is_refused(ritm: Bundle, wrong: object) -> None:
    with pytest.raises(SessionError, match="zoom is"):
        Session(ritm, engine="onnxruntime", zoom=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["zoom", "flip"])
def test_what_cannot_be_shown_a_part_is_refused_by_name(tmp_path: Path, option: str) -> None:
    provider = write_toy(tmp_path / "provider", backbone=(8, 8, 12))
    refused = [(provider, "without its backbone")]
    if option == "flip":
        refused.append((write_toy(tmp_path / "labels", labels=True), "keeps click_labels"))
    for bundle, message in refused:
        with pytest.raises(SessionError, match=f"{option} was asked of .*{message}") as caught:
            Session(bundle, engine="onnxruntime", **{option: True})
        assert f"leave out {option}" in (caught.value.fix or "")
        assert f"--{option}" in (caught.value.command_fix or "")
