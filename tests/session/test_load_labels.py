"""Label maps that come back into a session: as one call, with names and numbers, exactly."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Bundle, Session
from mmms_deploy.annotations import write_labels
from mmms_deploy.errors import AnnotationError, MaskInputError, NoImageError, SessionError
from tests.support.annotating import GREY, SIZE
from tests.support.masks import AWKWARD

LABELS = np.zeros(SIZE, np.int32)
LABELS[5:20, 5:30] = 2
LABELS[8:12, 8:12] = 0
LABELS[15:40, 25:60] = 300
LABELS[0, 0] = 7
NAMES = {"dog": 2, "cat \U0001f408": 7, "gone": 9, "cow": 300}


def test_saved_labels_come_back_exactly(session: Session, paint: Bundle, tmp_path: Path) -> None:
    session.click(10, 10)
    session.select("dog")
    session.click(14, 12)
    session.select("none")
    session.remove("1")
    session.select("4th")
    session.click(60, 40)
    session.save_labels(tmp_path / "labels.png")
    with Session(paint) as other:
        other.set_image(GREY)
        other.click(1, 1)
        assert other.load_labels(tmp_path / "labels.png") == session.surfaces == {"dog": 2, "none": 3, "4th": 4}
        np.testing.assert_array_equal(other.labels, session.labels)
        assert other.surfaces == session.surfaces
        assert other.surface == "dog"
        other._state.surfaces.labels = None  # as the masks themselves make it
        np.testing.assert_array_equal(other.labels, session.labels)
        other.save_labels(tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "labels.png").read_bytes()


@pytest.mark.parametrize("kind", ["array", "file", "picture", "bytes", "file object", "uint16"])
def test_labels_of_every_kind(session: Session, kind: str, tmp_path: Path) -> None:
    write_labels(tmp_path / "labels.png", LABELS, NAMES)
    given = {
        "array": LABELS,
        "file": tmp_path / "labels.png",
        "picture": Image.open(tmp_path / "labels.png"),
        "bytes": (tmp_path / "labels.png").read_bytes(),
        "file object": io.BytesIO((tmp_path / "labels.png").read_bytes()),
        "uint16": LABELS.astype(np.uint16),
    }[kind]
    names = NAMES if kind in ("array", "uint16") else None
    assert session.load_labels(given, names) == NAMES
    np.testing.assert_array_equal(session.labels, LABELS)
    for name, label in NAMES.items():
        session.select(name)
        np.testing.assert_array_equal(session.mask, label == LABELS)
        assert session.clicks == ()
        assert session.can_undo is (name != "gone")
    assert session.runs["click"] == 0


def test_numbers_without_names(session: Session) -> None:
    assert session.load_labels(LABELS) == {"2": 2, "7": 7, "300": 300}
    assert session.load_labels(LABELS, {"dog": 300}, void=7) == {"2": 2, "dog": 300}
    assert session.labels[0, 0] == 0
    session.select("new")
    assert session.surfaces["new"] == 301


def test_one_undo_takes_a_mask_back_and_clicks_refine_it(session: Session) -> None:
    session.load_labels(LABELS, NAMES)
    before = session.labels
    session.click(50, 5)
    assert session.surface == "dog"
    assert (session.labels[LABELS == 300] == 300).all()
    session.undo()
    np.testing.assert_array_equal(session.labels, before)
    assert session.undo().area == 0
    np.testing.assert_array_equal(session.labels, np.where(LABELS == 2, 0, LABELS))
    assert not session.can_undo
    session.redo()
    np.testing.assert_array_equal(session.labels, before)


def test_clicks_go_on_as_from_a_mask(session: Session, paint: Bundle) -> None:
    session.load_labels(LABELS, NAMES)
    with Session(paint) as other:
        other.set_image(GREY)
        other.set_mask(LABELS == 2)
        np.testing.assert_array_equal(session.click(50, 5).mask, other.click(50, 5).mask)


def test_an_empty_map_is_a_blank_image(session: Session) -> None:
    session.click(10, 10)
    assert session.load_labels(np.zeros(SIZE, np.uint8)) == {"1": 1}
    assert session.result.area == 0
    assert not session.can_undo


def test_changed_modalities_keep_them(modal: Bundle) -> None:
    depth, event = np.zeros(SIZE), np.zeros((*SIZE, 3))
    with Session(modal) as session:
        session.set_image(GREY, depth=depth, event=event)
        session.load_labels(LABELS, NAMES)
        session.set_modalities(depth=depth + 20)
        np.testing.assert_array_equal(session.labels, LABELS)
        assert session.surfaces == NAMES


def test_the_given_array_may_change_afterwards(session: Session) -> None:
    labels = LABELS.copy()
    session.load_labels(labels)
    labels[:] = 1
    np.testing.assert_array_equal(session.labels, LABELS)
    with pytest.raises(ValueError, match="read-only"):
        session.labels[0, 0] = 1


def test_small_images(paint: Bundle) -> None:
    for mask in AWKWARD.values():
        with Session(paint) as session:
            session.set_image(np.zeros((*mask.shape, 3), np.uint8))
            session.load_labels(mask)
            np.testing.assert_array_equal(session.labels, mask)


@pytest.mark.parametrize(
    ("labels", "error"),
    [
        (LABELS[1:], MaskInputError),
        (LABELS[None], AnnotationError),
        (LABELS * 0.5, AnnotationError),
        (LABELS - 1, AnnotationError),
        (np.arange(50 * 70).reshape(SIZE), MaskInputError),
        ("missing.png", AnnotationError),
        (Image.fromarray(GREY), AnnotationError),
        (None, AnnotationError),
        ({"dog": 1}, AnnotationError),
    ],
    ids=["size", "batch", "floats", "negative", "measurements", "missing", "colours", "none", "dict"],
)
def test_refused_labels_change_nothing(session: Session, labels: object, error: type[Exception]) -> None:
    session.click(10, 10)
    before = session._state
    with pytest.raises(error):
        session.load_labels(labels)  # type: ignore[arg-type]
    with pytest.raises(AnnotationError):
        session.load_labels(LABELS, {2: "dog"})  # type: ignore[dict-item]
    assert session._state is before


def test_labels_need_an_image_and_a_network_that_takes_masks(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with Session(paint) as session, pytest.raises(NoImageError):
        session.load_labels(LABELS)
    monkeypatch.setattr(Session, "_previous_input", None)
    with Session(paint) as session:
        session.set_image(GREY)
        before = session._state
        with pytest.raises(SessionError, match="no previous mask"):
            session.load_labels(LABELS)
        assert session._state is before
