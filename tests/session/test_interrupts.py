"""An interrupt or a lack of memory at any line leaves a session as it was before the call, or as it is after it."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pytest

import mmms_deploy
from mmms_deploy import Bundle, Session
from mmms_deploy.annotations import rle_of
from mmms_deploy.errors import EngineError
from tests.support.annotating import GREY, SIZE

pytestmark = pytest.mark.usefixtures("every_engine")

PACKAGE = str(Path(mmms_deploy.__file__).parent)
DEPTH, EVENT = np.full(SIZE, 0.1), np.full((*SIZE, 3), 0.1)
LOGITS = np.linspace(-9, 9, 64, dtype=np.float32).reshape(1, 8, 8)
SAVED = {
    **{"format": "mmms-deploy-session", "version": 1, "image_size": list(SIZE), "surface": "cat", "labels_given": 3},
    "surfaces": [
        {"name": "cat", "label": 3, "changed": 5, "undone": 1, "interactions": [[12, 12, 1], [20, 40, 0]]},
        {
            **{"name": "box", "label": 2, "changed": 4, "undone": 0},
            "interactions": [{"mask": rle_of(np.eye(*SIZE, dtype=np.bool_))}],
        },
    ],
}

CALLS: dict[str, Callable[[Session], object]] = {
    "set_image": lambda session: session.set_image(np.full((30, 40, 3), 90, dtype=np.uint8), depth=DEPTH[:30, :40]),
    "set_modalities": lambda session: session.set_modalities(depth=DEPTH * 3, event=EVENT),
    "click": lambda session: session.click(30, 30),
    "negative click": lambda session: session.click(12, 10, positive=False),
    "set_clicks": lambda session: session.set_clicks([(20, 40), (30, 30, 0)]),
    "predict": lambda session: session.predict([[30, 30]], [1], mask_input=LOGITS),
    "restore": lambda session: session.restore(SAVED),
    "set_mask": lambda session: session.set_mask(np.eye(*SIZE, dtype=np.bool_)),
    "load_labels": lambda session: session.load_labels(np.eye(*SIZE, dtype=np.int32) * 3, {"dog": 3, "owl": 4}),
    "undo": lambda session: session.undo(),
    "redo": lambda session: session.redo(),
    "reset": lambda session: session.reset(),
    "select a new one": lambda session: session.select("cat"),
    "select an old one": lambda session: session.select("1"),
    "remove the current one": lambda session: session.remove("dog"),
    "remove another one": lambda session: session.remove("1"),
    "rename": lambda session: session.rename("dog", "cat"),
    "labels": lambda session: session.labels,
}


@cache
def with_lines(code: CodeType) -> frozenset[int]:
    """The lines of a function that begin a ``with`` block."""
    lines, first = inspect.getsourcelines(code)
    tree = ast.parse(textwrap.dedent("".join(lines)))
    return frozenset(first - 1 + node.lineno for node in ast.walk(tree) if isinstance(node, ast.With))


def leaves_a_with_block(frame: FrameType) -> bool:
    """Whether a line is the beginning of a ``with`` block.

    A trace function sees it again when the block is left, where Python itself lets no interrupt in: the context would
    never be left.
    """
    return frame.f_lineno in with_lines(frame.f_code)


class Injected:
    """Raises an error at one line of the package, counted from the start of the block."""

    def __init__(self, line: int, error: type[BaseException]) -> None:
        self.left = line
        self.error = error

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        # Python prints what a finaliser raises, and goes on.
        if not frame.f_code.co_filename.startswith(PACKAGE) or frame.f_code.co_name == "__del__":
            return None
        if event == "line" and not leaves_a_with_block(frame):
            self.left -= 1
            if self.left == 0:
                raise self.error
        return self

    def __enter__(self) -> Injected:
        self.before = sys.gettrace()
        sys.settrace(self)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(self.before)


@pytest.fixture
def session(optional: Bundle) -> Iterator[Session]:
    """Two objects that overlap; the current one has a click to redo."""
    with Session(optional, threads=1) as session:
        session.set_image(GREY, depth=DEPTH)
        session.click(10, 10)
        session.click(60, 40)
        session.select("dog")
        session.click(12, 12)
        session.click(20, 40)
        session.undo()
        yield session


def seen(session: Session) -> tuple[object, ...]:
    """What a user sees of a session, and what another click answers there."""
    history = session._state.surfaces.current.history
    looks = (
        session.image_size,
        session.modalities,
        session.surface,
        dict(session.surfaces),
        session.clicks,
        session.can_undo,
        session.can_redo,
        session.mask.tobytes(),
        session.labels.tobytes(),
        len(history.past),
    )
    before = session._state
    answer = session.click(15, 15).network_probability.tobytes()
    session._state = before  # values are never written to, so this is the same as never having clicked
    return (*looks, answer)


@pytest.mark.parametrize(("error", "step"), [(KeyboardInterrupt, 5), (MemoryError, 23)])
@pytest.mark.parametrize("call", CALLS)
def test_a_call_happens_or_does_not(session: Session, call: str, error: type[BaseException], step: int) -> None:
    start = session._state
    before = seen(session)
    CALLS[call](session)
    after = seen(session)
    line = 1 - step
    finished = False
    while not finished:
        line += step
        session._state = start
        try:
            with Injected(line, error):
                CALLS[call](session)
            finished = True
        except (error, EngineError):  # an engine says that the memory does not suffice
            now = seen(session)
            assert now in (before, after), f"line {line} of {call} leaves the session between two states"
    assert seen(session) == after
    assert line > step


def test_close_after_an_interrupt_frees_the_rest(paint: Bundle) -> None:
    """A close that was interrupted can be called again."""
    session = Session(paint, threads=1)
    session.set_image(GREY)
    closed = []
    close, engine_close = session._runner.close, session._engine.close

    def interrupted() -> None:
        closed.append("runner")
        close()
        if len(closed) == 1:
            raise KeyboardInterrupt

    session._runner.close = interrupted  # type: ignore[method-assign]
    session._engine.close = lambda: (closed.append("engine"), engine_close())  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        session.close()
    session.close()
    assert closed == ["runner", "engine", "runner", "engine"]
