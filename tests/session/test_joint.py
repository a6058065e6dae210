"""Sessions with a network that answers for all objects at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmms_deploy import Bundle, Click, Session
from mmms_deploy.annotations import read_labels
from mmms_deploy.bundle.contract import AnswerSpec, ClickList, ModalitySpec
from mmms_deploy.errors import (
    BundleCorruptError,
    ChoiceError,
    ClickError,
    EngineError,
    HistoryError,
    NoImageError,
    SessionError,
    SurfaceError,
)
from tests.support.annotating import GREY, SIZE
from tests.support.joint import FEATURE, GRID, OBJECTS, SIZES, joint_rows, write_joint

Made = tuple[int, float, float, bool]
"""Label, x, y, positive."""


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_joint(tmp_path_factory.mktemp("bundles") / "joint")


@pytest.fixture
def session(joint: Bundle) -> Iterator[Session]:
    with Session(joint, threads=1) as session:
        session.set_image(GREY)
        yield session


def check(session: Session, made: list[Made], feature: float = FEATURE) -> None:
    """Compare everything that a session says with what NumPy finds for these clicks, and the image's feature."""
    surfaces = dict(session.surfaces)
    names = {label: name for name, label in surfaces.items()}
    rows = joint_rows(session.bundle, made, SIZE, feature)
    expected = rows.labels(SIZE) if made else np.zeros(SIZE, np.int32)
    np.testing.assert_array_equal(session.labels, expected)
    assert session.all_clicks == tuple((names[label], Click(x, y, positive)) for label, x, y, positive in made)
    label = surfaces[session.surface]
    own = tuple(Click(x, y, positive) for owner, x, y, positive in made if owner == label)
    result = session.result
    assert (session.clicks, result.clicks, result.index, result.click) == (own, own, len(own), own[-1] if own else None)
    np.testing.assert_array_equal(result.mask, expected == label)
    np.testing.assert_array_equal(session.mask, result.mask)
    if any(click.positive for click in own):
        probability = 1 / (1 + np.exp(-rows.margin(label, SIZE).astype(np.float64)))
        np.testing.assert_allclose(result.probability, probability, atol=1e-5)
        clear = np.abs(probability - 0.5) > 1e-4
        np.testing.assert_array_equal((result.probability > 0.5)[clear], result.mask[clear])
        assert result.network_probability.shape == (6, 10)  # the grid without what fills the picture up
    else:
        assert not result.mask.any()
        assert not result.probability.any()


def test_one_click_changes_every_mask(session: Session) -> None:
    check(session, [])
    session.click(10, 10)
    made: list[Made] = [(1, 10, 10, True)]
    check(session, made)
    alone = session.result
    session.select("dog")
    check(session, made)
    session.click(40, 30)
    made.append((2, 40, 30, True))
    check(session, made)
    before = session.mask
    session.select("1")
    check(session, made)
    assert session.mask.sum() < alone.mask.sum()
    session.click(20, 12)
    made.append((1, 20, 12, True))
    check(session, made)
    session.select("dog")
    assert (session.mask != before).any()
    assert session.runs == {"image": 1, "click": 3, "click_8": 0}
    assert alone.mask.sum() == joint_rows(session.bundle, made[:1], SIZE).labels(SIZE).sum()


def test_a_negative_click_is_background_for_all(session: Session) -> None:
    session.click(10, 10)
    session.select("dog")
    session.click(40, 30)
    assert session.labels[12, 12] == 1
    session.click(12, 12, positive=False)
    made: list[Made] = [(1, 10, 10, True), (2, 40, 30, True), (2, 12, 12, False)]
    check(session, made)
    assert session.labels[12, 12] == 0
    session.select("1")
    check(session, made)
    assert session.clicks == (Click(10, 10),)


def test_a_negative_click_may_be_the_first(session: Session) -> None:
    assert not session.click(10, 10, positive=False).mask.any()
    check(session, [(1, 10, 10, False)])


