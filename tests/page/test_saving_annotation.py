"""The page's annotation files: those that ``Session.restore`` takes, and no others."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mmms_deploy import Bundle, Session
from mmms_deploy.errors import MMMSDeployError
from tests.support.annotating import GREY, SIZE
from tests.support.joint import write_joint
from tests.support.saving import Refused, call_saving

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

MASK = np.zeros(SIZE, np.bool_)
MASK[5:20, 5:30] = True


def annotated(session: Session) -> dict[str, Any]:
    session.set_image(GREY)
    session.click(10, 10)
    session.select('dög "x"')
    session.click(50.25, 30)
    session.click(40, 30, positive=False)
    session.undo()
    session.rename("1", "犬")
    return session.to_dict()


@pytest.fixture
def sessions(paint: Bundle, tmp_path: Path) -> Iterator[list[Session]]:
    """One whose objects have histories of their own, and one whose objects share theirs; both without an image."""
    with Session(paint, threads=1) as separate, Session(write_joint(tmp_path / "joint"), threads=1) as joint:
        yield [separate, joint]


def test_sessions_there_and_back(modules: Page, sessions: list[Session], proposing: Bundle) -> None:
    saved = [annotated(session) for session in sessions]
    session = sessions[0]
    session.set_mask(MASK)
    session.set_mask(np.where(MASK, 0.75, 0.25))
    saved.append(session.to_dict())
    with Session(proposing, threads=1) as other:
        other.set_image(GREY)
        other.click(10, 10)
        other.choose(1)
        saved.append(other.to_dict())
    texts = call_saving(modules, "annotationJson", [[{"annotation": one, "fileName": "a.jpg"}] for one in saved])
    assert [json.loads(text) for text in texts] == saved
    read = call_saving(modules, "readAnnotation", [[text, list(SIZE)] for text in texts])
    assert read == saved
    for session, text, one in zip(sessions, texts, saved, strict=False):
        session.restore(json.loads(text))
        assert session.to_dict() == one
    assert call_saving(modules, "readAnnotation", [[json.dumps(one, indent=2)] for one in saved]) == saved


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def made(annotation: dict[str, Any]) -> dict[str, Any]:
        copied = copy.deepcopy(annotation)
        change(copied)
        return copied

    return made


def _set(*path: Any, to: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(annotation: Any) -> None:
        for key in path[:-1]:
            annotation = annotation[key]
        annotation[path[-1]] = to

    return changed(change)


RLE = {"size": list(SIZE), "counts": "0"}
WRONG: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda annotation: [annotation],
    "null": lambda _: None,
    "a mask's file": lambda _: {"format": "mmms-annotation", "version": 1},
    "another format": _set("format", to="mmms-deploy"),
    "another version": _set("version", to=2),
    "a field too many": _set("file_name", to="a.jpg"),
    "no surfaces": changed(lambda one: one.pop("surfaces")),
    "empty surfaces": _set("surfaces", to=[]),
    "a size of three": _set("image_size", to=[50, 70, 3]),
    "a size of 0": _set("image_size", to=[0, 70]),
    "another size": _set("image_size", to=[70, 50]),
    "the current one is none": _set("surface", to="cat"),
    "a name twice": _set("surfaces", 0, "name", to='dög "x"'),
    "an empty name": _set("surfaces", 0, "name", to=""),
    "a name of a number": _set("surfaces", 0, "name", to=3),
    "a label twice": _set("surfaces", 0, "label", to=2),
    "a label of 0": _set("surfaces", 0, "label", to=0),
    "a label of a half": _set("surfaces", 0, "label", to=1.5),
    "a label never given": _set("labels_given", to=1),
    "too many undone": _set("surfaces", 0, "undone", to=2),
    "a surface's field too many": _set("surfaces", 0, "colour", to="red"),
    "changed below 0": _set("surfaces", 0, "changed", to=-1),
    "clicks of an object": _set("surfaces", 0, "interactions", to={}),
    "a click of two": _set("surfaces", 0, "interactions", 0, to=[1, 2]),
    "a click of four": _set("surfaces", 0, "interactions", 0, to=[1, 2, 1, 1]),
    "a click that is half on": _set("surfaces", 0, "interactions", 0, to=[1, 2, 0.5]),
    "a click of texts": _set("surfaces", 0, "interactions", 0, to=["1", 2, 1]),
    "a click outside": _set("surfaces", 0, "interactions", 0, to=[69.5, 2, 1]),
    "a click above": _set("surfaces", 0, "interactions", 0, to=[1, -0.6, 1]),
    "a number": _set("surfaces", 0, "interactions", 0, to=3),
    "nothing": _set("surfaces", 0, "interactions", 0, to={}),
    "a mask and a choice": _set("surfaces", 0, "interactions", 0, to={"mask": RLE, "choice": 0}),
    "a map without a mask": _set("surfaces", 0, "interactions", 0, to={"previous": {"size": [1, 1], "zlib": ""}}),
    "a choice below 0": _set("surfaces", 0, "interactions", 0, to={"choice": -1}),
    "a choice of 64": _set("surfaces", 0, "interactions", 0, to={"choice": 64}),
    "a mask of another size": _set("surfaces", 0, "interactions", 0, to={"mask": {"size": [3, 3], "counts": "9"}}),
    "a mask of numbers": _set("surfaces", 0, "interactions", 0, to={"mask": {"size": list(SIZE), "counts": [3500]}}),
    "an order of nothing": _set("order", to=[]),
    "an order of others": _set("order", to=[1, 2, 1]),
    "an order of one too often": _set("order", to=[1, 1, 2]),
    "an order with the undone first": _set("order", to=[2, 2, 1]),
}


def test_others_are_refused_by_both(modules: Page, sessions: list[Session]) -> None:
    for session in sessions:
        saved = annotated(session)
        cases = {name: change(saved) for name, change in WRONG.items()}
        answers = call_saving(modules, "readAnnotation", [[json.dumps(one), list(SIZE)] for one in cases.values()])
        for (name, one), answer in zip(cases.items(), answers, strict=True):
            assert isinstance(answer, Refused), name
            assert (answer.name, answer.kind) == ("AnswerError", "SessionError"), (name, answer)
            assert answer.given
            assert answer.expected
            assert answer.fix
            with pytest.raises(MMMSDeployError):
                session.restore(one)
        assert session.to_dict() == saved
        written = [name for name in cases if name != "another size"]
        for answer in call_saving(modules, "annotationJson", [[{"annotation": cases[name]}] for name in written]):
            assert isinstance(answer, Refused)
    texts = ["", "{", "[1, 2", "\ufeff{}", '{"format": NaN}', "\x89PNG"]
    for answer in call_saving(modules, "readAnnotation", [[text] for text in texts]):
        assert isinstance(answer, Refused)
        assert (answer.kind, "JSON" in answer.given or "format" in answer.given) == ("SessionError", True)
