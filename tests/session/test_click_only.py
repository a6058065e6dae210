"""Sessions and models with a click bundle: what they start on, and what they refuse by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmms_deploy import LATER, Bundle, Features, Model, Session
from mmms_deploy.bundle import ModalitySpec, Precision
from mmms_deploy.errors import Door, FeatureError, ModalityError, NoImageError, SessionError
from mmms_deploy.replay import write_click_bundle
from mmms_deploy.session.features import origin_of
from mmms_deploy.store import FeatureStore
from tests.support.annotating import GREY, SIZE
from tests.support.click_bundles import answers, kept_for_clicks
from tests.support.toy import write_toy

IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
DEPTH = np.full(SIZE, 20.0)
EVENT = np.full((*SIZE, 3), 0.1)


@pytest.fixture(scope="module")
def clicks(paint: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_click_bundle(paint, tmp_path_factory.mktemp("clicks") / "clicks")


@pytest.fixture(scope="module")
def modal_clicks(modal: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_click_bundle(modal, tmp_path_factory.mktemp("clicks") / "modal-clicks")


@pytest.fixture(scope="module")
def given(paint: Bundle) -> Features:
    with Model(paint, threads=1) as model:
        return model.encode(IMAGE).on_host()


def holding(features: Features) -> FeatureStore:
    store = FeatureStore(half="off")
    store.keep(features)
    return store


@pytest.fixture
def session(clicks: Bundle) -> Iterator[Session]:
    with Session(clicks, threads=1) as session:
        yield session


def test_the_keys_agree(paint: Bundle, clicks: Bundle, given: Features, session: Session) -> None:
    assert origin_of(clicks.manifest) == origin_of(paint.manifest) == paint.manifest.digest == given.bundle
    timings = session.use(given)
    assert timings.found
    assert session.features.key == given.key
    assert session.features.content == given.content


@pytest.mark.parametrize(
    ("call", "error", "given_words", "fix"),
    [
        (lambda s: s.set_image(IMAGE), SessionError, "encodes no image", "use(Features.load(FILE))"),
        (lambda s: s.set_image(IMAGE, depth=DEPTH), SessionError, "encodes no image", "use(Features.load(FILE))"),
        (
            lambda s: s.set_features({"f1": np.zeros((1, 1, 1, 1))}, SIZE),
            SessionError,
            "no backbone's features",
            "use(",
        ),
        (lambda s: s.set_modalities(depth=DEPTH), ModalityError, "has no stage that reads one", "encode the image"),
    ],
    ids=["image", "image with a modality", "backbone features", "modalities"],
)
def test_what_needs_the_other_stages_is_refused_by_name(
    session: Session,
    given: Features,
    call: Callable[[Session], object],
    error: type[SessionError],
    given_words: str,
    fix: str,
) -> None:
    session.use(given)
    result = session.click(10, 10)
    with pytest.raises(error, match=given_words) as caught:
        call(session)
    assert "is a click bundle" in caught.value.given
    assert fix in str(caught.value.fix)
    assert "--" not in caught.value.message(Door.PYTHON)
    assert session.result is result, "the image and its clicks stay"


@pytest.mark.parametrize("asked", ["zoom", "flip"])
def test_crops_and_mirror_images_are_refused_by_name(clicks: Bundle, asked: str) -> None:
    with pytest.raises(SessionError, match=f"{asked} was asked of paint-clicks, a click bundle"):
        Session(clicks, **{asked: True})  # type: ignore[arg-type]


def test_before_any_image(session: Session) -> None:
    with pytest.raises(NoImageError):
        session.click(10, 10)


def test_a_store_has_the_image(clicks: Bundle, paint: Bundle, given: Features) -> None:
    with Session(paint, threads=1) as whole:
        whole.set_image(IMAGE)
        expected = answers(whole)
    with Session(clicks, threads=1, store=holding(given)) as session:
        assert session.set_image(IMAGE).found
        assert answers(session) == expected
        np.testing.assert_array_equal(session.features.picture, IMAGE)
        before = session.result
        with pytest.raises(SessionError, match="its store has no features of this image") as caught:
            session.set_image(GREY)
        assert "use(Features.load(FILE))" in str(caught.value.fix)
        with pytest.raises(ModalityError, match="is a click bundle"):
            session.set_image(IMAGE, depth=LATER)
        assert session.result is before
        assert set(session.runs) == {"click"}


def test_a_store_has_the_image_in_another_precision(clicks: Bundle, given: Features) -> None:
    with Session(clicks, threads=1, store=holding(replace(given, precision=Precision.FP16))) as session:
        assert session.set_image(IMAGE).found


def test_features_in_a_store_that_lack_a_tensor_stay_there(clicks: Bundle, given: Features) -> None:
    """Only their owner can make them again."""
    store = holding(given.with_arrays({}))
    with Session(clicks, threads=1, store=store) as session, pytest.raises(FeatureError, match="without f1"):
        session.set_image(IMAGE)
    assert store.find(given.key) is not None


def test_a_model_opens_sessions(clicks: Bundle, given: Features) -> None:
    with Model(clicks, threads=1, store=holding(given)) as model:
        assert model.encode(IMAGE).key == given.key
        with pytest.raises(SessionError, match="its store has no features"):
            model.encode(GREY)
        with pytest.raises(SessionError, match="takes no backbone's features"):
            model.encode_backbone({"f1": np.zeros((1, 1, 1, 1))}, SIZE)
        with model.session() as session:
            session.use(given)
            session.click(10, 10)
            session.use(model.encode(IMAGE))
            session.click(10, 10)
    with Model(clicks, threads=1) as model, pytest.raises(SessionError, match="encodes no image"):
        model.encode(IMAGE)


def test_features_of_another_bundle_are_refused(session: Session, echo: Bundle) -> None:
    with Model(echo, threads=1) as model, pytest.raises(FeatureError, match="belong to another bundle"):
        session.use(model.encode(IMAGE))


def test_all_features_of_the_owner_are_taken(modal: Bundle, modal_clicks: Bundle, tmp_path: Path) -> None:
    """Those that a fuser needs too, as the owner's own store keeps them; the session takes what clicks read."""
    with Session(modal, threads=1) as whole:
        whole.set_image(IMAGE, depth=DEPTH, event=EVENT)
        everything = whole.features
        expected = answers(whole)
    assert {"f1", "fused", "depth"} <= set(everything.arrays)
    with Session(modal_clicks, threads=1) as session:
        session.use(everything)
        assert answers(session) == expected
        assert set(session.features.arrays) == {"fused"}
        assert session.features.key == everything.key
        assert session.modalities == {"depth", "event"}


