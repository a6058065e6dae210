"""Several objects in one image; on every engine."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmms_deploy import Bundle, Click, Session
from mmms_deploy.errors import HistoryError, NoImageError, SurfaceError
from tests.support.annotating import GREY, SIZE, check, reference

pytestmark = pytest.mark.usefixtures("every_engine")

LEFT = np.zeros(SIZE, dtype=np.bool_)
LEFT[5:40, 5:40] = True
RIGHT = np.zeros(SIZE, dtype=np.bool_)
RIGHT[20:45, 30:70] = True


@pytest.mark.parametrize("name", ["", None, 3, ["car"], b"car"])
def test_names_that_are_no_text(session: Session, name: object) -> None:
    for call in (
        session.select,
        session.remove,
        lambda one: session.rename(one, "dog"),
        lambda one: session.rename("1", one),
    ):
        with pytest.raises(SurfaceError, match="surface"):
            call(name)  # type: ignore[arg-type]


def test_every_surface_has_its_own_clicks(session: Session, paint: Bundle) -> None:
    car = [Click(10, 10), Click(30, 20, False)]
    dog = [Click(50, 30)]
    assert (session.surface, dict(session.surfaces)) == ("1", {"1": 1})
    session.click(10, 10)
    assert session.select("dog").index == 0
    assert not session.mask.any()
    assert not session.can_undo
    check(session.click(50, 30), reference(paint, dog))
    assert session.select("1").index == 1
    check(session.click(30, 20, False), reference(paint, car))
    assert (session.clicks, session.surface) == (tuple(car), "1")
    check(session.select("dog"), reference(paint, dog))
    assert session.clicks == tuple(dog)
    assert dict(session.surfaces) == {"1": 1, "dog": 2}
    assert session.runs == {"image": 1, "click": 3}


def test_the_one_that_changed_last_has_the_pixel(session: Session) -> None:
    session.set_mask(LEFT)
    session.select("right")
    session.set_mask(RIGHT)
    expected = np.where(RIGHT, 2, np.where(LEFT, 1, 0))
    assert session.labels.dtype == np.int32
    np.testing.assert_array_equal(session.labels, expected)
    session.undo()
    np.testing.assert_array_equal(session.labels, np.where(LEFT, 1, 0))
    session.redo()
    np.testing.assert_array_equal(session.labels, expected)
    session.reset()
    np.testing.assert_array_equal(session.labels, np.where(LEFT, 1, 0))
    assert not session.labels.flags.writeable


def test_a_surface_continues_from_the_rest_of_its_mask(session: Session, paint: Bundle) -> None:
    session.set_mask(LEFT)
    session.select("right")
    session.set_mask(RIGHT)
    np.testing.assert_array_equal(session.select("1").mask, LEFT & ~RIGHT)
    after = session.click(8, 8)
    with Session(paint, threads=1) as other:
        other.set_image(GREY)
        other.set_mask(LEFT)
        other.set_mask(LEFT & ~RIGHT)
        np.testing.assert_array_equal(after.network_probability, other.click(8, 8).network_probability)
    session.undo()
    np.testing.assert_array_equal(session.undo().mask, LEFT)
    # Surface 1 changed last now, so its pixels are its own again.
    np.testing.assert_array_equal(session.labels, np.where(LEFT, 1, np.where(RIGHT, 2, 0)))
    np.testing.assert_array_equal(session.select("right").mask, RIGHT & ~LEFT)


def test_a_surface_that_lost_nothing_adds_no_interaction(session: Session) -> None:
    session.set_mask(LEFT)
    session.select("right")
    session.set_mask(RIGHT & ~LEFT)
    session.select("1")
    session.undo()
    with pytest.raises(HistoryError):
        session.undo()


def test_selecting_the_current_surface_changes_nothing(session: Session) -> None:
    session.click(10, 10)
    session.undo()
    before = session.result
    assert session.select("1") is before
    assert session.can_redo


def test_remove(session: Session) -> None:
    session.set_mask(LEFT)
    session.select("right")
    session.set_mask(RIGHT)
    session.select("third")
    session.remove("right")
    assert (session.surface, dict(session.surfaces)) == ("third", {"1": 1, "third": 3})
    np.testing.assert_array_equal(session.labels, np.where(LEFT, 1, 0))
    session.select("right")
    assert session.surfaces["right"] == 4
    assert not session.mask.any()
    session.remove("right")
    assert session.surface == "1"
    for name in ("1", "third"):
        session.remove(name)
    assert dict(session.surfaces) == {"1": 5}
    assert not session.labels.any()
    assert session.clicks == ()


def test_rename(session: Session) -> None:
    session.click(10, 10)
    session.click(30, 20, False)
    session.undo()
    session.select("right")
    session.set_mask(RIGHT)
    session.select("third")
    before = session.to_dict()
    labels, runs, coco = session.labels, dict(session.runs), session.to_coco("a.jpg")
    session.rename("1", "car")
    assert list(session.surfaces.items()) == [("car", 1), ("right", 2), ("third", 3)]
    assert session.surface == "third"
    assert session.labels is labels
    assert session.all_clicks == (("car", Click(10, 10)),)
    session.rename("third", "1")  # the name is free now
    assert session.surface == "1"
    assert dict(session.runs) == runs
    expected = json.loads(json.dumps(before))
    expected["surface"] = expected["surfaces"][2]["name"] = "1"
    expected["surfaces"][0]["name"] = "car"
    assert session.to_dict() == expected
    one, two = coco["annotations"]
    assert (one.pop("surface"), two["surface"]) == ("1", "right")
    found = session.to_coco("a.jpg")
    assert [category["name"] for category in found["categories"]] == ["car", "right"]
    assert found["annotations"] == [{**one, "surface": "car"}, two]
    session.restore(expected)
    assert (session.to_dict(), session.surface) == (expected, "1")
    np.testing.assert_array_equal(session.labels, labels)


def test_a_renamed_surface_goes_on(session: Session, paint: Bundle) -> None:
    clicks = [Click(10, 10), Click(30, 20, False)]
    session.click(10, 10)
    session.click(30, 20, False)
    session.undo()
    result = session.result
    session.rename("1", "car")
    assert session.result is result
    assert (session.can_undo, session.can_redo) == (True, True)
    check(session.redo(), reference(paint, clicks))
    session.undo()
    session.undo()
    assert (session.surface, session.can_undo) == ("car", False)
    session.rename("car", "car")
    assert dict(session.surfaces) == {"car": 1}
    assert session.select("1").index == 0  # a new one
    assert dict(session.surfaces) == {"car": 1, "1": 2}


def test_refused_renames(session: Session, paint: Bundle) -> None:
    session.click(10, 10)
    session.select("dog")
    before = session.to_dict()
    with pytest.raises(SurfaceError, match="'cat'"):
        session.rename("cat", "cow")
    with pytest.raises(SurfaceError, match="another one"):
        session.rename("1", "dog")
    with pytest.raises(SurfaceError, match="'cat'"):
        session.rename("cat", "cat")
    assert session.to_dict() == before
    with Session(paint, threads=1) as other, pytest.raises(NoImageError):
        other.rename("1", "dog")


def test_an_image_begins_with_one_surface(session: Session) -> None:
    session.click(10, 10)
    session.select("dog")
    session.click(30, 10)
    session.set_image(GREY)
    assert (session.surface, dict(session.surfaces)) == ("1", {"1": 1})
    assert not session.labels.any()


def test_refused_names(session: Session, paint: Bundle) -> None:
    for name in ("", 3, None):
        with pytest.raises(SurfaceError, match="surface"):
            session.select(name)  # type: ignore[arg-type]
    with pytest.raises(SurfaceError, match="'dog'"):
        session.remove("dog")
    assert session.surface == "1"
    with Session(paint, threads=1) as other:
        for call in (lambda: other.select("dog"), lambda: other.labels, lambda: other.remove("1")):
            with pytest.raises(NoImageError):
                call()


STEPS = st.one_of(
    st.tuples(st.sampled_from(["1", "a", "b"])),
    st.tuples(st.integers(0, 69), st.integers(0, 44), st.booleans()),
    st.sampled_from(["undo", "redo", "reset", "remove", "rename"]),
)


@given(st.lists(STEPS, max_size=14))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_walk(session: Session, paint: Bundle, steps: list[tuple[object, ...] | str]) -> None:
    """Against a plain model: a list of states for every surface, and the order in which they changed."""
    session.set_image(GREY)
    size = session.image_size
    states: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {"1": ([np.zeros(size, bool)], [])}
    order: list[str] = []
    current = "1"

    def labels() -> np.ndarray:
        found = np.zeros(size, np.int32)
        for name in order:
            found[states[name][0][-1]] = session.surfaces[name]
        return found

    def touched() -> None:
        if current in order:
            order.remove(current)
        order.append(current)

    for step in steps:
        done, undone = states[current]
        if step == "remove":
            session.remove(current)
            del states[current]
            order[:] = [name for name in order if name != current]
            current = session.surface
            assert current == (order[-1] if order else next(iter(states), "1"))
            states.setdefault(current, ([np.zeros(size, bool)], []))
        elif step == "rename":
            new = next(name for name in ("a", "b", "c", "d") if name not in states)
            session.rename(current, new)
            states = {new if name == current else name: state for name, state in states.items()}
            order[:] = [new if name == current else name for name in order]
            current = new
            assert list(session.surfaces) == list(states)
        elif step == "reset":
            session.reset()
            states[current] = [np.zeros(size, bool)], []
            touched()
        elif step in ("undo", "redo"):
            source, target = (done, undone) if step == "undo" else (undone, done)
            if len(source) > (1 if step == "undo" else 0):
                target.append(source.pop())
                getattr(session, step)()
                touched()
        elif len(step) == 1:
            name = str(step[0])
            if name in states and name != current:
                left = labels() == session.surfaces[name]
                if (states[name][0][-1] & ~left).any():
                    states[name][0].append(left)
                    states[name][1].clear()
            states.setdefault(name, ([np.zeros(size, bool)], []))
            current = name
            session.select(name)
        else:
            done.append(session.click(*step).mask)  # type: ignore[arg-type]
            undone.clear()
            touched()
        assert session.surface == current
        np.testing.assert_array_equal(session.mask, states[current][0][-1])
        np.testing.assert_array_equal(session.labels, labels())
