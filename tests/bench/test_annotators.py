"""Many annotators on one engine, as ``mmms-bench --sessions`` measures them; no test is about the times."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from mmms_deploy import Bundle
from mmms_deploy.bench import annotators, arithmetic
from mmms_deploy.bench.annotators import Load, annotator_metrics, see
from mmms_deploy.bench.peak import measure_peak
from mmms_deploy.bench.report import read_report
from mmms_deploy.bench.workload import make_pictures
from mmms_deploy.commands.bench import main
from mmms_deploy.engines.select import open_engine
from mmms_deploy.errors import ResidentBudgetError
from mmms_deploy.progress import Progress
from mmms_deploy.session.result import ClickResult
from tests.support.standin_engine import tidy

SIZE = (40, 60)
QUICK = Load(think=0.002, clicks=4, at_once=2)


def test_every_click_is_seen_and_equals_one_alone(paint: Bundle) -> None:
    engine = open_engine(paint, threads=1)
    steps: list[Progress] = []
    seen = see(engine, make_pictures(paint.manifest, 3, 4, SIZE), 5, QUICK, steps.append)
    engine.close()
    assert seen.thinking is not None
    assert (len(seen.busy.clicks), len(seen.busy.images)) == (20, 0)
    assert (len(seen.thinking.clicks), len(seen.thinking.images)) == (20, 5)
    assert seen.equal == [True] * 20
    assert (steps[0].task, steps[0].done, steps[-1].done, steps[-1].total) == ("5 annotators", 0, 60, 60)
    assert seen.busy.rate > 0
    waited = seen.thinking.thought + 1e-3 * sum(seen.thinking.clicks + seen.thinking.images)
    assert seen.thinking.rate == pytest.approx(5 * 20 / waited)


def test_another_answer_is_seen(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0

    def bits(result: ClickResult) -> tuple[int, int]:
        nonlocal count
        count += 1
        return (0, count) if count == 7 else (0, 0)

    monkeypatch.setattr(annotators, "_bits", bits)
    engine = open_engine(paint, threads=1)
    seen = see(engine, make_pictures(paint.manifest, 1, 3, SIZE), 2, replace(QUICK, think=0.0))
    engine.close()
    assert seen.thinking is None
    assert sorted(seen.equal) == [False] + [True] * 5


def test_the_time_to_think_has_its_mean_and_the_same_seed_the_same_times() -> None:
    load = Load(think=2.0)
    times = [load.drawn(random.Random(f"0 {number}")) for number in range(4000)]
    assert fmean(times) == pytest.approx(2.0, rel=0.05)
    assert np.std(np.log(times)) == pytest.approx(annotators.SPREAD, rel=0.05)
    assert load.drawn(random.Random("0 7")) == times[7]
    assert Load(think=0.0).drawn(random.Random(0)) == 0.0


def test_a_gpu_without_room_says_so_and_counts_its_own_memory(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with tidy(paint) as engine:
        pictures = make_pictures(paint.manifest, 2, 3, SIZE)
        opened, most = type(engine).open, 3

        def limited(self: object) -> object:
            if engine.memory().resident >= most:
                raise ResidentBudgetError("4 resident images")
            return opened(engine)

        monkeypatch.setattr(type(engine), "open", limited)
        metrics = annotator_metrics(engine, pictures, (2, 8), replace(QUICK, clicks=3))
    known = {metric.key: metric for metric in metrics}
    assert known["rate.8"].why == "4 resident images"
    assert known["alike.2"].samples == (1.0,)
    assert known["each.2"].title == "on the GPU a session, of 2"
    assert known["each.2"].samples[0] > 0


def test_the_command_measures_and_shows_them(tmp_path: Path, paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "measure_peak", lambda *given, **options: measure_peak(*given, size=16))
    new, page = tmp_path / "new.json", tmp_path / "new.html"
    line = [str(paint.path), "--clicks", "2", "--images", "2", "--image-size", "20x30", "--threads", "1", "--no-eager"]
    line += ["--sessions", "3, 1", "--think", "0.01", "--at-once", "1", "--json", str(new), "--html", str(page)]
    result = CliRunner(env={"COLUMNS": "140"}).invoke(main, line)
    assert result.exit_code == 0, result.output
    shown = " ".join(result.stdout.split())
    for expected in (
        "Many annotators, a click as one of them sees it, waiting included, ms",
        "3 annotators, 0.01 s to think",
        "1 annotator, no time to think",
        "an image among them, 3 annotators",
        "3 annotators, share of 6 answers 1.000",
        "at most 1 call at once, up to 2 clicks each",
    ):
        assert expected in shown
    report = read_report(new)
    counts = {metric.key: len(metric.samples) for metric in report.metrics}
    assert counts["wait.busy.3"] == counts["wait.think_0.01s.3"] == 6
    assert counts["wait.image.think_0.01s.3"] == 3
    assert counts["rate.busy.1"] == counts["alike.3"] == 1
    (each,) = (metric for metric in report.metrics if metric.key == "each.1")
    # Where this process freed memory meanwhile, nothing can be said, and the report says so.
    assert len(each.samples) == 1 or "memory was freed meanwhile" in each.why
    assert json.loads(new.read_bytes())["schema"] == 1
    ElementTree.fromstring(page.read_text().partition("\n")[2])
    assert "Clicks a second of many annotators on one engine" in page.read_text()


@pytest.mark.parametrize("given", ["0", "1,x", "", "1;2", "2000", "-3", "1,,2"])
def test_no_list_of_sessions_is_refused(given: str) -> None:
    result = CliRunner().invoke(main, ["demo-small", "--sessions", given])
    assert result.exit_code == 2
    assert "such as 1,8,32" in " ".join(result.output.replace("│", " ").split())
