"""Every public call of a session takes its lock, and says by name that the session is closed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmms_deploy import Bundle, Session
from mmms_deploy.errors import SessionClosedError, SessionError, WorkError
from tests.support.annotating import GREY, SIZE

CALLS: dict[str, Callable[[Session, Path], object]] = {
    "add_clicks": lambda session, _: session.add_clicks([[10, 10, 1]]),
    "click_objects": lambda session, _: session.click_objects({"dog": (10, 10)}),
    "choose": lambda session, _: session.choose(0),
    "click": lambda session, _: session.click(10, 10),
    "download_features": lambda session, _: session.download_features([]),
    "detections": lambda session, _: session.detections(),
    "features": lambda session, _: session.features,
    "image_size": lambda session, _: session.image_size,
    "labels": lambda session, _: session.labels,
    "load": lambda session, folder: session.load(folder / "work.json"),
    "load_labels": lambda session, _: session.load_labels(np.ones(SIZE, np.int32)),
    "mask": lambda session, _: session.mask,
    "modalities": lambda session, _: session.modalities,
    "predict": lambda session, _: session.predict([[10, 10]], [1]),
    "redo": lambda session, _: session.redo(),
    "remove": lambda session, _: session.remove("1"),
    "rename": lambda session, _: session.rename("1", "dog"),
    "reset": lambda session, _: session.reset(),
    "restore": lambda session, _: session.restore({}),
    "result": lambda session, _: session.result,
    "save": lambda session, folder: session.save(folder / "work.json"),
    "save_labels": lambda session, folder: session.save_labels(folder / "labels.png"),
    "select": lambda session, _: session.select("dog"),
    "set_box": lambda session, _: session.set_box(5, 5, 20, 20),
    "set_clicks": lambda session, _: session.set_clicks([[10, 10, 1]]),
    "set_features": lambda session, _: session.set_features({}, SIZE),
    "set_image": lambda session, _: session.set_image(GREY),
    "set_mask": lambda session, _: session.set_mask(np.ones(SIZE, np.bool_)),
    "set_modalities": lambda session, _: session.set_modalities(depth=None),
    "to_coco": lambda session, _: session.to_coco(),
    "to_dict": lambda session, _: session.to_dict(),
    "undo": lambda session, _: session.undo(),
    "use": lambda session, _: session.use(None),
}
STANDING: dict[str, Callable[[Session, Path], object]] = {
    "can_redo": lambda session, _: session.can_redo,
    "can_undo": lambda session, _: session.can_undo,
    "clicks": lambda session, _: session.clicks,
    "all_clicks": lambda session, _: session.all_clicks,
    "close": lambda session, _: session.close(),
    "runs": lambda session, _: session.runs,
    "surface": lambda session, _: session.surface,
    "surfaces": lambda session, _: session.surfaces,
}
"""What is answered, or done again, when the session is closed."""
FIXED = {"bundle", "cleaning", "engine", "keep_image", "renew_lock"}
"""What never changes, and the call of a forked child that makes a new lock."""


class Counted:
    """A lock that counts how often it was taken."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.taken = 0

    def __enter__(self) -> None:
        self.lock.acquire()
        self.taken += 1

    def __exit__(self, *error: object) -> None:
        self.lock.release()


def test_no_call_is_left_out() -> None:
    public = {name for name in dir(Session) if not name.startswith("_")}
    assert public == set(CALLS) | set(STANDING) | FIXED


@pytest.mark.parametrize("name", [*CALLS, *STANDING, "_repr_html_"])
def test_every_call_takes_the_lock(session: Session, tmp_path: Path, name: str) -> None:
    call = {**CALLS, **STANDING, "_repr_html_": lambda session, _: session._repr_html_()}[name]
    lock = Counted()
    session._lock = lock  # type: ignore[assignment]
    with contextlib.suppress(SessionError, WorkError):  # there is nothing to undo or to load, say
        call(session, tmp_path)
    assert lock.taken


def test_a_closed_session_says_so(paint: Bundle, tmp_path: Path) -> None:
    session = Session(paint, threads=1)
    session.set_image(GREY)
    session.click(10, 10)
    session.close()
    for call in CALLS.values():
        with pytest.raises(SessionClosedError):
            call(session, tmp_path)
    for call in STANDING.values():
        call(session, tmp_path)
    assert session.clicks == ()
    assert not list(tmp_path.iterdir())
