"""A network whose click stage keeps a map of labels in the place of disks and a previous mask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mmms_deploy import Bundle, Click, Session
from mmms_deploy.bundle import ZoomRule
from mmms_deploy.bundle.contract import ClickContract, ClickMemory, ResizeRule
from mmms_deploy.bundle.names import LABELS
from mmms_deploy.engines.protocol import Value
from mmms_deploy.errors import BundleCorruptError, SessionError
from mmms_deploy.imaging.coordinates import to_network
from mmms_deploy.imaging.resize import resize_image
from mmms_deploy.session.interactions import checked_mask
from tests.support.annotating import GREY, SIZE, annotated
from tests.support.toy import LabelReference, misdescribed, write_toy

pytestmark = pytest.mark.usefixtures("every_engine")

CLICKS = [Click(10, 10), Click(60.25, 40.5), Click(14, 12, False), Click(33, 20), Click(31, 22, False)]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_toy(tmp_path_factory.mktemp("toy") / "labelled", labels=True)


@pytest.fixture
def session(labelled: Bundle) -> Iterator[Session]:
    with Session(labelled, threads=1) as session:
        session.set_image(GREY)
        yield session


def network_place(click: Click, bundle: Bundle) -> tuple[float, float]:
    rule = bundle.manifest.clicks.coordinates
    return to_network(click.x, click.y, image=SIZE, network=bundle.manifest.size, rule=rule)


def answer(network: LabelReference, click: Click, bundle: Bundle) -> np.ndarray:
    return network.click(*network_place(click, bundle), click.positive)


def held_labels(session: Session) -> np.ndarray:
    """The labels that the network sees at the next click."""
    return session._runner.download(session._state.surfaces.current.history.current.state[LABELS])[0, 0]


def test_every_click_sees_the_labels_of_those_before(session: Session) -> None:
    network = LabelReference(session.bundle.manifest.size, 0.2)
    np.testing.assert_array_equal(held_labels(session), network.labels)
    seen = set()
    for click in CLICKS:
        result = session.click(click.x, click.y, click.positive)
        np.testing.assert_allclose(result.network_probability, answer(network, click, session.bundle), atol=1e-6)
        np.testing.assert_array_equal(held_labels(session), network.labels)
        seen |= set(np.unique(network.labels).tolist())
    assert seen == {0, 1, 2, 3, 4}


def test_undo_and_redo_run_nothing(session: Session) -> None:
    answers = [session.click(c.x, c.y, c.positive).network_probability.copy() for c in CLICKS]
    runs = session._pipeline.runs
    for held in (*reversed(answers[:-1]), np.zeros_like(answers[0])):
        np.testing.assert_array_equal(session.undo().network_probability, held)
    assert (held_labels(session) == 2).all()
    for held in answers:
        np.testing.assert_array_equal(session.redo().network_probability, held)
    assert session._pipeline.runs == runs
    session.undo()
    session.undo()
    network = LabelReference(session.bundle.manifest.size, 0.2)
    for click in CLICKS[:3]:
        answer(network, click, session.bundle)
    result = session.click(50, 10)
    np.testing.assert_allclose(result.network_probability, answer(network, Click(50, 10), session.bundle), atol=1e-6)


def test_reset_and_a_new_image_forget_the_labels(session: Session) -> None:
    first = session.click(10, 10).network_probability.copy()
    session.click(14, 12, False)
    session.reset()
    np.testing.assert_array_equal(session.click(10, 10).network_probability, first)
    session.set_image(GREY)
    np.testing.assert_array_equal(session.click(10, 10).network_probability, first)


def test_a_mask_becomes_labels_and_the_clicks_stay(session: Session) -> None:
    for click in CLICKS[:3]:
        session.click(click.x, click.y, click.positive)
    network = LabelReference(session.bundle.manifest.size, 0.2)
    for click in CLICKS[:3]:
        answer(network, click, session.bundle)
    by_clicks = network.labels.copy()
    mask = np.zeros(SIZE, dtype=np.bool_)
    mask[20:40, 5:60] = True
    result = session.set_mask(mask)
    np.testing.assert_array_equal(result.mask, mask)
    shrunk = resize_image(mask[:, :, None].astype(np.float32), session.bundle.manifest.size, ResizeRule(antialias=True))
    likely = np.where(shrunk[0] > 0.5, 3, 1)
    expected = np.where((by_clicks == 0) | (by_clicks == 4), by_clicks, likely)
    np.testing.assert_array_equal(held_labels(session), expected)
    assert set(np.unique(expected).tolist()) == {0, 1, 3, 4}
    network.labels = expected.astype(np.uint8)
    after = session.click(33, 20)
    np.testing.assert_allclose(after.network_probability, answer(network, Click(33, 20), session.bundle), atol=1e-6)
    session.undo()
    np.testing.assert_array_equal(held_labels(session), expected)
    session.undo()
    np.testing.assert_array_equal(held_labels(session), by_clicks)


def test_surfaces_have_labels_of_their_own(session: Session) -> None:
    one = session.click(10, 10).network_probability.copy()
    session.select("other")
    assert (held_labels(session) == 2).all()
    session.click(60, 40)
    session.select(next(iter(session.surfaces)))
    np.testing.assert_array_equal(session.result.network_probability, one)


def test_a_surface_that_lost_a_part_sees_what_is_left(session: Session) -> None:
    session.click(10, 10)
    first = next(iter(session.surfaces))
    session.select("other")
    session.click(12, 12)
    session.select(first)
    left, labels = session.result.mask, held_labels(session)
    assert set(np.unique(labels).tolist()) == {1, 3, 4}
    assert 60 < (labels == 4).sum() < 90, "the disk of the click before, and no other"
    session.load_labels(left.astype(np.uint8))
    assert set(np.unique(held_labels(session)).tolist()) == {1, 3}


def test_a_saved_session_comes_back(session: Session, labelled: Bundle) -> None:
    mask = np.zeros(SIZE, dtype=np.bool_)
    mask[5:25, 5:30] = True
    session.click(10, 10)
    session.set_mask(mask)
    wanted = session.click(33, 20, False).network_probability
    labels = held_labels(session)
    saved = json.loads(json.dumps(session.to_dict()))
    with Session(labelled, threads=1) as other:
        other.set_image(GREY)
        other.restore(saved)
        np.testing.assert_array_equal(other.result.network_probability, wanted)
        np.testing.assert_array_equal(held_labels(other), labels)


def test_predict_goes_on_from_its_own_logits(session: Session) -> None:
    wanted = [session.click(c.x, c.y, c.positive).network_probability.copy() for c in CLICKS[:2]]
    session.reset()
    points = [[c.x, c.y] for c in CLICKS[:2]]
    _, _, logits = session.predict(points[:1], [1])
    runs = session._pipeline.runs["click"]
    session.predict(points, [1, 1], mask_input=logits)
    assert session._pipeline.runs["click"] == runs + 1
    np.testing.assert_array_equal(session.result.network_probability, wanted[1])
    session.reset()
    session.predict(mask_input=logits)
    assert set(np.unique(held_labels(session)).tolist()) == {1, 3}


def test_a_list_of_clicks_and_values_that_never_change(session: Session) -> None:
    one_by_one = [session.click(c.x, c.y, c.positive).network_probability.copy() for c in CLICKS]
    session.reset()
    np.testing.assert_array_equal(session.set_clicks(CLICKS).network_probability, one_by_one[-1])
    first, second = annotated(session), annotated(session)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_crop_draws_the_labels_anew(labelled: Bundle) -> None:
    """From the mask in the crop and the clicks; where the crop stays, the click stage's own labels go on."""
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 85, (150, 200, 3), dtype=np.uint8)
    with Session(labelled, threads=1, zoom=ZoomRule(smallest=40)) as session:
        session.set_image(picture)
        crops, drawn = [], []
        upload = session._pipeline.upload

        def recorded(name: str, array: np.ndarray) -> Value:
            if name == LABELS:
                drawn.append(array[0, 0])
            return upload(name, array)

        session._pipeline.upload = recorded  # type: ignore[method-assign]
        for click in (Click(60, 75), Click(66, 75), Click(67, 74), Click(66, 76), Click(160, 20)):
            before = len(drawn)
            crops.append(session.click(click.x, click.y).crop)
            changed = len(crops) > 1 and crops[-1] != crops[-2]
            assert len(drawn) - before == changed
        assert crops[0] == (0, 0, 200, 150)
        assert 2 <= len(drawn) < 4, "some crops are new, and one stays"
        for labels in drawn:
            assert {3, 4} <= set(np.unique(labels).tolist()) <= {1, 3, 4}
    with pytest.raises(SessionError, match="flip was asked of labelled, whose click stage keeps click_labels"):
        Session(labelled, threads=1, zoom=True, flip=True)


def test_a_bundle_without_its_labels_is_refused(labelled: Bundle, tmp_path: Path, paint: Bundle) -> None:
    copy = misdescribed(paint, "inputs", name="f1")
    clicks = msgspec.structs.replace(copy.manifest.clicks, memory=ClickMemory.LABELS)
    copy.manifest = msgspec.structs.replace(paint.manifest, clicks=clicks)
    with pytest.raises(BundleCorruptError, match="no such state for click_labels"):
        Session(copy, threads=1)


def test_labels_stay_at_the_network_s_size() -> None:
    with pytest.raises(ValueError, match="previous_resize has no meaning"):
        ClickContract(memory=ClickMemory.LABELS, previous_resize=ResizeRule())
    with pytest.raises(ValueError, match="leave out modulation and first_pass"):
        ClickContract(memory=ClickMemory.LABELS, first_pass=True)
    rule = ClickContract(memory=ClickMemory.LABELS)
    assert checked_mask(np.ones(SIZE, np.bool_), SIZE, (64, 96), rule).previous.min() == 1.0
