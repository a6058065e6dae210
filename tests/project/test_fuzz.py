"""Every reader on a few damaged files of a fixed seed: read, or refused by a named error. ``make fuzz`` runs many."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import NoReturn

import pytest

from mmms_deploy.errors import MMMSDeployError
from tests.support import fuzzing
from tests.support.fuzzing import READERS, Reader, run, run_in_child

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs signals of POSIX")


def test_no_reader_breaks_on_damaged_files(tmp_path: Path) -> None:
    outcomes = run_in_child(list(READERS), seed=0, count=40, keep=tmp_path, seconds=300)
    broken = {name: (found.tracebacks, found.hangs) for name, found in outcomes.items()}
    assert broken == dict.fromkeys(READERS, ([], 0))
    assert all(found.inputs == 40 for found in outcomes.values())
    assert all(found.accepted and found.refused for found in outcomes.values())


def test_what_breaks_a_reader_is_counted_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check would pass if it saw nothing."""

    def read(path: Path) -> object:
        content = path.read_bytes()
        if content == b"whole" or content[:1] == b"w":
            return content
        if len(content) % 3 == 0:
            raise MMMSDeployError("refused")
        if len(content) % 3 == 1:
            raise KeyError("raw")
        return _wait()

    monkeypatch.setitem(READERS, "toy", Reader(lambda: [("a.txt", b"whole")], read))
    monkeypatch.setattr(fuzzing, "SECONDS", 0.01)
    outcome = run("toy", 1, 100, tmp_path)
    assert outcome.inputs == 100
    assert outcome.accepted + outcome.refused + len(outcome.tracebacks) + outcome.hangs == 100
    assert min(outcome.accepted, outcome.refused, len(outcome.tracebacks), outcome.hangs) > 0
    assert len(list(tmp_path.iterdir())) == len(outcome.tracebacks) + outcome.hangs


def _wait() -> NoReturn:
    while True:
        time.sleep(1)