def test_undo_takes_back_the_newest_click_of_all(session: Session) -> None:
    session.click(10, 10)
    session.select("dog")
    session.click(40, 30)
    session.select("1")
    session.click(20, 12)
    made: list[Made] = [(1, 10, 10, True), (2, 40, 30, True), (1, 20, 12, True)]
    runs = dict(session.runs)
    session.select("dog")
    assert session.undo().clicks == (Click(40, 30),)  # about the current surface, which stays
    check(session, made[:2])
    assert session.undo().clicks == ()
    assert (session.surface, session.can_undo, session.can_redo) == ("dog", True, True)
    check(session, made[:1])
    session.undo()
    check(session, [])
    with pytest.raises(HistoryError):
        session.undo()
    for count in (1, 2, 3):
        session.redo()
        check(session, made[:count])
    with pytest.raises(HistoryError):
        session.redo()
    assert session.runs == runs
    session.undo()
    session.click(60, 40)
    check(session, [*made[:2], (2, 60, 40, True)])
    assert not session.can_redo


def test_forgetting_an_object_asks_without_its_clicks(session: Session) -> None:
    session.click(10, 10)
    session.select("dog")
    session.click(40, 30)
    session.click(30, 30, positive=False)
    session.select("cat")
    session.click(60, 10)
    session.undo()
    session.remove("dog")
    assert (session.surface, dict(session.surfaces), session.can_redo) == ("cat", {"1": 1, "cat": 3}, False)
    check(session, [(1, 10, 10, True)])


def test_a_removed_object_that_was_undone_never_comes_back(session: Session) -> None:
    session.click(10, 10)
    session.select("dog")
    session.click(40, 30)
    session.undo()
    session.remove("dog")
    assert not session.can_redo
    check(session, [(1, 10, 10, True)])
    session.undo()
    check(session, [])


def test_a_renamed_object_keeps_its_clicks(session: Session) -> None:
    session.click(10, 10)
    session.select("dog")
    session.click(40, 30)
    session.select("1")
    session.click(20, 12)
    session.undo()
    runs, labels, before = dict(session.runs), session.labels, session.to_dict()
    session.rename("dog", "cat")
    session.rename("1", "dog")
    assert (session.surface, list(session.surfaces.items())) == ("dog", [("dog", 1), ("cat", 2)])
    assert session.labels is labels
    assert dict(session.runs) == runs
    made: list[Made] = [(1, 10, 10, True), (2, 40, 30, True)]
    check(session, made)
    saved = session.to_dict()
    assert [surface.pop("name") for surface in saved["surfaces"]] == ["dog", "cat"]
    assert [surface.pop("name") for surface in before["surfaces"]] == ["1", "dog"]
    assert saved == {**before, "surface": "dog"}
    found = session.to_coco("a.jpg")
    assert [one["name"] for one in found["categories"]] == ["dog", "cat"]
    session.redo()
    check(session, [*made, (1, 20, 12, True)])
    session.restore(session.to_dict())
    check(session, [*made, (1, 20, 12, True)])
    for name, to, said in (("1", "cow", "'dog', 'cat'"), ("dog", "cat", "another one"), ("dog", "", "a name")):
        with pytest.raises(SurfaceError, match=said):
            session.rename(name, to)
    check(session, [*made, (1, 20, 12, True)])


def test_reset(session: Session) -> None:
    session.click(10, 10)
    session.select("dog")
    session.click(40, 30)
    session.select("1")
    session.click(20, 12)
    session.reset()
    check(session, [(2, 40, 30, True)])
    assert (session.surface, session.can_redo) == ("1", False)
    session.undo()
    check(session, [])
    session.redo()
    runs = dict(session.runs)
    session.reset()  # nothing to forget
    assert session.runs == runs
    session.remove("1")
    session.remove("dog")
    check(session, [])
    assert dict(session.surfaces) == {"1": 3}


