from __future__ import annotations

import json
import os

import msgspec
import pytest

from mmms_deploy.bench.errors import ReportError
from mmms_deploy.bench.report import Metric, WorkloadFacts, encode, read_report
from mmms_deploy.bench.text import bundle_line, workload_line
from mmms_deploy.errors import OutputWriteError
from mmms_deploy.reporting.files import write_text
from tests.support.bench_reports import metrics, report


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((1, 3, 5), "1 image of 1920 x 1080, 3 clicks on each, after 5 clicks of warm-up"),
        ((2, 1, 1), "2 images of 1920 x 1080, 1 click on each, after 1 click of warm-up"),
    ],
)
def test_one_and_several(counts, said) -> None:
    images, clicks, warm_up = counts
    workload = WorkloadFacts(images=images, clicks=clicks, image_size=(1080, 1920), warm_up=warm_up)
    assert workload_line(workload) == said
    bundle = report().bundle
    assert "1 exact rewrite, " in bundle_line(bundle)
    assert "2 exact rewrites, " in bundle_line(msgspec.structs.replace(bundle, rewrites=("fold_head", "split_skips")))


def test_round_trip_keeps_every_sample(tmp_path) -> None:
    path = tmp_path / "new.json"
    write_text(path, encode(report()))
    assert read_report(path) == report()
    decoded = json.loads(path.read_bytes())
    assert (decoded["schema"], decoded["kind"]) == (1, "mmms-bench")
    samples = {metric["key"]: metric["samples"] for metric in decoded["metrics"]}
    assert samples["click.total"] == [10.0, 12.0, 11.0]
    assert os.listdir(tmp_path) == ["new.json"]  # noqa: PTH208 (nothing half written beside it)


def test_headlines_and_groups() -> None:
    made = report()
    assert made.value("click.total") == 11.0
    assert made.value("eager.click_ratio") is None
    assert made.value("nothing.at.all") is None
    assert [metric.key for metric in made.group("sweep")] == ["sweep.1", "sweep.2"]


def test_a_metric_has_samples_or_a_reason() -> None:
    with pytest.raises(ValueError, match="reason"):
        Metric(key="a.b", title="", unit="ms")
    with pytest.raises(ValueError, match="reason"):
        Metric(key="a.b", title="", unit="ms", samples=(1.0,), why="but measured")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "no results"),
        (b"\xff\xfe", "no results"),
        (b"[" * 100_000, "no results"),
        (b'{"rows": []}', "no results"),
        (b'{"schema": 99, "kind": "mmms-bench"}', "schema 99"),
        (b'{"schema": 1, "kind": "something"}', "something"),
        (b'{"schema": 1, "kind": "mmms-bench"}', "no results"),
    ],
)
def test_what_is_no_report(tmp_path, content, match) -> None:
    path = tmp_path / "old.json"
    path.write_bytes(content)
    with pytest.raises(ReportError, match=match):
        read_report(path)


def test_missing_files_and_folders(tmp_path) -> None:
    with pytest.raises(ReportError, match="there is no such file"):
        read_report(tmp_path / "old.json")
    with pytest.raises(OutputWriteError):
        write_text(tmp_path / "nowhere" / "new.json", b"x")


def test_no_metric_is_measured_twice() -> None:
    keys = [metric.key for metric in metrics()]
    assert len(set(keys)) == len(keys)
