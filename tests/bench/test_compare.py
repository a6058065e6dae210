from __future__ import annotations

import msgspec
import pytest

from mmms_deploy.bench.compare import Verdict, compare
from mmms_deploy.bench.errors import BenchError, IncomparableError
from tests.support.bench_reports import MACHINE, metrics, report

replace = msgspec.structs.replace


def verdicts(comparison) -> dict[str, Verdict]:
    return {row.metric.key: row.verdict for row in comparison.rows}


def test_the_same_run() -> None:
    comparison = compare(report(), report())
    assert set(verdicts(comparison).values()) == {Verdict.SAME, Verdict.UNKNOWN}
    assert comparison.differences == comparison.changes == comparison.regressions == ()
    comparison.raise_for_differences()
    comparison.raise_for_regressions()
    assert all(row.ratio == 1 for row in comparison.rows if row.verdict is Verdict.SAME)


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({"click_total": 12.6}, Verdict.SAME),
        ({"click_total": 12.7}, Verdict.REGRESSION),
        ({"click_total": 5.0}, Verdict.BETTER),
        ({"throughput_2": 70.0}, Verdict.SAME),
        ({"throughput_2": 60.0}, Verdict.REGRESSION),
        ({"throughput_2": 160.0}, Verdict.BETTER),
        ({"memory_clicks": 600.0}, Verdict.REGRESSION),
        ({"start_load": 300.0}, Verdict.WORSE),
        ({"work_fraction_click": 0.1}, Verdict.WORSE),
        ({"work_parameters": 500.0}, Verdict.SAME),
    ],
)
def test_verdicts_at_a_threshold_of_15_percent(changed, verdict) -> None:
    comparison = compare(report(metrics=metrics(**changed)), report())
    (key,) = changed
    assert verdicts(comparison)[next(m.key for m in metrics() if m.key.replace(".", "_") == key)] is verdict
    assert bool(comparison.regressions) == (verdict is Verdict.REGRESSION)


def test_regressions_name_what_and_how_much() -> None:
    comparison = compare(report(metrics=metrics(click_total=22.0)), report(), threshold=1.5)
    with pytest.raises(BenchError, match=r"click \(2\.00 x\)") as caught:
        comparison.raise_for_regressions()
    assert "1.5" in str(caught.value.expected)
    compare(report(metrics=metrics(click_total=22.0)), report(), threshold=2.1).raise_for_regressions()


def test_metrics_that_only_one_run_has() -> None:
    without = tuple(m for m in metrics() if m.key != "sweep.2")
    assert verdicts(compare(report(metrics=without), report()))["sweep.2"] is Verdict.UNKNOWN
    assert verdicts(compare(report(), report(metrics=without)))["sweep.2"] is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"machine": replace(MACHINE, cpu="Another CPU")}, "processor"),
        ({"machine": replace(MACHINE, cores=8)}, "cores"),
        ({"bundle": replace(report().bundle, network="x" * 64)}, "network"),
        ({"engine": replace(report().engine, threads=1)}, "threads"),
        ({"engine": replace(report().engine, device="cuda")}, "device"),
        ({"workload": replace(report().workload, clicks=4)}, "clicks"),
        ({"workload": replace(report().workload, image_size=(10, 10))}, "image size"),
    ],
)
def test_other_things_are_not_compared(fields, named) -> None:
    comparison = compare(report(**fields), report())
    assert len(comparison.differences) == 1
    with pytest.raises(IncomparableError, match=named):
        comparison.raise_for_differences()


def test_what_one_compares_for_is_a_change() -> None:
    other = replace(report().engine, name="openvino", precision="bf16")
    newer = replace(MACHINE, packages={"numpy": "2.1", "openvino": "2026.4"}, others=1.5)
    bundle = replace(report().bundle, digest="e" * 64, name="renamed")
    comparison = compare(report(engine=other, machine=newer, bundle=bundle), report())
    assert comparison.differences == ()
    text = "\n".join(comparison.changes)
    for expected in ("onnxruntime then, openvino now", "fp32 then, bf16 now", "2.0 then, 2.1 now", "none then, 2026.4"):
        assert expected in text


def test_a_threshold_below_one() -> None:
    with pytest.raises(BenchError, match="threshold"):
        compare(report(), report(), threshold=0.9)