def test_a_list_of_clicks_is_the_current_surfaces(session: Session) -> None:
    session.click(10, 10)
    session.select("dog")
    session.click(40, 30)
    session.select("1")
    session.set_clicks([[10, 10, 1], [20, 12, 1]])
    made: list[Made] = [(1, 10, 10, True), (2, 40, 30, True), (1, 20, 12, True)]
    check(session, made)
    assert session.runs["click"] == 3
    session.set_clicks([[10, 10, 1]])  # what is left out can be brought back
    check(session, made[:2])
    session.redo()
    check(session, made)
    assert session.runs["click"] == 3
    session.set_clicks([[11, 11, 1]])
    check(session, [(2, 40, 30, True), (1, 11, 11, True)])
    session.set_clicks([])
    check(session, [(2, 40, 30, True)])


def test_an_error_changes_nothing(session: Session) -> None:
    session.click(10, 10)
    session.select("dog")
    made: list[Made] = [(1, 10, 10, True)]
    mask = np.zeros(SIZE, dtype=np.bool_)
    with pytest.raises(ClickError):
        session.click(70, 10)
    with pytest.raises(SessionError, match="from clicks alone"):
        session.set_mask(mask)
    with pytest.raises(ChoiceError, match="gives one answer to a click"):
        session.choose(0)
    with pytest.raises(ChoiceError, match="gives one answer to a click"):
        session.set_clicks([[10, 10, 1], {"choice": 1}])
    with pytest.raises(SessionError, match="from clicks alone"):
        session.load_labels(np.ones(SIZE, dtype=np.uint8))
    with pytest.raises(SurfaceError):
        session.remove("cat")
    with pytest.raises(ClickError, match=f"at most {SIZES[-1]} over all objects"):
        session.set_clicks([[x, 10, 1] for x in range(SIZES[-1])])
    check(session, made)


def test_more_objects_than_the_network_answers_for(session: Session) -> None:
    for number in range(OBJECTS):
        session.select(f"object {number}")
        session.click(10 * number, 10)
    session.select("one more")
    session.click(60, 40, positive=False)  # of no object
    with pytest.raises(SurfaceError, match=f"at most {OBJECTS} at once"):
        session.click(60, 20)
    assert len(session.all_clicks) == OBJECTS + 1
    session.remove("object 0")
    session.click(60, 20)
    assert set(np.unique(session.labels)) == {0, 3, 4, 5}


def test_the_list_is_full(joint: Bundle) -> None:
    with Session(joint, threads=1, history_limit=2) as session:
        session.set_image(GREY)
        for number in range(SIZES[-1]):
            session.select(str(1 + number % 2))
            session.click(6 * number, 10)
        with pytest.raises(ClickError, match="undo a click"):
            session.click(3, 3)
        made: list[Made] = [(1 + n % 2, 6 * n, 10, True) for n in range(SIZES[-1])]
        check(session, made)
        session.undo()
        session.undo()
        assert not session.can_undo  # beyond the limit
        check(session, made[:-2])


def test_a_longer_list_takes_a_larger_stage(joint: Bundle) -> None:
    with Session(joint, threads=1) as session:
        session.set_image(GREY)
        compiled = [session.click(6 * number, 10).timings.compile > 0 for number in range(SIZES[0] + 2)]
        assert compiled == [*[False] * SIZES[0], True, False]
        assert dict(session.runs) == {"image": 1, "click": SIZES[0], f"click_{SIZES[1]}": 2}
        check(session, [(1, 6 * number, 10, True) for number in range(SIZES[0] + 2)])


@pytest.mark.parametrize("ask", [{"zoom": True}, {"flip": True}])
def test_no_crop_and_no_mirror_image(joint: Bundle, ask: dict[str, bool]) -> None:
    with pytest.raises(SessionError, match=f"leave out {next(iter(ask))}"):
        Session(joint, threads=1, **ask)  # type: ignore[arg-type]


