"""Processes that are killed while they write a journal or a file of work: what was complete stays, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmms_deploy import Bundle, Session, read_work
from mmms_deploy.journal import Images, read_journal
from tests.support.annotating import GREY
from tests.support.journals import check_replay, write_pictures
from tests.support.paths import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills processes")

_START = """
import sys
import numpy as np
from mmms_deploy import Session
from tests.support.journals import PICTURE
bundle, path = sys.argv[1:]
"""
_CLICKS = (
    _START
    + """
with Session(bundle, engine="onnxruntime", threads=1, history_limit=3, journal=path) as session:
    session.set_image(PICTURE)
    number = 0
    while True:
        session.click(number % 70, number % 50, number % 3)
        number += 1
        print(number, flush=True)
"""
)
_SAVES = (
    _START
    + """
with Session(bundle, engine="onnxruntime", threads=1) as session:
    session.set_image(PICTURE)
    number = 0
    while True:
        session.select(f"object {number}")
        session.set_mask(np.random.default_rng(number).random(PICTURE.shape[:2]) < 0.5)
        session.save(path, overwrite=True)
        number += 1
        print(number, flush=True)
"""
)


def killed(script: str, bundle: Bundle, path: Path, after: int) -> int:
    """Start a process, kill it after so many of its rounds, and return how many it had told of."""
    script = script.replace("number % 3)", "number % 3 == 0)")
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(bundle.path), str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert child.stdout is not None
    told = 0
    for line in child.stdout:
        told = int(line)
        if told >= after:
            break
    time.sleep(0.001 * (after % 5))
    child.send_signal(signal.SIGKILL)
    told = max([told, *(int(line) for line in child.stdout.read().split())])
    assert child.wait() == -signal.SIGKILL
    return told


@pytest.mark.parametrize("after", [1, 42, 203])
def test_every_click_that_was_answered_is_in_the_journal(paint: Bundle, tmp_path: Path, after: int) -> None:
    path = tmp_path / "a.jsonl"
    told = killed(_CLICKS, paint, path, after)
    (one,) = read_journal(path)
    assert told + 1 <= len(one.events) <= told + 2, "the image, and at most one click that was not told of yet"
    assert not one.closed
    images = Images([write_pictures(tmp_path / "pictures")])
    assert len(check_replay(path, paint, images).rows) == len(one.events)
    with Session(paint, threads=1, journal=path) as session:  # its lock is gone with the process
        session.set_image(GREY)
    assert [len(part.events) for part in read_journal(path)] == [len(one.events), 1]


@pytest.mark.parametrize("after", [1, 11, 22])
def test_a_file_of_work_is_the_old_one_or_the_new_one(paint: Bundle, tmp_path: Path, after: int) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    path = folder / "work.json"
    told = killed(_SAVES, paint, path, after)
    work = read_work(path)
    assert told + 1 <= len(work.objects) <= told + 2
    for one in work.objects:
        assert one.mask.sum() == one.area
    others = [file for file in folder.iterdir() if file != path]
    assert all(file.name.endswith(".partial") and file.name.startswith(".") for file in others)