def test_features_without_all_modalities_are_refused(modal: Bundle, modal_clicks: Bundle) -> None:
    with Model(modal, threads=1) as model, Session(modal_clicks, threads=1) as session:
        early = model.encode(IMAGE, depth=LATER, event=EVENT)
        with pytest.raises(FeatureError, match="await depth"):
            session.use(early)
        with pytest.raises(FeatureError, match="await depth"):
            early.for_clicks(modal.manifest)


def test_features_that_lack_a_tensor_are_refused(session: Session, given: Features, paint: Bundle) -> None:
    with pytest.raises(FeatureError, match="without f1"):
        session.use(given.with_arrays({}))
    with pytest.raises(FeatureError, match="belong to another bundle"):
        replace(given, bundle="0" * 64).for_clicks(paint.manifest)


def test_a_bypassed_fuser_leaves_one_tensor(tmp_path: Path) -> None:
    """What was another name of a tensor that only the fuser reads is the tensor itself then."""
    whole = write_toy(tmp_path / "whole", modalities=(ModalitySpec(name="depth", scale=0.01, optional=True),))
    with Model(whole, threads=1) as model:
        resident = model.encode(IMAGE)
        assert resident.aliases == {"fused": "f1"}
        kept = resident.for_clicks(whole.manifest)
        assert (set(kept.arrays), kept.aliases, kept.key) == ({"fused"}, {}, resident.key)
        np.testing.assert_array_equal(kept.arrays["fused"], resident.arrays["f1"])
        with model.session() as session:
            session.use(kept)
            session.click(10, 10)
            with pytest.raises(SessionError, match="a modality changes"):
                session.set_modalities(depth=DEPTH)
            assert set(kept.on_host().for_clicks(whole.manifest).arrays) == {"fused"}


@pytest.mark.usefixtures("every_engine")
def test_every_engine_starts_on_them(modal: Bundle, modal_clicks: Bundle, tmp_path: Path) -> None:
    """Those on a GPU, too, on the stand-in."""
    with Session(modal) as whole:
        whole.set_image(IMAGE, depth=DEPTH, event=EVENT)
        kept = kept_for_clicks(whole, tmp_path / "image.features")
        expected = answers(whole)
    with Session(modal_clicks) as session:
        assert session.engine.name == whole.engine.name
        session.use(kept)
        assert answers(session) == expected
        session.use(kept.without_picture())
        session.click(10, 10)
