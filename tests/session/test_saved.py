"""An annotation as plain data, saved and restored; on every engine."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmms_deploy import LATER, Bundle, Session
from mmms_deploy.bundle.contract import ModalitySpec, ResizeRule
from mmms_deploy.errors import AnswerError, ModalityError, NoImageError, SessionError, SurfaceError
from tests.support.annotating import GREY, SIZE
from tests.support.toy import write_toy


def annotate(session: Session) -> None:
    """Several surfaces that overlap, one of them removed; undone clicks; masks by hand and by select."""
    session.set_image(GREY)
    session.click(10, 10)
    session.click(60.125, 40, 1)
    session.click(1 / 3, 5, positive=False)
    session.undo()
    session.select("gone")
    session.click(50, 9)
    session.select("dög")
    session.set_mask(np.linspace(0, 1, GREY[:, :, 0].size).reshape(SIZE).astype(np.float32))
    session.click(12, 12)
    session.remove("gone")
    session.select("1")  # the dog took pixels from it
    session.select("box")
    session.set_mask(np.eye(*SIZE, dtype=np.bool_))
    session.select("dög")
    session.select("new")


def seen(session: Session) -> list[object]:
    looks: list[object] = [session.labels.tobytes(), session.surface, dict(session.surfaces), session.image_size]
    start = session._state
    for name, surface in start.surfaces.all.items():
        looks += [name, len(surface.history.past), len(surface.history.future), surface.changed]
        session.select(name)
        looks += [session.clicks, session.mask.tobytes(), session.result.network_probability.tobytes()]
        while session.can_redo:
            looks.append(session.redo().network_probability.tobytes())
        while session.can_undo:
            looks.append(session.undo().network_probability.tobytes())
        session._state = start
        session.select(name)
        looks.append(session.click(33, 33).network_probability.tobytes())
        session._state = start
    looks.append((session.select("another"), session.surfaces["another"])[1])
    session._state = start
    return looks


@pytest.mark.usefixtures("every_engine")
def test_everything_comes_back_exactly(paint: Bundle) -> None:
    with Session(paint, threads=1) as first, Session(paint, threads=1) as second:
        annotate(first)
        text = json.dumps(first.to_dict(), allow_nan=False)
        second.set_image(GREY)
        second.click(3, 3)
        result = second.restore(json.loads(text))
        assert second.result is result
        assert second.surface == "new"
        assert seen(second) == seen(first)
        assert json.dumps(second.to_dict()) == text
        assert first.to_dict() == json.loads(text), "it is plain data already"


def test_the_previous_mask_through_the_image(tmp_path) -> None:
    aligned = ResizeRule(align_corners=True)
    bundle = write_toy(tmp_path / "through", mask_resize=aligned, previous_resize=aligned)
    with Session(bundle, threads=1) as first, Session(bundle, threads=1) as second:
        annotate(first)
        second.set_image(GREY)
        second.restore(first.to_dict())
        assert seen(second) == seen(first)


def test_an_empty_annotation(session: Session) -> None:
    empty = session.to_dict()
    session.click(10, 10)
    assert not session.restore(empty).mask.any()
    assert session.clicks == ()
    assert session.surfaces == {"1": 1}
    assert session.runs["click"] == 1


def test_what_is_written(session: Session) -> None:
    session.click(10, 20.5)
    session.click(12, 20, positive=False)
    session.undo()
    session.select("dog")
    session.set_mask(np.eye(*SIZE, dtype=np.bool_))
    assert session.to_dict() == {
        "format": "mmms-deploy-session",
        "version": 1,
        "image_size": [50, 70],
        "surface": "dog",
        "labels_given": 2,
        "surfaces": [
            {
                "name": "1",
                "label": 1,
                "changed": 3,
                "undone": 1,
                "interactions": [[10.0, 20.5, 1], [12.0, 20.0, 0]],
            },
            {
                "name": "dog",
                "label": 2,
                "changed": 4,
                "undone": 0,
                "interactions": [{"mask": session.result.rle()}],
            },
        ],
    }


@pytest.mark.parametrize("limit", [0, 1, 2, 5])
def test_another_limit(paint: Bundle, session: Session, limit: int) -> None:
    for x in (10, 20, 30, 40, 50):
        session.click(x, 10)
    session.undo()
    session.undo()
    with Session(paint, threads=1, history_limit=limit) as other:
        other.set_image(GREY)
        other.restore(session.to_dict())
        assert other.clicks == session.clicks
        np.testing.assert_array_equal(other.mask, session.mask)
        steps = len(other._state.surfaces.current.history.line) - 1
        assert steps == min(limit, 5)
        if limit >= 1:
            np.testing.assert_array_equal(other.undo().mask, session.undo().mask)


def test_names_of_any_characters(session: Session) -> None:
    """JSON has a form for half of a character too."""
    session.select("\ud800")
    session.click(10, 10)
    text = json.dumps(session.to_dict())
    session.reset()
    session.restore(json.loads(text))
    assert session.surface == "\ud800"
    assert session.result.index == 1


def test_another_network_of_another_size(session: Session, tmp_path) -> None:
    """Clicks and masks belong to the image, so that a better network can answer them."""
    annotate(session)
    with Session(write_toy(tmp_path / "small", size=(32, 32)), threads=1) as other:
        other.set_image(GREY)
        other.restore(session.to_dict())
        assert other.surfaces == session.surfaces
        assert other.click(5, 5).network_probability.shape == (32, 32)


def changed(path: list[str | int], value: object) -> Callable[[dict[str, Any]], None]:
    def change(saved: dict[str, Any]) -> None:
        place: Any = saved
        for step in path[:-1]:
            place = place[step]
        if value is ...:
            del place[path[-1]]
        else:
            place[path[-1]] = value

    return change


FIRST = ["surfaces", 0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed(["format"], "coco"), "this is no saved session: .*format"),
        (changed(["version"], 2), "this is no saved session: .*version"),
        (changed(["surfaces"], ...), "this is no saved session: .*surfaces"),
        (changed(["surfaces"], []), "contradicts itself: its current surface 'new'"),
        (changed(["surface"], "cat"), "contradicts itself: its current surface 'cat'"),
        (changed([*FIRST, "name"], "new"), "the same name or label"),
        (changed([*FIRST, "label"], 3), "the same name or label"),
        (changed(["labels_given"], 3), "a label that was never given"),
        (changed([*FIRST, "label"], 0), "this is no saved session"),
        (changed(["labels_given"], 1 << 31), "this is no saved session"),
        (changed(["format"], "\ud800"), "this is no saved session"),
        (changed([*FIRST, "interactions", 1], [10**400, 40, 1]), "(this is no saved session|outside of the image)"),
        (changed([*FIRST, "undone"], 9), "more interactions are undone than there are"),
        (changed([*FIRST, "undone"], -1), "this is no saved session"),
        (changed([*FIRST, "surplus"], 1), "this is no saved session"),
        (changed(["image_size"], [70, 50]), r"about an image of \(70, 50\), and the image that is set has \(50, 70\)"),
        (changed([*FIRST, "interactions", 1], [70, 40, 1]), "interaction 2 of the surface '1'.*outside of the image"),
        (changed([*FIRST, "interactions", 1], [float("nan"), 40, 1]), "interaction 2 of the surface '1'"),
        (changed([*FIRST, "interactions", 1], [10, 40, 2]), "this is no saved session"),
        (changed([*FIRST, "interactions", 1], "click"), "this is no saved session"),
        (changed(["surfaces", 1, "interactions", 0, "mask", "size"], [70, 50]), r"its mask has the size \(70, 50\)"),
        (changed(["surfaces", 1, "interactions", 0, "mask", "counts"], "zz"), "interaction 1 of the surface 'dög'"),
        (changed(["surfaces", 1, "interactions", 0, "previous", "zlib"], "%"), "interaction 1 of the surface 'dög'"),
        (changed(["surfaces", 1, "interactions", 0, "previous", "zlib"], "AAAA"), "interaction 1 of the surface 'dög'"),
        (changed(["surfaces", 1, "interactions", 0, "previous", "size"], [2, 2]), "another number of bytes"),
        (changed(["surfaces", 1, "interactions", 0, "previous", "size"], [1 << 20, 1 << 20]), "its map has the size"),
    ],
)
def test_what_is_no_annotation_changes_nothing(
    session: Session, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    annotate(session)
    saved = copy.deepcopy(session.to_dict())
    change(saved)
    session.set_image(GREY)
    before = session.click(10, 10)
    with pytest.raises(SessionError, match=said) as caught:
        session.restore(saved)
    assert caught.value.fix
    assert session.result is before
    assert session.runs["click"] == 6


def test_other_objects_are_refused(session: Session) -> None:
    for wrong, said in ((None, "no saved session"), ([1], "no saved session"), ({}, "no saved session")):
        with pytest.raises(SessionError, match=said):
            session.restore(wrong)  # type: ignore[arg-type]
    with pytest.raises(SessionError, match=r"is a text[\s\S]*json.loads"):
        session.restore(json.dumps(session.to_dict()))  # type: ignore[arg-type]
    with pytest.raises(SessionError, match=r"is a path[\s\S]*json.loads\(path.read_text\(\)\)"):
        session.restore(Path("saved.json"))  # type: ignore[arg-type]
    nameless = session.to_dict()
    nameless["surfaces"][0]["name"] = nameless["surface"] = ""
    with pytest.raises(SurfaceError):
        session.restore(nameless)


def test_a_failing_engine_changes_nothing(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    annotate(session)
    saved = session.to_dict()
    session.set_image(GREY)
    before = session.click(10, 10)
    after, calls = session._after_click, []

    def failing(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 3:
            raise AnswerError("no answer")
        return after(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(session, "_after_click", failing)
    with pytest.raises(AnswerError):
        session.restore(saved)
    assert session.result is before
    assert session.surfaces == {"1": 1}


def test_calls_in_a_wrong_order(paint: Bundle, tmp_path) -> None:
    with Session(paint, threads=1) as session:
        for call in (session.to_dict, lambda: session.restore({})):
            with pytest.raises(NoImageError):
                call()
        session.set_image(GREY)
        session.click(10, 10)
        saved = session.to_dict()
    late = write_toy(tmp_path / "late", modalities=(ModalitySpec(name="depth", scale=0.01),))
    with Session(late, threads=1) as session:
        session.set_image(GREY, depth=LATER)
        with pytest.raises(ModalityError, match="not there yet"):
            session.restore(saved)
