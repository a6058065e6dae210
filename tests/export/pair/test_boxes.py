"""A box as the start of an object, with a decoder that takes one: the same answers as the files themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest

from mmms_deploy import Bundle, Session
from mmms_deploy.bundle import ImageSpec
from mmms_deploy.errors import ClickError, DescriptionError, HistoryError, SessionError
from mmms_deploy.export.pair.description import read_pair
from mmms_deploy.export.pair.exporter import PairSource, export_pair
from mmms_deploy.imaging.resize import resize_image
from tests.support.joint import write_joint
from tests.support.pair import DESCRIPTION, GRID, SIDE, write_decoder, write_encoder

IMAGE = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
BOX = (20.0, 10.0, 70.0, 50.0)
CLICKS = [(40.0, 30.0, 1), (75.0, 55.0, 0)]


def made(folder: Path, more: str = "box = true\n") -> Bundle:
    folder.mkdir()
    description = folder / "pair.toml"
    description.write_text(DESCRIPTION + more)
    source = PairSource(
        write_encoder(folder / "encoder.onnx"), write_decoder(folder / "decoder.onnx"), read_pair(description)
    )
    return export_pair(source, folder / "bundle").bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pairs")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return made(folder / "boxed")


@pytest.fixture
def session(bundle: Bundle) -> Iterator[Session]:
    with Session(bundle, threads=1, engine="onnxruntime") as session:
        session.set_image(IMAGE)
        yield session


def files_answer(
    folder: Path, points: Sequence[tuple[float, float, float]], previous: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (3, 8, 8) and scores (3,) of the files, fed as SAM's users do: labels 2 and 3 for a box's corners."""
    spec = ImageSpec()
    encoder, decoder = (onnxruntime.InferenceSession(str(folder / f"{part}.onnx")) for part in ("encoder", "decoder"))
    image = resize_image(IMAGE, (SIDE, SIDE), spec.resize) / 255
    image = (image - np.reshape(spec.mean, (3, 1, 1))) / np.reshape(spec.std, (3, 1, 1))
    (feature,) = encoder.run(None, {"image": image[None].astype(np.float32)})
    masks, scores = decoder.run(
        ["masks", "scores"],
        {
            "embedding": feature,
            "coords": np.array([[[x * SIDE / 96, y * SIDE / 64] for x, y, _ in points]], np.float32),
            "labels": np.array([[kind for *_, kind in points]], np.float32),
            "mask_input": np.zeros((1, 1, GRID, GRID), np.float32) if previous is None else previous[None, None],
            "has_mask": np.full(1, float(previous is not None), np.float32),
        },
    )
    return masks[0], scores[0]


CORNERS = [(BOX[0], BOX[1], 2.0), (BOX[2], BOX[3], 3.0)]


def test_a_box_is_two_points_with_the_labels_2_and_3(session: Session, folder: Path) -> None:
    result = session.set_box(*BOX)
    masks, scores = files_answer(folder / "boxed", CORNERS)
    taken = int(scores.argmax())
    np.testing.assert_allclose(result.answer.numbers, masks[taken], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose([one.score for one in result.candidates], scores, rtol=1e-6)
    assert (result.click, result.index, session.clicks) == (None, 0, ())
    clicked = session.click(*CLICKS[0])
    masks, scores = files_answer(folder / "boxed", [*CORNERS, CLICKS[0]], masks[taken])
    np.testing.assert_allclose(clicked.answer.numbers, masks[int(scores.argmax())], rtol=1e-5, atol=1e-5)
    assert (clicked.index, session.runs["click"]) == (1, 2)


def test_it_is_undone_and_done_again(session: Session) -> None:
    boxed = session.set_box(*BOX)
    clicked = session.click(*CLICKS[0])
    np.testing.assert_array_equal(session.undo().mask, boxed.mask)
    assert not session.undo().mask.any()
    with pytest.raises(HistoryError):
        session.undo()
    np.testing.assert_array_equal(session.redo().mask, boxed.mask)
    np.testing.assert_array_equal(session.redo().mask, clicked.mask)
    assert session.runs["click"] == 2


def test_it_is_saved_and_restored(session: Session, bundle: Bundle) -> None:
    session.set_box(*BOX)
    session.add_clicks(CLICKS)
    session.undo()
    saved = json.loads(json.dumps(session.to_dict()))
    assert saved["surfaces"][0]["interactions"][0] == {"box": list(BOX)}
    with Session(bundle, threads=1, engine="onnxruntime") as other:
        other.set_image(IMAGE)
        np.testing.assert_array_equal(other.restore(saved).mask, session.mask)
        np.testing.assert_array_equal(other.redo().mask, session.redo().mask)
        assert other.to_dict() == session.to_dict()
    broken = json.loads(json.dumps(saved))
    broken["surfaces"][0]["interactions"][0] = {"box": [70, 10, 20, 50]}
    with pytest.raises(SessionError, match="cannot be restored"):
        session.restore(broken)


def test_predict_takes_it(session: Session, bundle: Bundle) -> None:
    masks, scores, logits = session.predict(box=np.array(BOX))
    with Session(bundle, threads=1, engine="onnxruntime") as other:
        other.set_image(IMAGE)
        result = other.set_box(*BOX)
        taken = int(scores.argmax())
        np.testing.assert_array_equal(masks[taken], result.mask)
        runs = session.runs["click"]
        again, *_ = session.predict([CLICKS[0][:2]], [1], box=[BOX], mask_input=logits[taken][None])
        assert session.runs["click"] == runs + 1, "it goes on from the answer to the box"
        result = other.click(*CLICKS[0])
        np.testing.assert_array_equal(again[int(np.argmax([one.score for one in result.candidates]))], result.mask)
    parts = np.array(BOX) / (96, 64, 96, 64)
    session.reset()
    np.testing.assert_array_equal(session.predict(box=parts, normalize_coords=False)[0], masks)
    without, *_ = session.predict([CLICKS[0][:2]], [1])
    assert session.to_dict()["surfaces"][0]["interactions"] == [list(CLICKS[0])]
    assert without.shape == masks.shape


def test_a_mask_may_come_before_it(session: Session) -> None:
    mask = np.zeros((64, 96), np.bool_)
    mask[10:40, 20:60] = True
    session.set_mask(mask)
    session.set_box(*BOX)
    assert len(session.to_dict()["surfaces"][0]["interactions"]) == 2


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ((20, 10, 20, 50), "the box"),
        ((70, 10, 20, 50), "order its corners"),
        ((20, 10, 97, 50), "cut it to the image"),
        ((-1, 10, 20, 50), "cut it to the image"),
        ((float("nan"), 10, 20, 50), "the box"),
        (("a", 1, 2, 3), "four numbers"),
    ],
)
def test_what_is_no_box_is_refused(session: Session, box: tuple[float, ...], said: str) -> None:
    before = session.to_dict()
    with pytest.raises(ClickError, match=said):
        session.set_box(*box)
    assert session.to_dict() == before
    assert session.runs["click"] == 0


