"""The measurement of prefetching: its parts, and what its page says."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_help() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "prefetch.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--rounds" in done.stdout


def test_images_are_given_out_while_the_gate_is_open() -> None:
    from prefetch import Images

    images, found = Images(np.zeros((4, 4, 3), np.uint8)), []

    def take() -> None:
        found.extend(image for _, image in zip(range(100_000), images, strict=False))

    thread = threading.Thread(target=take)
    thread.start()
    images.open()
    while images.given < 3:
        pass
    images.shut()
    given = images.given
    assert images.given == given, "nothing is given out behind the gate"
    images.close()
    thread.join(10)
    assert len(found) >= given
    assert len({image.tobytes() for image in found[:300]}) == min(len(found), 300)


def test_the_page_has_ratios_and_the_goal() -> None:
    from prefetch import OURS, WITHOUT, Results, Way, markdown, targets

    ways = [Way(WITHOUT, [10.0] * 20, 1.0), Way("naive", [30.0] * 20, 2.0, 4), Way(OURS, [11.0] * 20, 1.0, 3)]
    found = Results("toy", "an engine", ways)
    page = markdown([found], [("processor", "one")], "conditions")
    assert "| naive | 30.0 | 30.0 | 30.0 | 3.00 | 3.00 | 3.00 | 2.00 |" in page
    assert f"| {WITHOUT} | 10.0 | 10.0 | 10.0 | 1.00 | 1.00 | 1.00 |  |" in page
    assert "| processor | one |" in page
    (goal,) = targets(found)
    assert goal.met
    assert goal.value == pytest.approx(1.1)
    ways[2].clicks = [20.0] * 20
    assert not targets(found)[0].met
