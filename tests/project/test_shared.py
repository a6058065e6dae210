"""What workers of a test run share is made once and is whole, or is not there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.shared import shared


def factory(folder: Path) -> Any:
    folder.mkdir(exist_ok=True)
    return SimpleNamespace(getbasetemp=lambda: folder)


def test_it_is_made_once_by_all_workers_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "part").mkdir()
        (folder / "part" / "file").write_text("text")

    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    first, second = (shared(factory(tmp_path / worker), "thing", make) for worker in ("gw0", "gw1"))
    assert first == second == tmp_path / "shared" / "thing"
    assert len(made) == 1
    assert (first / "part" / "file").read_text() == "text"
    assert (first / "part" / "file").stat().st_mode & 0o222 == 0


def test_it_lies_in_the_run_s_folder_where_there_are_no_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    run = factory(tmp_path / "run")
    assert shared(run, "thing", lambda folder: None) == tmp_path / "run" / "shared" / "thing"


def test_nothing_is_left_of_what_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise RuntimeError("no")

    for _ in range(2):
        with pytest.raises(RuntimeError):
            shared(factory(tmp_path), "thing", fail)
    assert not [path for path in tmp_path.rglob("*") if path.name != "shared"]


def test_of_two_that_make_it_at_the_same_time_the_first_one_s_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)

    def make(folder: Path) -> None:
        (folder / "file").write_text("late")
        shared(factory(tmp_path), "thing", lambda other: (other / "file").write_text("early"))

    place = shared(factory(tmp_path), "thing", make)
    assert (place / "file").read_text() == "early"
    assert [path.name for path in place.parent.iterdir()] == ["thing"]
