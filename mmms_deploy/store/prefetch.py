"""Encodes the next images in the background, so that they are there when an annotator comes to them.

from mmms_deploy import FeatureStore, Model, Prefetcher

store = FeatureStore("features")
with Model("demo", store=store) as model, Prefetcher(model) as prefetcher, model.session() as session:
    prefetcher.replace(["two.jpg", "three.jpg"])
    session.set_image("one.jpg")
    session.click(320, 240)
    session.set_image("two.jpg")  # runs no backbone once the prefetch has come to it
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from mmms_deploy.arguments import shown
from mmms_deploy.engines.process import OwnProcess, in_children
from mmms_deploy.errors import StoreError
from mmms_deploy.imaging.io import ImageLike
from mmms_deploy.progress import OnProgress, Progress
from mmms_deploy.session.features import Features
from mmms_deploy.session.model import Model
from mmms_deploy.store.prefetch_worker import Asked, Done, Failed, Opening
from mmms_deploy.store.store import FeatureStore
from mmms_deploy.store.worker_link import Link, Priority

Prefetched: TypeAlias = "ImageLike | Mapping[str, Any]"
"""An image as ``Model.encode`` takes it, or all arguments of that call by name: ``{"image": ..., "depth": ...}``.

With ``features`` in the place of the image they are those of ``Model.encode_backbone``."""

TASK = "prefetching"
CRASHES = 3
"""So often in a row a worker may end before it has encoded an image."""
_SECONDS_TO_END = 5.0
_STARTS = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from mmms_deploy.store.worker_link import Priority, take_priority
take_priority(Priority(sys.argv[2]))  # before NumPy starts its threads
from mmms_deploy.store.prefetch_worker import main
main()
"""
"""Not multiprocessing, whose processes execute the user's own script once more."""


@dataclass(frozen=True)
class PrefetchError:
    """An image that could not be encoded.

    Attributes:
        image: What was given.
        error: Why.
    """

    image: Prefetched
    error: BaseException


@dataclass(frozen=True)
class PrefetchProgress:
    """How far a prefetch is with the images that it was given last.

    Attributes:
        encoded: How many were encoded.
        found: How many were kept already, or were being encoded elsewhere.
        failed: How many could not be encoded.
        total: How many there are; None where an iterable does not say.
        running: Whether there is anything left to do.
    """

    encoded: int = 0
    found: int = 0
    failed: int = 0
    total: int | None = 0
    running: bool = False

    @property
    def done(self) -> int:
        """How many are done, in any way."""
        return self.encoded + self.found + self.failed


