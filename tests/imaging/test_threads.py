from __future__ import annotations

import _thread
import os
import threading
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from mmms_deploy.imaging.threads import MOST, shared, usable


def test_every_piece_is_computed_once() -> None:
    for threads in (1, 2, 5, 40):
        made: list[int] = []

        def work(pieces: Iterator[int], made: list[int] = made) -> None:
            made.extend(pieces)

        shared(work, range(25), threads)
        assert sorted(made) == list(range(25))


def test_other_threads_help() -> None:
    met = threading.Barrier(2, timeout=20)
    taken: set[int] = set()

    def work(pieces: Iterator[int]) -> None:
        for _ in pieces:
            met.wait()  # goes on only when two threads are here
            taken.add(threading.get_ident())

    shared(work, [0, 1], 2)
    assert len(taken) == 2


def test_a_thread_that_comes_too_late_has_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    late: list[Callable[[], None]] = []
    monkeypatch.setattr(_thread, "start_new_thread", lambda function, _: late.append(function))
    calls = []

    def work(pieces: Iterator[int]) -> None:
        calls.append(list(pieces))

    shared(work, range(4), 3)
    for function in late:
        function()
    assert (calls, len(late)) == ([[0, 1, 2, 3]], 2)


def test_without_other_threads_this_one_computes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    made: list[int] = []
    shared(made.extend, range(4), 3)
    assert made == [0, 1, 2, 3]


@pytest.mark.parametrize("inside", ["this thread", "another"])
def test_an_error_ends_the_work_and_reaches_the_caller(inside: str) -> None:
    caller = threading.get_ident()
    met = threading.Barrier(2, timeout=20)
    running = []

    def work(pieces: Iterator[int]) -> None:
        for piece in pieces:
            running.append(piece)
            if piece < 2:
                met.wait()
            if (threading.get_ident() == caller) == (inside == "this thread"):
                raise KeyboardInterrupt
            running.remove(piece)

    with pytest.raises(KeyboardInterrupt):
        shared(work, range(1000), 2)
    assert len(running) == 1  # the piece that failed; the other thread is at none


def test_numpys_error_handling_is_the_callers() -> None:
    met = threading.Barrier(2, timeout=20)
    large = np.full(1000, 1e30, dtype=np.float32)

    def work(pieces: Iterator[int]) -> None:
        for _ in pieces:
            met.wait()
            np.multiply(large, large)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with np.errstate(over="ignore"):
            shared(work, [0, 1], 2)
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        shared(work, [0, 1], 2)


def test_the_number_of_threads_is_that_of_usable_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5}, raising=False)
    assert usable() == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert usable() == MOST
