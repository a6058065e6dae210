"""Sessions that clean masks: every mask is cleaned, and nothing that the network sees or answers."""

from __future__ import annotations

import asyncio
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmms_deploy import AsyncSession, Bundle, ClickResult, MaskCleaning, Model, Session, read_work
from mmms_deploy.annotations import mask_of_rle, read_labels
from mmms_deploy.bundle import ZoomRule
from mmms_deploy.doors.opening import Opening
from mmms_deploy.errors import DoorError, SessionError
from mmms_deploy.imaging.cleaning import clean_labels
from mmms_deploy.session.interactions import MaskInput, checked_mask
from tests.support.annotating import GREY, SIZE
from tests.support.joint import write_joint

CLEANING = MaskCleaning(fill_holes=40, drop_specks=40, keep_largest=2, simplify=2.5)
STEPS: tuple[Callable[[Session], object], ...] = (
    lambda session: session.click(20, 20),
    lambda session: session.click(24, 22),
    lambda session: session.click(50, 38),
    lambda session: session.click(22, 20, positive=False),
    lambda session: session.undo(),
    lambda session: session.redo(),
    lambda session: session.add_clicks([(60, 10), (30, 30), (62, 12, 0)]),
    lambda session: session.undo(),
    lambda session: session.set_clicks([(20, 20), (12, 34)]),
    lambda session: session.set_mask(np.eye(*SIZE, dtype=np.bool_)),
    lambda session: session.click(40, 30),
    lambda session: session.select("dog"),
    lambda session: session.click(8, 8),
    lambda session: session.reset(),
    lambda session: session.restore(session.to_dict()),
    lambda session: session.predict([[30, 20], [36, 24]], [1, 1]),
)


def expected(raw: ClickResult, *, by_hand: bool = False) -> np.ndarray:
    return raw.mask if by_hand or not raw.clicks else CLEANING.clean(raw.mask, raw.clicks)


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_joint(tmp_path_factory.mktemp("bundles") / "joint")


def in_step(bundle: Bundle, **options: Any) -> int:
    """Make the same calls in a session that cleans masks and one that does not; return how many masks differ."""
    with (
        Session(bundle, threads=1, **options) as plain,
        Session(bundle, threads=1, cleaning=CLEANING, **options) as one,
    ):
        differing = 0
        for session in (plain, one):
            session.set_image(GREY)
        for step in STEPS:
            for session in (plain, one):
                step(session)
            raw, cleaned = plain.result, one.result
            np.testing.assert_array_equal(cleaned.probability, raw.probability)
            np.testing.assert_array_equal(cleaned.network_probability, raw.network_probability)
            np.testing.assert_array_equal(cleaned.above(0.4), raw.above(0.4))
            newest = plain._state.surfaces.current.history.current.newest
            wanted = expected(raw, by_hand=isinstance(newest, MaskInput))
            np.testing.assert_array_equal(cleaned.mask, wanted)
            assert not cleaned.mask.flags.writeable
            assert cleaned.area == wanted.sum()
            np.testing.assert_array_equal(one.mask, cleaned.mask)
            np.testing.assert_array_equal(mask_of_rle(cleaned.rle()), wanted)
            differing += not np.array_equal(wanted, raw.mask)
        assert one.runs == plain.runs
        assert one.to_dict() == plain.to_dict()
        return differing


@pytest.mark.usefixtures("every_engine")
def test_masks_are_cleaned_and_nothing_that_the_network_sees(paint: Bundle) -> None:
    assert in_step(paint) > 5


@pytest.mark.parametrize("options", [{"zoom": ZoomRule(smallest=20)}, {"flip": True}], ids=["zoom", "flip"])
def test_in_crops_and_with_mirror_images(paint: Bundle, options: dict[str, Any]) -> None:
    assert in_step(paint, **options) > 5


def test_labels_and_files_have_the_cleaned_masks(paint: Bundle, tmp_path: Path) -> None:
    with Session(paint, threads=1, cleaning=CLEANING) as session:
        assert session.cleaning == CLEANING
        session.set_image(GREY)
        first = session.click(20, 20)
        answers = session.click_objects({"dog": (50, 38), "cat": (60, 8)})
        masks = {"1": first.mask, **{name: answer.mask for name, answer in answers.items()}}
        laid = np.zeros(SIZE, dtype=np.int32)
        for name, mask in masks.items():
            laid[mask] = session.surfaces[name]
        np.testing.assert_array_equal(session.labels, laid)
        session.save_labels(tmp_path / "labels.png")
        np.testing.assert_array_equal(read_labels(tmp_path / "labels.png")[0], laid)
        drawn = [mask_of_rle(one["segmentation"]) for one in session.to_coco()["annotations"]]
        for mask, found in zip(masks.values(), drawn, strict=True):
            np.testing.assert_array_equal(found, mask)
        assert pickle.loads(pickle.dumps(first)).area == first.area


def test_a_mask_by_hand_stays_and_undo_brings_the_same_back(paint: Bundle) -> None:
    speckled = np.zeros(SIZE, dtype=np.bool_)
    speckled[::5, ::5] = True
    with Session(paint, threads=1, cleaning=MaskCleaning(drop_specks=4, keep_largest=1)) as session:
        session.set_image(GREY)
        clicked = session.click(20, 20).mask
        np.testing.assert_array_equal(session.set_mask(speckled).mask, speckled)
        np.testing.assert_array_equal(session.undo().mask, clicked)
        np.testing.assert_array_equal(session.redo().mask, speckled)


