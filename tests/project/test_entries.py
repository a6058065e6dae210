"""Every public call with odd arguments, for a moment; ``make fuzz-session`` does it for long."""

from __future__ import annotations

import inspect
import random

import pytest

from mmms_deploy import CocoWriter, Features, Model, Session
from mmms_deploy.errors import MMMSDeployError
from mmms_deploy.session import ClickResult
from tests.support import entries
from tests.support.entries import CALLS, FUNCTIONS, RESULT, Stage, fuzz, public_names
from tests.support.odd_values import EVERY, RaisedByArgument, odd

PLAIN = {
    "LATER",
    "Annotation",
    "ClickResult",
    "Detections",
    "Engine",
    "EngineInfo",
    "ImageTimings",
    "MMMSDeployError",
    "MMMSDeployWarning",
    "Timings",
    "__version__",
    "CocoObject",
}
"""Names that carry what calls return, and constants; ``CocoObject`` is tried through ``CocoWriter.add_image``."""
ELSEWHERE = {
    "AsyncSession",
    "Prefetcher",
    "Work",
}
"""Classes whose arguments go on to the calls here, or have tests of their own."""


def test_odd_arguments_are_answered_or_refused_by_name() -> None:
    tried = fuzz(0, 2500)
    assert not tried.broken
    assert tried.answered > 300
    assert tried.refused > 1000
    assert all(tried.calls[f"Session.{name}"] for name in CALLS)


def test_no_public_entry_is_forgotten() -> None:
    covered = {name.partition(".")[0].partition(",")[0] for name in FUNCTIONS} | {"Session", "ClickResult"}
    assert public_names() - covered - PLAIN - ELSEWHERE == set()
    for kind, known in ((ClickResult, set(RESULT)), (CocoWriter, {"add", "add_image", "write", "dataset"})):
        assert _calls(kind) <= known
    without_arguments = {"close", "undo", "redo", "reset", "to_dict", "detections", "renew_lock"}
    assert _calls(Session) - set(CALLS) - without_arguments == set()
    assert _calls(Model) <= {"encode", "encode_backbone", "session", "close"}
    features = {"save", "load", "to_bytes", "from_bytes", "with_arrays", "for_clicks", "check_image"}
    assert _calls(Features) <= features | {"on_host", "rounded", "without_picture"}


def _calls(kind: type) -> set[str]:
    return {
        name
        for name, value in inspect.getmembers(kind)
        if not name.startswith("_") and (inspect.isfunction(value) or inspect.ismethod(value))
    }


def test_what_breaks_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check would pass if it saw nothing."""

    def raw(value: object) -> None:
        raise KeyError("raw")

    class WithoutTextError(MMMSDeployError):
        def __str__(self) -> str:
            return "\ud800"

    def unsaid(value: object) -> None:
        raise WithoutTextError("unsaid")

    def changing(value: object) -> None:
        entries._opened("plain").session.click(3, 3)
        raise MMMSDeployError("refused, and changed")

    entries._opened("plain")
    monkeypatch.setattr(entries, "CALLS", {"undo": {}})
    monkeypatch.setattr(Stage, "begin", _begin)
    for function, said in ((raw, "KeyError"), (unsaid, "has no text"), (changing, "changed the session and failed")):
        monkeypatch.setattr(entries, "FUNCTIONS", {"bad": (function, {"0": int})})
        tried = fuzz(0, 60, ("plain",))
        assert any(said in line for line in tried.broken), (said, list(tried.broken)[:5])


def _begin(stage: Stage) -> None:
    stage.session.set_image(entries.image())


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_odd_values_are_new_each_time_and_of_every_kind() -> None:
    draw = random.Random(0)
    kinds = set()
    for _ in range(3000):
        kinds.add(type(odd(draw)))
    assert len(kinds) > 60
    assert len(EVERY) > 150
    assert issubclass(RaisedByArgument, Exception)
