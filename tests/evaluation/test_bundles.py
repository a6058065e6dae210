"""Bundles as predictors: flips, thresholds, shared engines; and which modalities a network is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmms_deploy import Bundle, Session
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.evaluation.annotator import SimulatedClick
from mmms_deploy.evaluation.answering import answering
from mmms_deploy.evaluation.bundles import BundlePredictor, BundleSource, mean_by_logits
from mmms_deploy.evaluation.errors import EvaluationModalityError, EvaluationSettingsError
from mmms_deploy.evaluation.modalities import choose_modalities
from mmms_deploy.evaluation.predictor import JointPredictor, return_to
from mmms_deploy.evaluation.scene import Scene, Surface
from mmms_deploy.evaluation.surfaces import multi_instance
from mmms_deploy.imaging.resize import resize
from tests.support.annotating import GREY, SIZE
from tests.support.joint import SIZES, write_joint
from tests.support.scenes import Scenes

REQUEST = EngineRequest(engine="onnxruntime")


@pytest.fixture
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 40, (50, 71, 3), dtype=np.uint8)
    picture[:, :20] += 60  # bright on the left, so that left and right matter
    return picture


def test_the_mean_of_logits_by_hand() -> None:
    a, b = np.array([[0.9, 0.5, 0.0, 1.0]], np.float32), np.array([[0.5, 0.5, 1.0, 1.0]], np.float32)
    mean = mean_by_logits(a, b)
    # logit 0.9 = ln 9; its half is ln 3, which is 3 / 4. Certain ones that contradict each other give a half.
    np.testing.assert_allclose(mean, [[0.75, 0.5, 0.5, 1.0]], atol=1e-5)
    assert mean.dtype == np.float32


def test_a_predictor_answers_as_its_session(paint: Bundle, image: np.ndarray) -> None:
    source = BundleSource(paint, REQUEST)
    with Session(paint, engine="onnxruntime") as session:
        predictor = source.open()
        for one in (session, predictor):
            one.set_image(image)
        for x, y, positive in ((30, 20, True), (35, 22, False), (60, 40, True)):
            np.testing.assert_array_equal(predictor.click(x, y, positive), session.click(x, y, positive).mask)
        predictor.reset()
        session.reset()
        np.testing.assert_array_equal(predictor.click(3, 4, True), session.click(3, 4, True).mask)
    predictor.close()
    source.close()


@pytest.mark.parametrize("wrong", [0, 1, -0.5, 2, float("nan"), "0.5", True])
def test_thresholds_without_sense_are_refused(paint: Bundle, wrong) -> None:
    with pytest.raises(EvaluationSettingsError, match="threshold"):
        BundleSource(paint, REQUEST, threshold=wrong)


def test_a_flip_is_the_mean_with_the_mirror_image(paint: Bundle, image: np.ndarray) -> None:
    source = BundleSource(paint, REQUEST, flip=True)
    predictor = source.open()
    predictor.set_image(image)
    mirrored = source.open()
    mirrored.set_image(np.ascontiguousarray(image[:, ::-1]))
    for x, y, positive in ((30, 20, True), (33, 21, False), (0, 0, True), (70, 49, True)):
        here, there = predictor.click(x, y, positive), mirrored.click(70 - x, y, positive)
        np.testing.assert_array_equal(here, there[:, ::-1])
        if positive:
            assert here[y, x]
    predictor.close()
    mirrored.close()
    source.close()


def test_the_mean_of_both_is_what_both_see_next(paint: Bundle, image: np.ndarray) -> None:
    """RITM's evaluation: one previous mask for the image and its mirror image."""
    source = BundleSource(paint, REQUEST, flip=True)
    predictor = source.open()
    predictor.set_image(image)
    predictor.click(30, 20, True)
    with Session(paint, engine="onnxruntime") as plain, Session(paint, engine="onnxruntime") as mirror:
        plain.set_image(image)
        mirror.set_image(np.ascontiguousarray(image[:, ::-1]))
        for click, put in (((30, 20), True), ((60, 40), False)):
            here = plain.click(*click).network_probability
            there = mirror.click(70 - click[0], click[1]).network_probability[:, ::-1]
            rule = paint.manifest.clicks.mask_resize
            probability = np.clip(resize(mean_by_logits(here, there), (50, 71), rule), 0, 1)
            if put:
                plain.set_mask(probability)
                mirror.set_mask(probability[:, ::-1])
    np.testing.assert_array_equal(predictor.click(60, 40, True), probability > 0.5)
    predictor.close()
    source.close()


def test_a_surface_taken_up_again_goes_on_from_what_is_left_of_it(paint: Bundle, image: np.ndarray) -> None:
    left = np.zeros((50, 71), dtype=np.bool_)
    left[30:45, 40:60] = True
    clicks = [SimulatedClick(30, 20, True), SimulatedClick(5, 5, False)]
    source = BundleSource(paint, REQUEST)
    predictor = source.open()
    predictor.set_image(image)
    return_to(predictor, image, {}, clicks, left, left)
    with Session(paint, engine="onnxruntime") as session:
        session.set_image(image)
        session.click(30, 20)
        session.click(5, 5, False)
        session.set_mask(left)
        np.testing.assert_array_equal(predictor.click(60, 40, True), session.click(60, 40).mask)
    predictor.close()
    source.close()