def test_its_edges_may_be_those_of_the_image(session: Session) -> None:
    session.set_box(0, 0, 96, 64)


def test_several_boxes_in_one_call_are_refused(session: Session) -> None:
    with pytest.raises(ClickError, match="one box for each object"):
        session.predict(box=[BOX, BOX])


@pytest.mark.parametrize("before", ["click", "box"])
def test_it_comes_first_and_once(session: Session, before: str) -> None:
    session.set_box(*BOX) if before == "box" else session.click(*CLICKS[0])
    with pytest.raises(ClickError, match="a box after"):
        session.set_box(*BOX)
    session.reset()
    session.set_box(*BOX)
    session.select("other")
    session.set_box(*BOX)


def test_its_corners_count_as_points(session: Session) -> None:
    session.set_box(*BOX)
    session.add_clicks([(30 + n, 30) for n in range(3)])
    with pytest.raises(ClickError, match="click 4 on one object"):
        session.click(40, 40)


def test_a_decoder_with_padding_and_other_labels(folder: Path) -> None:
    """As SAM's example has it, a box takes the place of the padding."""
    bundle = made(folder / "padded", "box = true\npadding = -1\npositive = 0.75\nnegative = 0.25\n")
    with Session(bundle, threads=1, engine="onnxruntime") as session:
        session.set_image(IMAGE)
        result = session.set_box(*BOX)
        masks, scores = files_answer(folder / "padded", CORNERS)
        np.testing.assert_allclose(result.answer.numbers, masks[int(scores.argmax())], rtol=1e-5, atol=1e-5)
        previous = masks[int(scores.argmax())]
        result = session.click(*CLICKS[0])
        masks, scores = files_answer(folder / "padded", [*CORNERS, (*CLICKS[0][:2], 0.75)], previous)
        np.testing.assert_allclose(result.answer.numbers, masks[int(scores.argmax())], rtol=1e-5, atol=1e-5)
        session.select("clicked")
        result = session.click(*CLICKS[0])
        masks, scores = files_answer(folder / "padded", [(*CLICKS[0][:2], 0.75), (0, 0, -1.0)])
        np.testing.assert_allclose(result.answer.numbers, masks[int(scores.argmax())], rtol=1e-5, atol=1e-5)


def test_networks_that_take_none_say_what_to_do(paint: Bundle, folder: Path, tmp_path: Path) -> None:
    plain = made(folder / "plain", "")
    assert "box" not in json.dumps(msgspec.to_builtins(plain.manifest))
    for bundle, more in ((paint, ""), (plain, "'box = true'"), (write_joint(tmp_path / "joint"), "")):
        with Session(bundle, threads=1) as session:
            session.set_image(IMAGE)
            with pytest.raises(ClickError, match=r"takes clicks, no boxes") as caught:
                session.set_box(*BOX)
            assert "click(45, 30)" in str(caught.value)
            assert more in str(caught.value)
            assert not session.can_undo
            with pytest.raises(ClickError, match="predict got a box"):
                session.predict(box=BOX)


def test_a_list_of_points_too_short_for_a_box(folder: Path) -> None:
    description = folder / "short.toml"
    description.write_text(DESCRIPTION.replace("most_points = 5", "most_points = 1") + "box = true\n")
    with pytest.raises(DescriptionError, match="takes two points"):
        read_pair(description)
