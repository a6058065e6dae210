"""One thread, its order, and its end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

import pytest

from mmms_deploy.doors.napari.worker import Worker

LIMIT = 30.0


class Interface:
    """The interface's thread, played by the test."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.worker = Worker(self.calls.put)

    def wait(self) -> None:
        while self.worker.waiting:
            self.calls.get(timeout=LIMIT)()


def test_answers_come_in_the_order_of_the_calls() -> None:
    interface, got, threads = Interface(), [], set()

    def call(number: int) -> int:
        threads.add(threading.get_ident())
        return number

    for number in range(20):
        interface.worker.submit(lambda number=number: call(number), got.append)
    assert not got, "an answer was taken in another thread"
    interface.wait()
    assert got == list(range(20))
    assert len(threads) == 1
    assert threads != {threading.get_ident()}
    interface.worker.close(lambda: None)


def test_an_error_is_raised_in_the_interface_and_the_next_call_runs() -> None:
    interface, got = Interface(), []
    interface.worker.submit(lambda: 1 / 0, got.append)
    interface.worker.submit(lambda: "next", got.append)
    with pytest.raises(ZeroDivisionError):
        interface.wait()
    interface.wait()
    assert got == ["next"]
    interface.worker.close(lambda: None)


def test_closing_drops_what_waits_and_frees_at_the_end() -> None:
    interface, ran, freed, running = Interface(), [], threading.Event(), threading.Event()
    hold = threading.Event()

    def first() -> None:
        running.set()
        assert hold.wait(LIMIT)
        ran.append("first")

    def last() -> None:
        ran.append("last")
        freed.set()

    interface.worker.submit(first, ran.append)
    interface.worker.submit(lambda: ran.append("second"), ran.append)
    assert running.wait(LIMIT)
    interface.worker.close(last)
    interface.worker.close(last)
    hold.set()
    assert freed.wait(LIMIT)
    assert ran == ["first", "last"]
    with pytest.raises(Empty):
        interface.calls.get_nowait()
    interface.worker.submit(lambda: ran.append("late"), ran.append)
    assert ran == ["first", "last"]


def test_an_answer_that_was_on_its_way_is_dropped_by_closing() -> None:
    interface, got, done = Interface(), [], threading.Event()
    interface.worker.submit(done.set, got.append)
    call = interface.calls.get(timeout=LIMIT)
    interface.worker.close(lambda: None)
    call()
    assert not got
