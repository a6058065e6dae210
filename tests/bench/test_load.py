"""The model of how many annotators a host carries, against a simulation of it; and the script that measures both."""

from __future__ import annotations

import heapq
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

from mmms_deploy import Bundle
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def queueing() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import queueing

        yield queueing


def simulated(host, count: int, clicks: int = 60_000, seed: int = 0) -> tuple[float, float, float]:
    """One server, calls in their order: clicks a second, and the mean and the p95 of a click."""
    rng = random.Random(seed)

    def think() -> float:
        return rng.lognormvariate(math.log(host.think) - 0.125, 0.5)

    # An annotator: when it asks next, and whether its next call is an image.
    waiting = [(think(), number, False) for number in range(count)]
    heapq.heapify(waiting)
    free, times = 0.0, []
    while len(times) < clicks:
        now, number, image = heapq.heappop(waiting)
        free = max(free, now) + (host.image if image else host.click)
        if image:
            # Its click follows at once, as in the benchmark.
            heapq.heappush(waiting, (free, number, False))
            continue
        times.append(free - now)
        after = free + think()
        heapq.heappush(waiting, (after, number, rng.random() < 1.0 / host.clicks))
    times = times[clicks // 10 :]
    ordered = sorted(times)
    return clicks / free, sum(times) / len(times), ordered[int(0.95 * len(ordered))]


@pytest.mark.parametrize("count", [1, 4, 12, 24, 60])
def test_the_model_is_near_a_simulation(queueing, count: int) -> None:
    host = queueing.Host(click=0.03, image=0.3, clicks=10, think=2.0)
    rate, mean, p95 = simulated(host, count)
    said = queueing.predicted(host, count)
    assert said.rate == pytest.approx(rate, rel=0.05)
    assert said.mean == pytest.approx(mean, rel=0.15, abs=0.01)
    assert said.p95 == pytest.approx(p95, rel=0.4, abs=0.05)


def test_the_limits_of_the_model(queueing) -> None:
    host = queueing.Host(click=0.05, image=0.5, clicks=10, think=2.0)
    assert host.demand == pytest.approx(0.1)
    one, crowd = queueing.predicted(host, 1), queueing.predicted(host, 1000)
    assert (one.mean, one.p95) == (0.05, 0.05)
    assert one.rate == pytest.approx(1 / 2.1)
    assert crowd.rate == pytest.approx(1 / host.demand, rel=0.01), "no host answers more than it can"
    rates = [queueing.predicted(host, count) for count in range(1, 60)]
    assert all(a.rate < b.rate and a.p95 <= b.p95 and a.utilisation < b.utilisation < 1 for a, b in pairwise(rates))
    carried = queueing.annotators(host, 0.5)
    assert queueing.predicted(host, carried).p95 <= 0.5 < queueing.predicted(host, carried + 1).p95
    assert queueing.annotators(host, 0.01) == 0


def test_the_script_writes_its_page(paint: Bundle, tmp_path: Path) -> None:
    line = [sys.executable, str(ROOT / "benchmarks" / "load.py"), "--bundles", str(paint.path), "--sessions", "1", "3"]
    line += ["--think", "0.01", "--clicks", "3", "--policy", "2", "--threads", "1", "--engine", "onnxruntime"]
    line, env = [*line, "--out", str(tmp_path)], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "load.md").read_text()
    assert "| 3 |" in page
    assert "9 of 9" in page
    content = json.loads((tmp_path / "load.json").read_bytes())
    assert [point["annotators"] for point in content["results"][0]["points"]] == [1, 3]
    assert [policy["at_once"] for policy in content["results"][0]["policies"]] == [1, 2, 4]