class _Worker:
    """The process that encodes.

    Args:
        opening: What it opens.
        priority: When it computes.

    Raises:
        StoreError: It cannot be started.
        EOFError: It ended.
    """

    def __init__(self, opening: Opening, priority: Priority) -> None:
        command = [sys.executable, "-c", _STARTS, json.dumps(sys.path), priority]
        threads = {name: str(opening.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        flags = 0 if priority is Priority.NORMAL else getattr(subprocess, "IDLE_PRIORITY_CLASS", 0)
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                env={**os.environ, **threads},
                creationflags=flags,
            )
        except OSError as error:
            raise StoreError(
                f"the process that prefetches cannot be started: {error}",
                expected=f"{sys.executable}, which can be started again",
                fix="check the memory and the limits of processes",
            ) from error
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.pipes = self.process.stdin.fileno(), self.process.stdout.fileno()
        self.link = Link(self.pipes[1], self.pipes[0])

    def end(self) -> int:
        """End it, and return its exit status."""
        with contextlib.suppress(OSError):
            self.process.kill()
        # Closed by their objects, which own the numbers.
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        return self.process.wait()


class Prefetcher:
    """Encodes images in the background, into the store of a model.

    It works in a process of its own, on an engine of its own with few threads, at the lowest priority that the system
    has: it computes while nothing else wants to, and a click does not wait for it. It takes one image at a time, the
    first one first. It may be used from several threads.

    A session that comes to an image which is being prefetched does not wait either: it encodes the image itself.

    Args:
        model: The bundle, open on the engine whose sessions will want the images. It may be closed afterwards.
        store: Where the features go; None takes the model's store. With a folder they go to the disk, from where a
            session takes them; without one, to the memory of this process.
        threads: Threads of the engine in the background.
        priority: When the process computes. ``idle`` delays clicks least; on a machine that is never idle it comes to
            nothing, and ``low`` to something.
        on_progress: Receives every image that is done, from another thread.

    Raises:
        StoreError: There is no store, ``threads`` is no number of threads, or ``priority`` is none.
    """

    def __init__(
        self,
        model: Model,
        store: FeatureStore | None = None,
        *,
        threads: int = 1,
        priority: Priority | str = Priority.IDLE,
        on_progress: OnProgress | None = None,
    ) -> None:
        store = _checked_store(model, store)
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise StoreError(f"threads is {shown(threads, 80)}", expected="a number from 1", fix="pass threads=1")
        if not isinstance(priority, str) or priority not in list(Priority):
            raise StoreError(
                f"priority is {shown(priority, 80)}",
                expected=f"one of {', '.join(Priority)}",
                fix='pass priority="idle"',
            )
        self._priority = Priority(priority)
        self._store = store
        self._on_progress = on_progress
        self._opening = Opening(
            bundle=model.bundle.path.absolute(),
            digest=model.bundle.manifest.digest,
            device=model.engine.device,
            engine=model.engine.name,
            precision=model.engine.precision,
            threads=threads,
            store=store.for_worker(),
        )
        self._queue: deque[Iterator[Prefetched]] = deque()
        self._round = 0
        self._busy = False
        self._closed = False
        self._progress = PrefetchProgress()
        self._errors: list[PrefetchError] = []
        self._fatal: BaseException | None = None
        self._worker: _Worker | None = None
        self._thread: threading.Thread | None = None
        self._own = OwnProcess("this prefetcher", self)
        self.renew_lock()
        _open.add(self)

    def renew_lock(self) -> None:
        """Take a new lock; called in a forked child, in which nothing is prefetched."""
        self._changed = threading.Condition()

    def add(self, images: Iterable[Prefetched]) -> None:
        """Encode more images, after those that are left.

        Args:
            images: Images; an iterable is asked for the next one when there is time for it. Paths are those of the
                folder that is the current one now.

        Raises:
            StoreError: The prefetcher is closed, or its process could not be started or opened.
        """
        self._take(images, instead=False)

    def replace(self, images: Iterable[Prefetched]) -> None:
        """Encode these images instead of those that are left; the one that is being encoded is finished.

        :attr:`progress` begins anew; :attr:`errors` stay.

        Args:
            images: As for :meth:`add`.

        Raises:
            StoreError: As for :meth:`add`.
        """
        self._take(images, instead=True)

    def cancel(self) -> None:
        """Encode none of those that are left; the one that is being encoded is finished."""
        if self._own.elsewhere:
            return
        with self._changed:
            self._start_round()
            self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to do, and return whether that is so.

        Args:
            timeout: Most seconds to wait; None for no limit.

        Raises:
            StoreError: The process could not be started, or ended again and again.
            MMMSDeployError: It could not open the bundle.
        """
        if self._own.elsewhere:
            return True
        with self._changed:
            done = self._changed.wait_for(lambda: self._closed or not (self._queue or self._busy), timeout)
            if self._fatal is not None:
                raise self._fatal
            return done

    @property
    def progress(self) -> PrefetchProgress:
        """How far it is."""
        with self._changed:
            running = not self._own.elsewhere and not self._closed and bool(self._queue or self._busy)
            return replace(self._progress, running=running)

    @property
    def errors(self) -> tuple[PrefetchError, ...]:
        """The images that could not be encoded, since the prefetcher was opened, in the order in which they failed."""
        with self._changed:
            return tuple(self._errors)

    def close(self) -> None:
        """End the process in the background; what it had put into the store stays. Safe to call twice."""
        if self._own.elsewhere:
            return
        with self._changed:
            self._closed = True
            self._queue.clear()
            worker, thread = self._worker, self._thread
            self._changed.notify_all()
        if worker is not None:
            with contextlib.suppress(OSError):
                worker.process.kill()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_SECONDS_TO_END)

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self.progress.done} images done"
        return f"Prefetcher({self._opening.engine}, {self._opening.threads} threads: {state})"

    # --- the queue --------------------------------------------------------------------------------------------------

    def _take(self, images: Iterable[Prefetched], *, instead: bool) -> None:
        if isinstance(images, str | bytes | os.PathLike | Mapping) or not isinstance(images, Iterable):
            raise StoreError(
                f"the images to prefetch are of type {type(images).__qualname__}",
                expected="an iterable of images",
                fix="pass a list, also for one image",
            )
        if self._own.elsewhere:
            return
        count = len(images) if isinstance(images, Sized) else None
        images = [_absolute(one) for one in images] if isinstance(images, list | tuple) else map(_absolute, images)
        with self._changed:
            if self._closed:
                raise StoreError("this prefetcher is closed", expected="an open one", fix="open another Prefetcher")
            if self._fatal is not None:
                raise self._fatal
            if instead:
                self._start_round()
            total = self._progress.total
            self._progress = replace(self._progress, total=None if total is None or count is None else total + count)
            self._queue.append(iter(images))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="mmms-prefetch", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _start_round(self) -> None:
        self._queue.clear()
        self._round += 1
        self._progress = PrefetchProgress()

    def _run(self) -> None:
        """Hand one image after the other to the worker: the thread of this prefetcher."""
        try:
            while True:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._closed or self._queue)
                    if self._closed:
                        return
                    self._busy, number, images = True, self._round, self._queue[0]
                self._next(images, number)
        except BaseException as error:  # it is raised where the caller waits
            with self._changed:
                if not self._closed:
                    self._fatal = error
                self._queue.clear()
        finally:
            with self._changed:
                worker, self._worker, self._busy = self._worker, None, False
                self._changed.notify_all()
            if worker is not None:
                worker.end()

    def _next(self, images: Iterator[Prefetched], number: int) -> None:
        """Encode the next one of some images."""
        try:
            image = next(images)  # the user's code, which may take its time
        except StopIteration:
            self._drop(images)
            return
        except Exception as error:  # whatever an iterable raises
            self._count(number, Failed(error), images)
            self._drop(images)
            return
        with self._changed:
            if number != self._round:
                return  # it was replaced meanwhile
        self._count(number, self._encode(image), image)

    def _drop(self, images: Iterator[Prefetched]) -> None:
        with self._changed:
            if self._queue and self._queue[0] is images:
                self._queue.popleft()

    def _count(self, number: int, outcome: Done | Failed, image: Any) -> None:
        with self._changed:
            if isinstance(outcome, Failed):
                self._errors.append(PrefetchError(image, outcome.error))
            if number != self._round:
                return
            now = self._progress
            if isinstance(outcome, Failed):
                now = replace(now, failed=now.failed + 1)
            elif outcome.encoded:
                now = replace(now, encoded=now.encoded + 1)
            else:
                now = replace(now, found=now.found + 1)
            self._progress = now
        if self._on_progress is not None:
            self._on_progress(Progress(TASK, now.done, now.total, finished=now.done == now.total))

    # --- the worker -------------------------------------------------------------------------------------------------

    def _encode(self, image: Prefetched) -> Done | Failed:
        """Have the worker encode an image, in another process where one ends."""
        given = image if isinstance(image, Mapping) else {"image": image}
        if not given.keys() & {"image", "features"}:
            return Failed(
                StoreError(
                    f"an image to prefetch has {', '.join(map(repr, given)) or 'nothing'}",
                    expected="an image, or a mapping with 'image' and the modalities",
                    fix='pass {"image": ..., NAME: ...}',
                )
            )
        for _ in range(CRASHES):
            worker = self._started()
            try:
                worker.link.send(dict(given))
            except OSError:
                ended = self._ended(worker)
                continue
            except Exception as error:  # what cannot be pickled, by any class's own code
                return Failed(StoreError(f"an image cannot be handed to another process: {error}"))
            try:
                return self._answer(worker)
            except (EOFError, OSError):
                ended = self._ended(worker)
                # The image may be what ended it: the next one gets another chance.
                return Failed(StoreError(f"the process that prefetches ended ({ended}) with this image"))
        raise StoreError(
            f"the process that prefetches ended {CRASHES} times before it could encode an image ({ended})",
            expected="a process that runs",
            fix="look at what it wrote to stderr, and at the free memory",
        )

    def _answer(self, worker: _Worker) -> Done | Failed:
        while True:
            answer = worker.link.receive()
            if isinstance(answer, Asked):
                worker.link.send(answer.key in self._store or self._store.is_encoding(answer.key))
                continue
            if isinstance(answer, Done) and answer.content is not None:
                self._store.keep(Features.from_bytes(answer.content))
            assert isinstance(answer, Done | Failed)
            return answer

    def _started(self) -> _Worker:
        if self._worker is None:
            worker = _Worker(self._opening, self._priority)
            with self._changed:
                self._worker = worker
                if self._closed:
                    raise StoreError("this prefetcher is closed")
            try:
                worker.link.send(self._opening)
                answer = worker.link.receive()
            except (EOFError, OSError):
                status = self._ended(worker)
                raise StoreError(
                    f"the process that prefetches ended before it had opened the bundle ({status})",
                    expected="a process that runs",
                    fix="look at what it wrote to stderr, and at the free memory",
                ) from None
            if isinstance(answer, Failed):
                raise answer.error
            return worker
        return self._worker

    def _ended(self, worker: _Worker) -> str:
        with self._changed:
            self._worker = None
        status = worker.end()
        return f"signal {-status}" if status < 0 else f"exit status {status}"

    def close_pipes(self) -> None:
        """Close the pipes in a forked child, which would keep the worker waiting after its parent has ended."""
        if self._worker is not None:
            self._worker.link.close()


def _checked_store(model: Model, store: FeatureStore | None) -> FeatureStore:
    found = model.store if store is None else store
    if not isinstance(found, FeatureStore):
        raise StoreError(
            f"the images are to be prefetched into {'nothing' if found is None else type(found).__qualname__}",
            expected="a FeatureStore",
            fix="open the model with store=FeatureStore(...), or pass the store",
        )
    return found


def _absolute(image: Prefetched) -> Prefetched:
    """Return an image whose path another process finds, whatever its current folder is."""
    if isinstance(image, Mapping):
        return {name: _absolute(one) for name, one in image.items()}
    if isinstance(image, os.PathLike) or (isinstance(image, str) and "://" not in image):
        path = os.fspath(image)
        return str(Path(path).absolute()) if isinstance(path, str) and path else image
    return image


_open: weakref.WeakSet[Prefetcher] = weakref.WeakSet()


def _close_all() -> None:
    for one in list(_open):
        one.close()


def _in_child() -> None:
    for one in list(_open):
        one.close_pipes()


atexit.register(_close_all)
in_children(_in_child)