def test_candidates_are_cleaned(proposing: Bundle) -> None:
    with Session(proposing, threads=1) as plain, Session(proposing, threads=1, cleaning=CLEANING) as session:
        for one in (plain, session):
            one.set_image(GREY)
            one.click(35, 25)
        raw, cleaned = plain.result, session.result
        for before, after in zip(raw.candidates, cleaned.candidates, strict=True):
            np.testing.assert_array_equal(after.mask, CLEANING.clean(before.mask, raw.clicks))
            assert after.area == after.mask.sum()
            np.testing.assert_array_equal(after.probability, before.probability)
        for place, one in enumerate(cleaned.candidates):
            np.testing.assert_array_equal(session.choose(place).mask, one.mask)
        masks, _, _ = session.predict([[35, 25]], [1], multimask_output=True)
        np.testing.assert_array_equal(masks, np.stack([one.mask for one in session.result.candidates]))


def test_objects_that_are_answered_at_once(joint: Bundle) -> None:
    cleaning = MaskCleaning(simplify=2, drop_specks=8)
    with Session(joint, threads=1) as plain, Session(joint, threads=1, cleaning=cleaning) as session:
        for one in (plain, session):
            one.set_image(GREY)
            one.click(20, 20)
            one.select("dog")
            one.click(36, 22)
            one.click(28, 40, positive=False)
        placed = [(20.0, 20.0, 1), (36.0, 22.0, 2), (28.0, 40.0, 0)]
        wanted = clean_labels(cleaning, plain.labels, placed)
        assert not np.array_equal(wanted, plain.labels)
        np.testing.assert_array_equal(session.labels, wanted)
        np.testing.assert_array_equal(session.mask, wanted == 2)
        np.testing.assert_array_equal(session.result.probability, plain.result.probability)
        np.testing.assert_array_equal(session.select("1").mask, wanted == 1)
        session.undo()
        session.redo()
        np.testing.assert_array_equal(session.labels, wanted)


def test_what_others_took_is_shown_as_it_was_and_the_network_sees_its_own(paint: Bundle) -> None:
    with Session(paint, threads=1) as plain, Session(paint, threads=1, cleaning=CLEANING) as session:
        for one in (plain, session):
            one.set_image(GREY)
            one.click(20, 20)
        raw = plain.mask
        shown = session.mask
        session.select("dog")
        session.set_mask(np.pad(np.ones((SIZE[0], 20), np.bool_), ((0, 0), (0, SIZE[1] - 20))))
        taken = session.mask
        rest = session.select("1")
        np.testing.assert_array_equal(rest.mask, shown & ~taken)
        newest = session._state.surfaces.current.history.current.newest
        assert isinstance(newest, MaskInput)
        seen = checked_mask(raw & ~taken, SIZE, session._answer_size, session.bundle.manifest.clicks)
        np.testing.assert_array_equal(newest.previous, seen.previous)
        saved = json.loads(json.dumps(session.to_dict()))
        answer = session.click(30, 20).probability
        session.restore(saved)
        np.testing.assert_array_equal(session.mask, rest.mask)
        np.testing.assert_array_equal(session.click(30, 20).probability, answer)


def test_work_says_how_masks_were_cleaned(paint: Bundle, tmp_path: Path) -> None:
    with Session(paint, threads=1, cleaning=CLEANING) as session, Session(paint, threads=1) as plain:
        for one in (session, plain):
            one.set_image(GREY)
            one.click(20, 20)
        session.save(tmp_path / "work.json")
        plain.save(tmp_path / "plain.json")
        assert "cleaning" not in json.loads((tmp_path / "plain.json").read_text())
        assert read_work(tmp_path / "plain.json").cleaning is None
        assert read_work(tmp_path / "work.json").cleaning == CLEANING
        same = session.load(tmp_path / "work.json")
        assert (same.same_cleaning, same.differing) == (True, ())
        other = plain.load(tmp_path / "work.json")
        assert not other.same_cleaning
        assert other.differing
        assert plain.load(tmp_path / "plain.json").same_cleaning


def test_every_way_to_a_session_takes_it(paint: Bundle) -> None:
    with Session(paint, threads=1, cleaning=CLEANING) as session:
        session.set_image(GREY)
        wanted = session.click(20, 20).mask

    async def asked() -> np.ndarray:
        async with AsyncSession(paint, threads=1, cleaning=CLEANING) as waiting:
            assert waiting.cleaning == CLEANING
            await waiting.set_image(GREY)
            return (await waiting.click(20, 20)).mask

    np.testing.assert_array_equal(asyncio.run(asked()), wanted)
    with Model(paint, threads=1) as model, model.session(cleaning=CLEANING) as session:
        session.set_image(GREY)
        np.testing.assert_array_equal(session.click(20, 20).mask, wanted)
    settings = {
        name: str(getattr(CLEANING, name)) for name in ("fill_holes", "drop_specks", "keep_largest", "simplify")
    }
    opening = Opening.of({**settings, "threads": "1"})
    with opening.model(paint.path) as model, opening.session(model) as session:
        assert session.cleaning == CLEANING
    with Opening.of({}).model(paint.path) as model, Opening.of({}).session(model) as session:
        assert session.cleaning is None


@pytest.mark.parametrize("settings", [{"fill_holes": -1}, {"drop_specks": "many"}, {"simplify": "-0.5"}])
def test_settings_of_a_door_that_are_no_numbers_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(DoorError, match=next(iter(settings))):
        Opening.of(settings)


def test_the_library_is_looked_for_when_a_session_is_opened(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SessionError, match="OpenCV") as raised:
        Session(paint, cleaning=CLEANING)
    assert "[clean]" in raised.value.fix
    with pytest.raises(SessionError, match="cleaning is True"):
        Session(paint, cleaning=True)  # type: ignore[arg-type]
    with Session(paint, threads=1, cleaning=MaskCleaning()) as session:
        session.set_image(GREY)
        session.click(20, 20)
