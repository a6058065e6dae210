"""A model: one engine, many sessions, images encoded once; and objects that come back with their image."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmms_deploy import LATER, Bundle, Click, Session, open_engine
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.errors import (
    BundleError,
    EngineError,
    FeatureError,
    HistoryError,
    ImageError,
    ModalityError,
    SessionClosedError,
    SessionError,
)
from mmms_deploy.session import Model
from tests.support.annotating import GREY, SIZE
from tests.support.flaky import Flaky
from tests.support.toy import write_toy

IMAGES = [np.random.default_rng(seed).integers(0, 255, (*SIZE, 3), dtype=np.uint8) for seed in range(4)]
CLICKS = [Click(10, 10), Click(40, 30), Click(12, 14, False)]


def clicked(session: Session) -> list[np.ndarray]:
    return [session.click(one.x, one.y, one.positive).network_probability for one in CLICKS]


@pytest.fixture
def model(paint: Bundle) -> Iterator[Model]:
    with Model(paint, threads=1) as model:
        yield model


def alone(bundle: Bundle, image: np.ndarray) -> list[np.ndarray]:
    with Session(bundle, threads=1) as session:
        session.set_image(image)
        return clicked(session)


# --- encoding ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("every_engine")
def test_encoded_images_stand_for_images_on_every_engine(paint: Bundle) -> None:
    with Model(paint) as model, model.session() as one, model.session() as other:
        every = [model.encode(image) for image in IMAGES]
        assert model.runs["image"] == len(IMAGES)
        expected = []
        for image in IMAGES:
            one.set_image(image)
            expected.append(clicked(one))
        for place in (3, 0, 2, 1, 0):
            one.use(every[place])
            other.use(every[-1 - place])
            first = one.click(*CLICKS[0].to_list()[:2])
            np.testing.assert_array_equal(clicked(other), expected[-1 - place])
            np.testing.assert_array_equal(first.network_probability, expected[place][0])
        assert one.runs["image"] == len(IMAGES)
        assert other.runs["image"] == 0
        model.encode(IMAGES[0])
        kept = every[2].on_host()
    with pytest.raises(FeatureError, match="closed"):
        _ = every[0].arrays
    with Session(paint) as session:
        session.use(kept)
        np.testing.assert_array_equal(clicked(session), expected[2])
        for gone in (every[0], every[1]):
            with pytest.raises(FeatureError, match="model that is closed"):
                session.use(gone)
        np.testing.assert_array_equal(session.result.network_probability, expected[2][-1])


def test_arrays_that_were_asked_for_outlive_the_model(paint: Bundle) -> None:
    with Model(paint, threads=1) as model:
        features = model.encode(IMAGES[0])
        numbers = dict(features.arrays)
    assert features.arrays == numbers
    with Session(paint, threads=1) as session:
        session.use(features)
        np.testing.assert_array_equal(clicked(session), alone(paint, IMAGES[0]))


@pytest.mark.usefixtures("every_engine")
def test_with_modalities(modal: Bundle) -> None:
    maps: dict[str, Any] = {"depth": np.full(SIZE, 20.0), "event": np.full((*SIZE, 3), 0.1)}
    with Model(modal) as model, model.session() as session:
        features = model.encode(GREY, **maps)
        waiting = model.encode(GREY, depth=LATER, event=maps["event"])
        assert (features.present, waiting.awaited) == ({"depth", "event"}, {"depth"})
        session.set_image(GREY, **maps)
        expected = clicked(session)
        session.use(features)
        np.testing.assert_array_equal(clicked(session), expected)
        session.use(waiting)
        with pytest.raises(ModalityError, match="not there yet"):
            session.click(1, 1)
        session.set_modalities(depth=maps["depth"])
        np.testing.assert_array_equal(clicked(session), expected)
        assert session.runs["image"] == 1
        with pytest.raises(ModalityError):
            model.encode(GREY)
        with pytest.raises(ModalityError):
            model.encode(GREY, other=maps["depth"], **maps)
        assert session.features.content == features.content


def test_a_backbone_that_runs_elsewhere(tmp_path: Path) -> None:
    modalities = (ModalitySpec(name="depth", scale=0.01),)
    bundle = write_toy(tmp_path / "black_box", modalities=modalities, black_box=True)
    given = {"f1": np.full((1, 1, 1, 1), 0.2, dtype=np.float32)}
    depth = np.full(SIZE, 20.0)
    with Model(bundle, threads=1) as model, model.session() as session:
        features = model.encode_backbone(given, SIZE, depth=depth)
        assert (features.size, features.picture) == (SIZE, None)
        session.set_features(given, SIZE, depth=depth)
        expected = clicked(session)
        session.use(features)
        np.testing.assert_array_equal(clicked(session), expected)
        with pytest.raises(SessionError, match="without its backbone"):
            model.encode(GREY)
        with pytest.raises(FeatureError):
            model.encode_backbone({}, SIZE, depth=depth)
        for size in ((0, 1), (1 << 20, 1 << 20), (1 << 40, 1), "12", None, (1.0, 2.0)):
            with pytest.raises(FeatureError):
                model.encode_backbone(given, size, depth=depth)  # type: ignore[arg-type]


def test_a_bad_image_changes_nothing(model: Model) -> None:
    before = model.encode(IMAGES[0])
    for bad in (None, "nothing.png", np.zeros((0, 3, 3), np.uint8), np.zeros((4, 4, 3)), b""):
        with pytest.raises(ImageError):
            model.encode(bad)  # type: ignore[arg-type]
    assert model.encode(IMAGES[0]).content == before.content
    assert model.encode(IMAGES[0][..., ::-1], channel_order="bgr").content == before.content


def test_a_failing_stage_leaves_earlier_features(paint: Bundle) -> None:
    flaky = Flaky(open_engine(paint, engine="onnxruntime", threads=1))
    with Model(paint, engine=flaky) as model, model.session() as session:  # type: ignore[arg-type]
        features = model.encode(IMAGES[0])
        flaky.fail = "image"
        with pytest.raises(EngineError):
            model.encode(IMAGES[1])
        session.use(features)
        np.testing.assert_array_equal(clicked(session), alone(paint, IMAGES[0]))
    flaky.close()


def test_threads_encode_and_click(model: Model, paint: Bundle) -> None:
    expected = [alone(paint, image) for image in IMAGES]

    def annotate(number: int) -> list[np.ndarray]:
        with model.session() as session:
            for turn in range(3):
                place = (number + turn) % len(IMAGES)
                session.use(model.encode(IMAGES[place]))
                np.testing.assert_array_equal(clicked(session), expected[place])
            return clicked(session)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(annotate, range(8)))


# --- sessions, opening and closing ------------------------------------------------------------------------------------


def test_a_session_is_open_for_all_options(model: Model) -> None:
    with model.session(history_limit=2, keep_image=False, zoom=True, resume=True) as session:
        session.set_image(IMAGES[0])
        clicked(session)
        assert session.undo().index == 2
        assert not session.keep_image
    with pytest.raises(HistoryError):
        model.session(history_limit=-1)
    with pytest.raises(SessionError):
        model.session(zoom="yes")  # type: ignore[arg-type]


def test_what_a_model_says(model: Model, paint: Bundle) -> None:
    assert model.bundle.path == paint.path
    assert model.engine is model.opened.info
    assert model.store is None
    assert repr(model).startswith("Model(")


def test_closing(paint: Bundle) -> None:
    model = Model(paint, threads=1)
    features = model.encode(IMAGES[0])
    model.close()
    model.close()
    with pytest.raises(SessionClosedError):
        model.encode(IMAGES[0])
    with pytest.raises(EngineError):
        model.session()
    with pytest.raises(FeatureError):
        features.on_host()
    assert "Features(" in repr(features)


def test_an_engine_of_the_caller_stays_open(paint: Bundle, echo: Bundle) -> None:
    engine = open_engine(paint, engine="onnxruntime", threads=1)
    with Model(paint, engine=engine) as model:
        features = model.encode(IMAGES[0]).on_host()
        assert model.opened is engine
    with Session(paint, engine=engine) as session:
        session.use(features)
        session.click(1, 1)
    with pytest.raises((BundleError, EngineError)):
        Model(echo, engine=engine)
    engine.close()
    with pytest.raises(EngineError):
        Model(paint, engine=engine)


@pytest.mark.parametrize("wrong", [{"device": "gpu"}, {"engine": "nothing"}, {"precision": "fp3"}, {"threads": 0}])
def test_wrong_options(paint: Bundle, wrong: dict[str, Any]) -> None:
    with pytest.raises(EngineError):
        Model(paint, **wrong)
    with pytest.raises(BundleError):
        Model("no-such-bundle")


def test_nothing_is_held_beyond_what_is_used(paint: Bundle) -> None:
    model = Model(paint, threads=1)
    features = model.encode(IMAGES[0])
    assert features.resident is not None
    picture = weakref.ref(features.picture)  # type: ignore[arg-type]
    model.encode(IMAGES[1])
    del features
    gc.collect()
    assert picture() is None
    model.close()


# --- objects that come back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [100, 1, 0, None])
def test_objects_come_back_with_their_image(model: Model, limit: int | None) -> None:
    with model.session(resume=True, history_limit=limit) as session:
        session.set_image(IMAGES[0])
        clicked(session)
        session.select("dog")
        session.click(30, 20)
        session.rename("1", "cat")
        before, labels, mask = session.to_dict(), session.labels, session.mask
        session.set_image(IMAGES[1])
        assert (session.clicks, dict(session.surfaces)) == ((), {"1": 1})
        session.click(5, 5)
        session.use(model.encode(IMAGES[0]))
        assert session.to_dict() == before
        np.testing.assert_array_equal(session.labels, labels)
        np.testing.assert_array_equal(session.mask, mask)
        assert session.can_undo is (limit != 0)
        session.set_image(IMAGES[1])
        assert session.clicks == (Click(5.0, 5.0),)
        session.reset()
        session.set_image(IMAGES[0])
        session.set_image(IMAGES[1])
        assert session.clicks == ()


def test_one_click_comes_back_without_a_history(model: Model) -> None:
    with model.session(resume=True, history_limit=0) as session:
        session.set_image(IMAGES[0])
        session.click(3, 4)
        session.set_image(IMAGES[1])
        session.set_image(IMAGES[0])
        assert session.clicks == (Click(3.0, 4.0),)


def test_undone_clicks_and_masks_come_back(model: Model) -> None:
    with model.session(resume=True) as session:
        session.set_image(IMAGES[0])
        clicked(session)
        session.undo()
        session.undo()
        session.set_mask(np.eye(*SIZE, dtype=bool))
        session.undo()
        before, mask = session.to_dict(), session.mask
        session.set_image(IMAGES[1])
        session.set_image(IMAGES[0])
        assert session.to_dict() == before
        np.testing.assert_array_equal(session.mask, mask)
        assert session.redo().click == CLICKS[0]


def test_without_resume_nothing_comes_back(model: Model) -> None:
    with model.session() as session:
        session.set_image(IMAGES[0])
        clicked(session)
        session.set_image(IMAGES[1])
        session.set_image(IMAGES[0])
        assert session.clicks == ()


def test_a_restored_image_that_cannot_be_answered_changes_nothing(paint: Bundle) -> None:
    flaky = Flaky(open_engine(paint, engine="onnxruntime", threads=1))
    with Session(paint, engine=flaky, resume=True) as session:  # type: ignore[arg-type]
        session.set_image(IMAGES[0])
        clicked(session)
        session.set_image(IMAGES[1])
        session.click(7, 7)
        before, mask = session.to_dict(), session.mask
        flaky.fail = "click"
        with pytest.raises(EngineError):
            session.set_image(IMAGES[0])
        assert session.to_dict() == before
        np.testing.assert_array_equal(session.mask, mask)
        flaky.fail = None
        session.set_image(IMAGES[0])
        assert session.clicks == tuple(CLICKS)
    flaky.close()


def test_a_modality_is_part_of_what_comes_back(modal: Bundle) -> None:
    maps: dict[str, Any] = {"depth": np.full(SIZE, 20.0), "event": np.full((*SIZE, 3), 0.1)}
    with Session(modal, threads=1, resume=True) as session:
        session.set_image(GREY, **maps)
        session.click(3, 3)
        session.set_image(GREY, depth=np.zeros(SIZE), event=maps["event"])
        assert session.clicks == ()
        session.click(4, 4)
        session.set_modalities(depth=maps["depth"])
        session.set_image(GREY // 2, **maps)
        session.set_image(GREY, **maps)
        assert session.clicks == (Click(4.0, 4.0),)
        session.set_image(GREY, depth=LATER, event=maps["event"])
        assert session.clicks == ()
