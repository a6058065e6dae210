"""Several processes of this machine, each with its own engine. One that is lost is replaced, and its task done again.

The processes are spawned, because libraries do not survive a fork. Each is sent one task at a time: so it is known
which task a lost process had.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any

from mmms_deploy.cluster.pool import MOST_TRIES, Lost, Open
from mmms_deploy.errors import ClusterError, MMMSDeployError

_MOST_LOST_EARLY = 3
"""Processes that may be lost before they are ready; then none of them will be."""
_STOP_SECONDS = 5.0


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    ready: bool = False
    task: int | None = None


class Processes:
    """A pool of processes.

    Args:
        workers: How many there are at a time.

    Raises:
        ClusterError: ``workers`` is no whole number of 1 or more.
    """

    def __init__(self, workers: int) -> None:
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise ClusterError(f"{workers!r} workers", expected="1 or more", fix="pass workers=2")
        self._workers = workers
        self._context = multiprocessing.get_context("spawn")

    def run(self, open_work: Open, tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Do all tasks; see :class:`~mmms_deploy.cluster.pool.Pool`."""
        run = _Run(self._context, open_work, tasks)
        try:
            for _ in range(min(self._workers, len(tasks))):
                run.start()
            while run.left:
                yield from run.step()
        finally:
            run.stop()


class _Run:
    """The processes that do some tasks.

    Attributes:
        left: How many tasks have no result yet.
    """

    def __init__(self, context: SpawnContext, open_work: Open, tasks: Sequence[Any]) -> None:
        self._context, self._open_work, self._tasks = context, open_work, tasks
        self._waiting = deque(range(len(tasks)))
        self._tries = [0] * len(tasks)
        self._workers: list[_Worker] = []
        self._lost_early = 0
        self.left = len(tasks)

    def start(self) -> None:
        """Start one more process.

        Raises:
            ClusterError: It cannot be started.
        """
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._open_work), daemon=True)
        try:
            process.start()
        except OSError as error:
            raise ClusterError(
                f"a process cannot be started: {error.strerror or error}",
                expected="memory and processes to spare",
                fix="use fewer workers",
                command_fix="pass fewer --workers",
            ) from error
        theirs.close()
        self._workers.append(_Worker(process, ours))

    def step(self) -> Iterator[tuple[int, Any]]:
        """Wait until a process says something or is lost; yield the results that there are."""
        heard = wait([worker.pipe for worker in self._workers])
        for worker in [worker for worker in self._workers if worker.pipe in heard]:
            answer = _received(worker)
            if answer is None:
                yield from self._replace(worker)
                continue
            kind, content = answer
            if kind == "error":
                raise content
            number, worker.task = worker.task, None
            worker.ready, self._lost_early = True, 0
            self._give(worker)
            if kind == "done" and number is not None:
                self.left -= 1
                yield number, content
        for worker in self._workers:  # a task that came back
            self._give(worker)

    def stop(self) -> None:
        """End all processes. What a task writes is whole or not at all, however it ends."""
        for worker in self._workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(_STOP_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join(_STOP_SECONDS)

    def _replace(self, worker: _Worker) -> Iterator[tuple[int, Lost]]:
        """Start another process in the place of one that is lost; its task is done again, or given up."""
        self._workers.remove(worker)
        reason, number = _end_of(worker), worker.task
        if number is None:
            self._lost_early += 1
            if self._lost_early >= _MOST_LOST_EARLY:
                raise _none_stays(reason)
        elif self._tries[number] < MOST_TRIES:
            self._waiting.appendleft(number)
        else:
            self.left -= 1
            yield number, Lost(self._tries[number], reason)
        if self.left > len(self._workers):
            self.start()

    def _give(self, worker: _Worker) -> None:
        """Send the next task to a process that has none."""
        if not self._waiting or not worker.ready or worker.task is not None:
            return
        worker.task = self._waiting.popleft()
        self._tries[worker.task] += 1
        with suppress(OSError):  # it is lost, which its pipe says next
            worker.pipe.send(self._tasks[worker.task])


def _received(worker: _Worker) -> tuple[str, Any] | None:
    try:
        answer: tuple[str, Any] = worker.pipe.recv()
    except (EOFError, OSError):
        return None
    return answer


def _end_of(worker: _Worker) -> str:
    worker.process.join(_STOP_SECONDS)
    worker.pipe.close()
    code = worker.process.exitcode
    if code is None or code >= 0:
        return f"its process ended with {code}"
    try:
        return f"its process was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"its process was ended by signal {-code}"


def _none_stays(reason: str) -> ClusterError:
    return ClusterError(
        f"{_MOST_LOST_EARLY} processes were lost while they opened the bundle: {reason}",
        expected="processes with memory enough for the bundle",
        fix="use fewer workers, or a machine with more memory",
        command_fix="pass fewer --workers, or run it on a machine with more memory",
    )


def _serve(pipe: Connection, open_work: Open) -> None:
    """Do the tasks that come through a pipe, in a process of its own, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    try:
        with open_work() as work:
            pipe.send(("ready", None))
            while True:
                task = pipe.recv()
                pipe.send(("done", work(task)))
    except (EOFError, BrokenPipeError):
        sys.exit(0)
    except MMMSDeployError as error:
        pipe.send(("error", error))