def test_saved_and_restored_in_order(session: Session, joint: Bundle, paint: Bundle) -> None:
    session.click(10, 10)
    session.select("dog")
    session.click(40, 30)
    session.select("1")
    session.click(20, 12, positive=False)
    session.click(50, 12)
    session.undo()
    stored = json.loads(json.dumps(session.to_dict()))
    assert (stored["order"], [one["undone"] for one in stored["surfaces"]]) == ([1, 2, 1, 1], [1, 0])
    made: list[Made] = [(1, 10, 10, True), (2, 40, 30, True), (1, 20, 12, False)]
    with Session(joint, threads=1) as other:
        other.set_image(GREY)
        assert other.restore(stored).clicks == session.clicks
        check(other, made)
        other.redo()
        check(other, [*made, (1, 50, 12, True)])
        other.undo()
        assert other.to_dict() == stored
        for order in ([1, 2, 1], [1, 2, 1, 2], [1, 1, 1, 2], [1, 2, 1, 1, 3]):
            with pytest.raises(SessionError, match="its order"):
                other.restore({**stored, "order": order})
        check(other, made)
    with Session(paint, threads=1) as apart:  # with a network of the other kind, and back
        apart.set_image(GREY)
        apart.restore(stored)
        assert apart.clicks == session.clicks
        assert apart.all_clicks == (("1", Click(10, 10)), ("1", Click(20, 12, False)), ("dog", Click(40, 30)))
        plain = apart.to_dict()
        assert "order" not in plain
        session.restore(plain)
        check(session, [made[0], made[2], made[1]])
        session.redo()
        check(session, [made[0], made[2], made[1], (1, 50, 12, True)])
        apart.set_mask(np.ones(SIZE, dtype=np.bool_))
        with pytest.raises(SessionError, match=r"interaction 3 of the surface '1' is no click"):
            session.restore(apart.to_dict())


def test_the_outputs_are_the_label_map(session: Session, tmp_path: Path) -> None:
    session.click(10, 10)
    session.select("dog")
    session.click(40, 30)
    session.save_labels(tmp_path / "labels.png")
    found, names = read_labels(tmp_path / "labels.png")
    np.testing.assert_array_equal(found, session.labels)
    assert names == {"1": 1, "dog": 2}
    detections = session.detections()
    np.testing.assert_array_equal(detections.mask, [session.labels == 1, session.labels == 2])
    coco = session.to_coco("grey.png")
    assert [one["area"] for one in coco["annotations"]] == [int((session.labels == n).sum()) for n in (1, 2)]
    assert [one["clicks"] for one in coco["annotations"]] == [[[10, 10, 1]], [[40, 30, 1]]]
    assert "dog: label 2, 1 click" in session._repr_html_()


def test_predict(session: Session) -> None:
    session.select("dog")
    session.click(40, 30)
    session.select("1")
    masks, scores, logits = session.predict([[10, 10]], [1])
    check(session, [(2, 40, 30, True), (1, 10, 10, True)])
    np.testing.assert_array_equal(masks[0], session.mask)
    assert (masks.shape, scores.shape, logits.shape) == ((1, *SIZE), (1,), (1, 6, 10))
    points = [[10, 10], [20, 12]]
    upscaled, _, _ = session.predict(points, [1, 0], mask_input=logits, return_logits=True)
    check(session, [(2, 40, 30, True), (1, 10, 10, True), (1, 20, 12, False)])
    np.testing.assert_array_equal(upscaled[0] > 0, session.mask)
    with pytest.raises(SessionError, match="leave out mask_input"):
        session.predict(points, [1, 0], mask_input=logits + 1)


