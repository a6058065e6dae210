"""Pools of workers: every task once, lost workers replaced, errors as they were raised."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from mmms_deploy.cluster import Lost, Processes, here
from mmms_deploy.errors import ClusterError, Door, FileReadError, SessionError
from tests.support.tasks import Doubling


def test_here_keeps_the_order(tmp_path: Path) -> None:
    assert list(here.run(Doubling(tmp_path), [3, 1, 2])) == [(0, 6), (1, 2), (2, 4)]


def test_nothing_is_opened_for_no_task(tmp_path: Path) -> None:
    assert list(here.run(Doubling(tmp_path, broken=True), [])) == []
    assert list(Processes(2).run(Doubling(tmp_path, broken=True), [])) == []


def test_processes_do_every_task(tmp_path: Path) -> None:
    assert dict(Processes(2).run(Doubling(tmp_path), list(range(20)))) == {n: 2 * n for n in range(20)}


def test_a_lost_process_loses_nothing(tmp_path: Path) -> None:
    done = list(Processes(2).run(Doubling(tmp_path, once=(2, 5)), list(range(8))))
    assert sorted(done) == [(n, 2 * n) for n in range(8)]


def test_a_task_that_ends_its_process_every_time_is_given_up(tmp_path: Path) -> None:
    done = dict(Processes(2).run(Doubling(tmp_path, deadly=(1,)), list(range(4))))
    assert done.pop(1) == Lost(3, "its process was ended by SIGKILL")
    assert done == {0: 0, 2: 4, 3: 6}


def test_the_last_task_may_end_its_process(tmp_path: Path) -> None:
    assert dict(Processes(1).run(Doubling(tmp_path, deadly=(0,)), [0])) == {
        0: Lost(3, "its process was ended by SIGKILL")
    }


def test_errors_come_back_as_they_were(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="4 is refused") as caught:
        list(Processes(2).run(Doubling(tmp_path, refused=(4,)), list(range(6))))
    assert caught.value.fix == "pass another"


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(FileReadError, match="no bundle here"):
        list(Processes(2).run(Doubling(tmp_path, broken=True), [1, 2]))


def test_a_run_that_is_left_ends_its_processes(tmp_path: Path) -> None:
    run = Processes(2).run(_Number(), list(range(50)))
    _, process = next(run)
    run.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


class _Number:
    """Opens work that says in which process it runs."""

    def __call__(self) -> _Number:
        return self

    def __enter__(self) -> object:
        return _process

    def __exit__(self, *error: object) -> None: ...


def _process(_task: int) -> int:
    return os.getpid()


@pytest.mark.parametrize("workers", [0, -1, True, 1.5, "2"])
def test_numbers_of_workers(workers: object) -> None:
    with pytest.raises(ClusterError, match="expected: 1 or more"):
        Processes(workers)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error",
    [
        FileReadError("no file", reason="it is gone", expected="a file", fix="look", command_fix="look there"),
        SessionError("odd", expected="even", fix="pass another"),
    ],
)
def test_errors_are_pickled_whole(error: SessionError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert [copy.message(door) for door in Door] == [error.message(door) for door in Door]
    assert str(copy) == str(error)
