"""What was opened before a fork has a named error in the child; Python's end waits for the calls that run."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from mmms_deploy import Session
from mmms_deploy.bundle import Bundle
from mmms_deploy.engines import process
from mmms_deploy.engines.process import ModuleLock, OwnProcess, library_call
from mmms_deploy.errors import EngineError, ForkError
from tests.support.paths import ROOT
from tests.support.standin_engine import StandInEngine

IMAGE = np.zeros((30, 40, 3), np.uint8)
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

FORKED = """
import gc, os, signal, sys, threading, time, warnings
import numpy as np
from mmms_deploy import Session
from mmms_deploy.errors import EngineUnavailableError, ForkError

signal.alarm(60)  # ends a process that hangs
path, engine = sys.argv[1:]
image = np.zeros((30, 40, 3), np.uint8)

def use(**options):
    session = Session(path, threads=2, **options)
    session.set_image(image)
    session.click(3, 4)
    return session

closed = use(engine=engine)
closed.close()
kept, left, busy = use(engine=engine), use(engine=engine), use(engine=engine)
stop = threading.Event()

def annotate():
    while not stop.is_set():
        busy.click(5, 6)
        busy.undo()

thread = threading.Thread(target=annotate)
thread.start()
child = os.fork()
if child:
    status = os.waitpid(child, 0)[1]
    stop.set()
    thread.join()
    kept.click(5, 6)
    sys.exit(os.waitstatus_to_exitcode(status))

signal.alarm(60)  # ends a process that hangs
calls = {
    "click": lambda: kept.click(1, 2),
    "set_image": lambda: kept.set_image(image),
    "mask": lambda: kept.mask,
    "enter": lambda: kept.__enter__(),
    "a held lock": lambda: busy.click(1, 2),
    "engine": lambda: kept._engine.open(),
    "runner": lambda: kept._runner.synchronize(),
}
for name, call in calls.items():
    try:
        call()
    except ForkError as error:
        assert "forked from it" in error.given
    else:
        raise AssertionError(f"{name} raises nothing")
kept.close()
kept.__exit__(None, None, None)
del left
gc.collect()
if engine == "openvino":
    try:
        use(engine="openvino")
    except EngineUnavailableError as error:
        assert "before this process" in error.given and "spawn" in error.fix
    else:
        raise AssertionError("OpenVINO has no threads here")
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    fresh = use()
assert fresh.engine.name == "onnxruntime" if engine == "openvino" else said == [], (fresh.engine, said)
fresh.close()
print("the child ends")
sys.exit(0)
"""


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_fork(paint: Bundle, engine: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(paint.path), engine],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the child ends\n"


def test_a_fork_after_the_import_alone(paint: Bundle) -> None:
    """Servers import first and fork then (gunicorn --preload)."""
    script = """
        import os, sys
        import numpy as np
        from mmms_deploy import Session
        from mmms_deploy.engines.openvino.library import bf16_capable
        bf16_capable()
        child = os.fork()
        if not child:
            with Session(sys.argv[1], engine="openvino", strict=True, threads=2) as session:
                session.set_image(np.zeros((30, 40, 3), np.uint8))
                session.click(3, 4)
        else:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(paint.path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_an_inherited_session_on_a_gpu(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = StandInEngine(paint)
    session = Session(paint, engine=engine)
    session.set_image(IMAGE)
    parent = os.getpid()
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: parent + 1)
        calls = len(engine.standin.calls) if hasattr(engine.standin, "calls") else 0
        for call in (lambda: session.click(1, 1), engine.open, engine.memory, session._runner.synchronize):
            with pytest.raises(ForkError, match=f"in process {parent}, and this is process {parent + 1}"):
                call()
        session.close()
        session._runner.close()
        engine.close()
        assert (len(engine.standin.calls) if hasattr(engine.standin, "calls") else 0) == calls
    session.click(1, 1)
    session.close()
    engine.close()


def test_a_lock_that_a_thread_holds_at_a_fork() -> None:
    lock = ModuleLock()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock.lock, library_call():
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    child = os.fork()
    if not child:
        with lock.lock, library_call():
            os._exit(0 if list(process._calls.running.values()) == [1] else 1)
    assert os.waitpid(child, 0)[1] == 0
    done.set()
    thread.join()


def test_the_end_waits_and_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = process._Calls()
    monkeypatch.setattr(process, "_calls", calls)
    own = OwnProcess("this engine", calls)
    ending = threading.Thread(target=calls.wait_at_exit)
    with own:
        ending.start()
        while calls.ending is None:
            pass
        with pytest.raises(EngineError, match="Python is ending"), library_call():
            pass
        assert ending.is_alive()
    ending.join(30)
    assert not ending.is_alive()
    assert not calls.running


def test_the_end_waits_for_nothing_that_was_interrupted() -> None:
    """Ctrl-C between the announcement of a call and the call leaves the announcement, in the main thread."""
    calls = process._Calls()
    calls.begin()
    gone = threading.Thread(target=calls.begin)
    gone.start()
    gone.join()
    calls.wait_at_exit()


def test_a_lock_is_never_lost(paint: Bundle) -> None:
    """Locks are taken by C code: an interrupt comes before they are held, or when they will be released."""
    with Session(paint, engine="onnxruntime", threads=1) as session:
        assert type(session._lock) is type(threading.RLock())


@pytest.mark.parametrize(
    "start", ["threading.Thread(target=annotate, daemon=True).start()", "_thread.start_new_thread(annotate, ())"]
)
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_end_while_a_thread_clicks(paint: Bundle, engine: str, start: str) -> None:
    """Also in a thread that the module threading did not start, as those of Qt."""
    script = """
        import _thread, sys, threading, time
        import numpy as np
        from mmms_deploy import Session
        session = Session(sys.argv[1], engine=sys.argv[2], threads=2)
        session.set_image(np.zeros((30, 40, 3), np.uint8))
        begun = threading.Event()
        def annotate():
            while True:
                session.click(5, 6)
                session.undo()
                begun.set()
        START
        begun.wait()
    """.replace("START", start)
    for _ in range(3):
        command = [sys.executable, "-c", textwrap.dedent(script), str(paint.path), engine]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "terminate" not in done.stderr