def test_a_modality_that_changes_answers_all_clicks_again(tmp_path: Path) -> None:
    bundle = write_joint(tmp_path / "depth", modalities=(ModalitySpec(name="depth"),))
    with Session(bundle, threads=1) as session:
        session.set_image(GREY, depth=np.full(SIZE, 1, np.float32))
        session.click(10, 10)
        session.select("dog")
        session.click(40, 30)
        session.click(30, 30, positive=False)
        session.undo()
        made: list[Made] = [(1, 10, 10, True), (2, 40, 30, True)]
        check(session, made, FEATURE + 1)
        session.set_modalities(depth=np.full(SIZE, -2, np.float32))
        check(session, made, FEATURE - 2)
        session.redo()
        check(session, [*made, (2, 30, 30, False)], FEATURE - 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda session: session.click(5, 5),
        lambda session: session.reset(),
        lambda session: session.remove("1"),
        lambda session: session.set_clicks([[1, 1, 1]]),
        lambda session: session.restore(session.to_dict()),
    ],
)
def test_a_click_stage_that_fails_changes_nothing(
    session: Session, monkeypatch: pytest.MonkeyPatch, call: Callable[[Session], object]
) -> None:
    for name, x in (("1", 10), ("dog", 40), ("1", 20)):
        session.select(name)
        session.click(x, 30)
    session.undo()

    def failing(*_: object) -> dict[str, object]:
        raise EngineError("the stage failed")

    with monkeypatch.context() as patch:
        patch.setattr(session._runner, "run", failing)
        with pytest.raises(EngineError, match="the stage failed"):
            call(session)
    check(session, [(1, 10, 30, True), (2, 40, 30, True)])
    session.redo()
    check(session, [(1, 10, 30, True), (2, 40, 30, True), (1, 20, 30, True)])


def test_another_image_begins_anew(session: Session) -> None:
    with Session(session.bundle, threads=1) as other, pytest.raises(NoImageError):
        other.click(1, 1)
    session.click(10, 10)
    session.select("dog")
    session.set_image(GREY)
    check(session, [])
    assert (session.surface, dict(session.surfaces), session.can_undo) == ("1", {"1": 1}, False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"listed": ClickList(sizes=SIZES, objects=OBJECTS, learned=2)}, "gives a rows of shape"),
        ({"answers": AnswerSpec(size=GRID)}, "with a probability"),
    ],
)
def test_what_is_no_such_click_stage(joint: Bundle, changes: dict[str, object], message: str) -> None:
    copy = Bundle(joint.path)
    clicks = msgspec.structs.replace(joint.manifest.clicks, **changes)
    copy.manifest = msgspec.structs.replace(joint.manifest, clicks=clicks)
    with pytest.raises(BundleCorruptError, match=message):
        Session(copy, threads=1)


STEPS = st.one_of(
    st.tuples(st.sampled_from(["1", "a", "b"])),
    st.tuples(st.integers(0, 69), st.integers(0, 49), st.booleans()),
    st.sampled_from(["undo", "redo", "reset", "remove", "rename"]),
)


@given(st.lists(STEPS, max_size=12))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_walk(session: Session, steps: list[tuple[object, ...] | str]) -> None:
    session.set_image(GREY)
    done: list[Made] = []
    undone: list[Made] = []
    for step in steps:
        label = session.surfaces[session.surface]
        if step == "undo":
            assert session.can_undo == bool(done)
            if done:
                session.undo()
                undone.append(done.pop())
        elif step == "redo":
            assert session.can_redo == bool(undone)
            if undone:
                session.redo()
                done.append(undone.pop())
        elif step == "rename":
            session.rename(session.surface, next(name for name in "abcd" if name not in session.surfaces))
        elif isinstance(step, str):
            session.reset() if step == "reset" else session.remove(session.surface)
            if any(one[0] == label for one in (*done, *undone)):
                done, undone = [one for one in done if one[0] != label], []
        elif len(step) == 1:
            session.select(str(step[0]))
        elif len(done) < SIZES[-1]:
            x, y, positive = step
            session.click(float(x), float(y), bool(positive))  # type: ignore[arg-type]
            done.append((label, float(x), float(y), bool(positive)))  # type: ignore[arg-type]
            undone = []
        check(session, done)
