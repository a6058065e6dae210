"""A prefetch: what it puts into the store, its queue, its errors, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmms_deploy import LATER, Bundle, FeatureStore, Model, Prefetcher
from mmms_deploy.errors import EngineError, ImageError, MMMSDeployError, ModalityError, StoreError
from mmms_deploy.progress import Progress
from mmms_deploy.store import Priority
from mmms_deploy.store import prefetch as module
from mmms_deploy.store.prefetch import _Worker
from mmms_deploy.store.worker_link import Link
from tests.support.annotating import GREY, SIZE
from tests.support.paths import ROOT
from tests.support.stored import picture

LONG = 120.0
DEPTH, EVENT = np.full(SIZE, 20.0), np.full((*SIZE, 3), 0.1)


class Started:
    """A prefetch, its model and its store."""

    def __init__(self, bundle: Bundle, store: FeatureStore) -> None:
        self.store = store
        self.model = Model(bundle, engine="onnxruntime", threads=1, store=store)
        self.said: list[Progress] = []
        self.prefetcher = Prefetcher(self.model, priority=Priority.NORMAL, on_progress=self.said.append)

    def close(self) -> None:
        self.prefetcher.close()
        self.model.close()

    def answer(self, image: Any, **modalities: Any) -> tuple[bool, Any]:
        """Return whether an image is found, and the answer to a click on it."""
        with self.model.session() as session:
            return session.set_image(image, **modalities).found, session.click(10, 10).network_probability


@pytest.fixture(scope="module", params=["folder", "memory"])
def started(request: pytest.FixtureRequest, paint: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One process for the tests that only add images."""
    folder = tmp_path_factory.mktemp("prefetch") / "features" if request.param == "folder" else None
    one = Started(paint, FeatureStore(folder))
    yield one
    one.close()


def test_what_was_prefetched_is_found_and_answers_alike(started: Started, paint: Bundle) -> None:
    images = [picture(number) for number in (1, 2, 3)]
    started.prefetcher.replace(images)
    assert started.prefetcher.wait(LONG)
    now = started.prefetcher.progress
    assert (now.encoded, now.found, now.failed, now.total, now.running) == (3, 0, 0, 3, False)
    assert [one.done for one in started.said[-3:]] == [1, 2, 3]
    assert started.said[-1].finished
    with Model(paint, engine="onnxruntime", threads=1) as plain, plain.session() as session:
        for image in images:
            session.set_image(image)
            found, answer = started.answer(image)
            assert found
            np.testing.assert_array_equal(answer, session.click(10, 10).network_probability)
    started.prefetcher.replace(images)  # a second time nothing runs
    assert started.prefetcher.wait(LONG)
    assert started.prefetcher.progress.found == 3


def test_what_cannot_be_encoded_is_kept_and_the_others_go_on(started: Started, tmp_path: Path) -> None:
    before = len(started.prefetcher.errors)
    bad: list[Any] = [tmp_path / "none.png", b"no picture", lambda: 1, {"image": GREY, "depth": DEPTH}, {"images": 1}]
    started.prefetcher.replace([*bad, picture(9)])
    assert started.prefetcher.wait(LONG)
    now = started.prefetcher.progress
    assert (now.failed, now.encoded + now.found, now.done) == (5, 1, 6)
    errors = started.prefetcher.errors[before:]
    assert [type(one.error) for one in errors] == [ImageError, ImageError, StoreError, ModalityError, StoreError]
    assert [str(tmp_path / "none.png"), *bad[1:]] == [one.image for one in errors]
    assert "none.png" in str(errors[0].error)
    assert "has 'images'" in str(errors[4].error)
    assert started.answer(picture(9))[0]


def test_an_iterable_is_asked_when_there_is_time(started: Started) -> None:
    asked: list[int] = []

    def images() -> Iterator[Any]:
        for number in range(20, 23):
            asked.append(number)
            yield picture(number)
        raise OSError("the list broke off")

    started.prefetcher.replace(images())
    assert started.prefetcher.wait(LONG)
    now = started.prefetcher.progress
    assert (asked, now.encoded, now.failed, now.total) == ([20, 21, 22], 3, 1, None)
    assert "broke off" in str(started.prefetcher.errors[-1].error)