def test_a_flip_mirrors_modalities_too(modal: Bundle, image: np.ndarray) -> None:
    depth = np.zeros((50, 71))
    depth[:, :10] = 300
    event = np.zeros((50, 71, 3))
    source = BundleSource(modal, REQUEST, flip=True)
    predictor = source.open()
    predictor.set_image(image, depth=depth, event=event)
    flipped = source.open()
    flipped.set_image(image[:, ::-1].copy(), depth=depth[:, ::-1].copy(), event=event)
    np.testing.assert_array_equal(predictor.click(30, 20, True), flipped.click(40, 20, True)[:, ::-1])
    predictor.close()
    flipped.close()
    source.close()


def test_a_threshold_replaces_the_bundles(paint: Bundle, image: np.ndarray) -> None:
    with Session(paint, engine="onnxruntime") as session:
        session.set_image(image)
        probability = session.click(30, 20).probability
    for threshold in (0.2, 0.5, 0.9):
        predictor = BundlePredictor(Session(paint, engine="onnxruntime"), threshold=threshold)
        predictor.set_image(image)
        found = predictor.click(30, 20, True)
        sure = np.abs(probability - threshold) > 1e-6
        np.testing.assert_array_equal(found[sure], (probability > threshold)[sure])
        predictor.close()


# --- modalities -------------------------------------------------------------------------------------------------------

SPECS = (ModalitySpec(name="depth"), ModalitySpec(name="thermal", optional=True))


def test_modalities_are_chosen_by_what_the_network_takes() -> None:
    data = Scenes(modalities=("thermal", "depth", "event"))
    assert choose_modalities(SPECS, "net", data).used == ("depth", "thermal")
    assert choose_modalities(SPECS, "net", data).ignored == ("event",)
    assert choose_modalities(SPECS, "net", data, ("thermal",)).used == ("depth",)
    assert choose_modalities(SPECS, "net", data, ("thermal",)).ignored == ("thermal", "event")
    assert choose_modalities(SPECS, "net", Scenes(modalities=("depth",))).used == ("depth",), "optional"
    assert choose_modalities((), "net", data).used == ()


@pytest.mark.parametrize(
    ("modalities", "without", "message"),
    [
        (("thermal",), (), "net needs depth, which the data set 'ellipses' does not have"),
        (("depth",), ("depth",), "depth is to be left out, but net cannot answer without it"),
        (("depth",), ("lidar",), "net takes no such modality"),
    ],
)
def test_what_does_not_fit_is_refused(modalities, without, message) -> None:
    with pytest.raises(EvaluationModalityError, match=message):
        choose_modalities(SPECS, "net", Scenes(modalities=modalities), without)


def test_an_optional_modality_can_be_left_out_of_a_run() -> None:
    from mmms_deploy.evaluation import Entry, FunctionPredictor, Settings, evaluate
    from tests.support.scenes import disks

    seen = set()

    def answer(image, clicks, previous, **modalities):
        seen.add(tuple(sorted(modalities)))
        return disks(4)(image, clicks, previous)

    data = Scenes(1, modalities=("depth", "thermal"))
    for without in ((), ("thermal",)):
        entry = Entry(data, choose_modalities(SPECS, "net", data, without).used)
        evaluate(entry, lambda: FunctionPredictor(answer), Settings(max_clicks=1))
    assert seen == {("depth", "thermal"), ("depth",)}


def test_a_bundle_that_answers_for_all_objects_at_once(tmp_path: Path) -> None:
    bundle = write_joint(tmp_path / "joint")
    source = BundleSource(bundle, REQUEST)
    predictor = source.open()
    assert isinstance(predictor, JointPredictor)
    assert predictor.most_clicks == SIZES[-1]
    predictor.set_image(GREY)
    with Session(bundle, engine="onnxruntime") as session:
        session.set_image(GREY)
        np.testing.assert_array_equal(predictor.click(10, 10, True), session.click(10, 10).mask)
        predictor.reset()
        session.reset()
        for name, place in (("2", (40, 30)), ("1", (10, 10))):  # in another order than their numbers
            session.select(name)
            session.click(*place)
            labels = predictor.click_on(int(name), *place)
        np.testing.assert_array_equal(labels, session.labels)  # the session has "1" from the beginning
        session.click(20, 20, positive=False)
        np.testing.assert_array_equal(predictor.click_on(0, 20, 20), session.labels)
    truth = np.zeros(SIZE, np.bool_)
    truth[:20, :30] = True
    scene = Scene("two", GREY, (Surface("a", truth), Surface("b", np.roll(truth, 35, axis=1))))
    results = [multi_instance(predictor, scene, 0.6, clicks_per_object=3) for _ in range(2)]
    assert results[0] == results[1]  # it begins anew
    assert all(surface.iou > 0.4 for surface in results[0].surfaces)
    predictor.close()
    source.close()
    with pytest.raises(EvaluationSettingsError, match="no threshold"):
        BundleSource(bundle, REQUEST, threshold=0.6)
    with pytest.raises(EvaluationSettingsError, match="a list of 8 clicks"):
        answering(bundle.manifest, clicks=9)