def test_a_relative_path_is_that_of_the_folder_when_it_was_given(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    Image.fromarray(picture(33)).save(tmp_path / "here.png")
    monkeypatch.chdir(tmp_path)
    started.prefetcher.replace(["here.png"])
    monkeypatch.chdir(ROOT)
    assert started.prefetcher.wait(LONG)
    assert started.answer(picture(33))[0]


def test_the_annotator_jumps_elsewhere(started: Started) -> None:
    """What is left is dropped, and the new images come next."""
    hold, asked = threading.Event(), threading.Event()

    def old() -> Iterator[Any]:
        yield picture(40)
        asked.set()
        hold.wait(LONG)
        yield picture(41)
        yield picture(42)

    started.prefetcher.replace(old())
    assert asked.wait(LONG)
    started.prefetcher.replace([picture(50)])
    hold.set()
    assert started.prefetcher.wait(LONG)
    now = started.prefetcher.progress
    assert (now.encoded, now.total) == (1, 1)
    assert [started.answer(picture(number))[0] for number in (40, 50, 41, 42)] == [True, True, False, False]


def test_a_cancelled_prefetch_ends(started: Started) -> None:
    def endless() -> Iterator[Any]:
        for number in range(10**9):
            yield picture(100 + number % 100)

    started.prefetcher.replace(endless())
    while started.prefetcher.progress.done < 2:
        time.sleep(0.01)
    assert not started.prefetcher.wait(0.01)
    assert started.prefetcher.progress.running
    started.prefetcher.cancel()
    assert started.prefetcher.wait(LONG)
    assert started.prefetcher.progress.done == 0


def test_what_a_session_is_encoding_is_left_to_it(started: Started) -> None:
    with started.model.session() as session:
        session.set_image(picture(60))
        key = session.features.key
    started.store.forget(key)
    with started.store.encoding(key) as known:
        assert known is None
        started.prefetcher.replace([picture(60)])
        assert started.prefetcher.wait(LONG)
    assert started.prefetcher.progress.found == 1
    assert key not in started.store


def test_a_worker_that_ends_costs_one_image(started: Started) -> None:
    before = len(started.prefetcher.errors)
    hold, asked = threading.Event(), threading.Event()

    def images() -> Iterator[Any]:
        yield picture(70)
        asked.set()
        hold.wait(LONG)
        yield picture(71)
        yield picture(72)

    started.prefetcher.replace(images())
    assert asked.wait(LONG)
    worker = started.prefetcher._worker
    assert worker is not None
    worker.process.kill()
    worker.process.wait()
    hold.set()
    assert started.prefetcher.wait(LONG)
    assert started.prefetcher.progress.done == 3
    assert started.answer(picture(72))[0]
    for one in started.prefetcher.errors[before:]:
        assert "ended (signal 9)" in str(one.error)


@pytest.mark.parametrize("images", ["one.jpg", b"...", {"image": GREY}, 3])
def test_one_image_is_no_list_of_images(started: Started, images: Any) -> None:
    with pytest.raises(StoreError, match="images to prefetch"):
        started.prefetcher.add(images)


# --- processes of their own -----------------------------------------------------------------------------------------


def test_images_with_modalities(modal: Bundle, store: FeatureStore) -> None:
    one = Started(modal, store)
    try:
        images = [{"image": GREY, "depth": DEPTH, "event": EVENT}, {"image": GREY, "depth": LATER, "event": EVENT}]
        one.prefetcher.add(images)
        assert one.prefetcher.wait(LONG)
        (error,) = one.prefetcher.errors
        assert isinstance(error.error, StoreError)
        assert "waits for depth" in str(error.error)
        assert one.answer(GREY, depth=DEPTH, event=EVENT)[0]
        assert not one.answer(GREY, depth=DEPTH * 2, event=EVENT)[0]
    finally:
        one.close()


def test_a_folder_that_cannot_be_written_leaves_memory(paint: Bundle, tmp_path: Path) -> None:
    from mmms_deploy.errors import StoreWarning

    (tmp_path / "file").write_text("in the way")
    one = Started(paint, FeatureStore(tmp_path / "file"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StoreWarning)
            one.prefetcher.add([picture(1)])
            assert one.prefetcher.wait(LONG)
            assert one.answer(picture(1))[0]
        assert one.prefetcher.errors == ()
    finally:
        one.close()


def test_a_bundle_that_is_gone_is_said_where_the_caller_waits(copy: Path) -> None:
    one = Started(Bundle(copy), FeatureStore())
    try:
        (copy / "bundle.json").unlink()
        one.prefetcher.add([picture(1)])
        with pytest.raises(MMMSDeployError, match="bundle"):
            one.prefetcher.wait(LONG)
        with pytest.raises(MMMSDeployError, match="bundle"):
            one.prefetcher.add([picture(2)])
    finally:
        one.close()


def test_a_process_that_does_not_start(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Started(paint, FeatureStore())
    try:
        monkeypatch.setattr(module, "_STARTS", "raise SystemExit(7)")
        one.prefetcher.add([picture(1)])
        with pytest.raises(StoreError, match="exit status 7"):
            one.prefetcher.wait(LONG)
        assert not one.prefetcher.progress.running
    finally:
        one.close()


def test_closing_ends_the_process_and_refuses_more(paint: Bundle) -> None:
    one = Started(paint, FeatureStore())
    one.prefetcher.add(picture(number % 256) for number in range(10**9))
    while one.prefetcher.progress.done < 1:
        time.sleep(0.01)
    worker, thread = one.prefetcher._worker, one.prefetcher._thread
    assert worker is not None
    assert thread is not None
    one.close()
    one.prefetcher.close()
    assert worker.process.poll() is not None
    assert not thread.is_alive()
    assert one.prefetcher.wait(0)
    assert not one.prefetcher.progress.running
    with pytest.raises(StoreError, match="closed"):
        one.prefetcher.add([picture(1)])


def test_a_prefetch_that_was_never_used_starts_nothing(paint: Bundle) -> None:
    one = Started(paint, FeatureStore())
    assert one.prefetcher.wait()
    one.prefetcher.cancel()
    one.close()
    assert one.prefetcher._worker is None


SCRIPT = """
import sys, time
from mmms_deploy import FeatureStore, Model, Prefetcher
from tests.support.stored import picture
model = Model(sys.argv[1], engine="onnxruntime", threads=1, store=FeatureStore())
prefetcher = Prefetcher(model, priority="normal")
prefetcher.add(picture(number % 256) for number in range(10**9))
while prefetcher.progress.done < 2:
    time.sleep(0.01)
print(prefetcher._worker.process.pid, flush=True)
if sys.argv[2] == "killed":
    time.sleep(100)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("how", ["ended", "killed"])
def test_the_process_ends_with_the_one_that_started_it(paint: Bundle, how: str) -> None:
    """Whether that one ends by itself, with the prefetch open, or by kill -9."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, str(paint.path), how]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        worker = int(process.stdout.readline())
        if how == "killed":
            process.kill()
        status, said = process.wait(LONG), process.stderr.read()
    assert status == (0 if how == "ended" else -signal.SIGKILL)
    assert said == ""
    for _ in range(1000):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{worker}/stat").exists() and ") Z " in Path(f"/proc/{worker}/stat").read_text():
            return
        time.sleep(0.01)
    pytest.fail("the worker is still there")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_a_fork_it_does_nothing(paint: Bundle) -> None:
    one = Started(paint, FeatureStore())
    one.prefetcher.add([picture(1)])
    assert one.prefetcher.wait(LONG)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(20)
            one.prefetcher.add([picture(2)])
            one.prefetcher.replace([picture(3)])
            one.prefetcher.cancel()
            assert one.prefetcher.wait()
            assert not one.prefetcher.progress.running
            one.prefetcher.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    one.prefetcher.add([picture(4)])
    assert one.prefetcher.wait(LONG)
    assert one.prefetcher.progress.encoded == 2
    one.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what Linux says of its threads")
@pytest.mark.parametrize("priority", [Priority.IDLE, Priority.LOW])
def test_every_thread_of_the_process_has_its_priority(paint: Bundle, priority: Priority) -> None:
    with Model(paint, engine="onnxruntime", threads=2, store=FeatureStore()) as model:
        prefetcher = Prefetcher(model, threads=2, priority=Priority.NORMAL)
        worker = _Worker(prefetcher._opening, priority)
        try:
            worker.link.send(prefetcher._opening)
            assert worker.link.receive() is None
            tasks = [int(one.name) for one in Path(f"/proc/{worker.process.pid}/task").iterdir()]
            found = {(os.sched_getscheduler(task), os.getpriority(os.PRIO_PROCESS, task)) for task in tasks}
        finally:
            worker.end()
            prefetcher.close()
    assert found == {(os.SCHED_IDLE if priority is Priority.IDLE else os.sched_getscheduler(0), 19)}


# --- without a process ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"threads": 0}, "threads is 0"), ({"threads": True}, "threads"), ({"priority": "high"}, "priority is 'high'")],
)
def test_what_is_no_setting_is_refused(paint: Bundle, settings: dict[str, Any], words: str) -> None:
    with Model(paint, threads=1, store=FeatureStore()) as model, pytest.raises(StoreError, match=words):
        Prefetcher(model, **settings)


def test_there_must_be_a_store(paint: Bundle) -> None:
    with Model(paint, threads=1) as model:
        with pytest.raises(StoreError, match="into nothing"):
            Prefetcher(model)
        Prefetcher(model, FeatureStore()).close()


def test_messages_of_any_size_arrive() -> None:
    ours, theirs = os.pipe(), os.pipe()
    one, other = Link(ours[0], theirs[1]), Link(theirs[0], ours[1])
    given = {"large": np.arange(1 << 20), "order": np.asfortranarray(np.ones((300, 200))), "text": "é", "none": None}
    thread = threading.Thread(target=one.send, args=(given,))
    thread.start()
    found = other.receive()
    thread.join(10)
    assert found.keys() == given.keys()
    np.testing.assert_array_equal(found["large"], given["large"])
    np.testing.assert_array_equal(found["order"], given["order"])
    one.close()
    with pytest.raises(EOFError):
        other.receive()
    with pytest.raises(OSError, match="pipe"):
        other.send(given)
    other.close()


def test_errors_that_cannot_be_sent_are_sent_in_words() -> None:
    from mmms_deploy.store.prefetch_worker import _failed

    class Local(Exception):
        pass

    assert "Local: it broke" in str(_failed(Local("it broke")).error)
    whole = _failed(EngineError("it broke", expected="not to", fix="try again")).error
    assert isinstance(whole, EngineError)
    assert whole.fix == "try again"
