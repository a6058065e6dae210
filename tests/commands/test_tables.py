"""Tables on narrow terminals: numbers are never cut."""

from __future__ import annotations

import io
import re

import msgspec
import pytest
from rich import box
from rich.console import Console, Group
from rich.table import Table

from mmms_deploy.bench.text import render
from mmms_deploy.commands import tables
from mmms_deploy.commands.tables import print_tables
from tests.support.bench_reports import report

NUMBERS = ("99.96 %", "1,234,567", "0.99991")


def table() -> Table:
    made = Table(title="Golden replay of bundles/demo")
    made.add_column("engine", no_wrap=True)
    for heading in ("pixels compared", "objects of the data set", "smallest IoU"):
        made.add_column(heading, justify="right")
    made.add_column("why")
    made.add_row("onnxruntime", *NUMBERS, "[green]passed[/] here, with masks that tell something")
    made.add_row("openvino", "", "", "", "")
    return made


def printed(monkeypatch: pytest.MonkeyPatch, shown: object, width: int) -> str:
    out = io.StringIO()
    monkeypatch.setattr(tables, "console", Console(file=out, width=width))
    print_tables(shown)  # type: ignore[arg-type]
    text = out.getvalue()
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    return text


@pytest.mark.parametrize("width", [200, 100, 80, 60, 40, 30])
def test_no_number_is_cut_and_no_word(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    text = printed(monkeypatch, table(), width)
    for number in (*NUMBERS, "onnxruntime", "compared", "smallest", "something"):
        assert number in text


def test_a_table_that_fits_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    Console(file=out, width=200).print(table())
    assert printed(monkeypatch, table(), 200) == out.getvalue()


def test_rows_become_blocks_without_what_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line.rstrip() for line in printed(monkeypatch, table(), 40).splitlines()]
    assert lines[:3] == ["Golden replay of bundles/demo", "onnxruntime", "  pixels compared       99.96 %"]
    assert lines[-1] == "openvino"


def test_names_and_values_stay_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = Table(title="This machine", show_header=False)
    facts.add_column()
    facts.add_column()
    facts.add_row("cache", "/home/somebody/.cache/mmms-deploy/of/a/long/name")
    facts.add_row("memory", "23.5 GiB")
    text = printed(monkeypatch, Group(facts, "and a text"), 40)
    assert re.search(r"^cache +/home/somebody", text, re.MULTILINE)
    assert re.search(r"^memory +23.5 GiB", text, re.MULTILINE)
    assert "and a text" in text


def test_short_columns_stay_on_one_line_beside_long_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Table()
    for heading in ("engine", "", "why not"):
        made.add_column(heading)
    made.add_row("onnxruntime-cuda", "does not", "there is no NVIDIA driver, and cuda-python is not installed " * 2)
    made.add_row("a name of words", "works", "")
    text = printed(monkeypatch, made, 60)
    assert "does not" in text
    assert "a name of words" in text


def test_what_is_missing_for_one_reason_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    full = report()
    metrics = tuple(
        msgspec.structs.replace(metric, samples=(), why="no clock") if metric.key.startswith("click.") else metric
        for metric in full.metrics
    )
    titles = [metric.title.strip() for metric in metrics if metric.key.startswith("click.")]
    assert len(titles) > 1
    text = printed(monkeypatch, render(msgspec.structs.replace(full, metrics=metrics)), 200)
    assert text.count("no clock") == 1
    assert f"not measured: no clock\n  {'; '.join(titles)}" in text


@pytest.mark.parametrize("width", [40, 80])
def test_results_of_a_benchmark(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    printed(monkeypatch, render(report()), width)


def test_short_cells_stay_on_one_line_before_long_headings(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Table("stage", "runs", "file", box=box.SIMPLE)
    for heading in ("GFLOP", "ONNX nodes", "MB", "features out, MB"):
        made.add_column(heading, justify="right")
    made.add_row("image", "once an image", "image.fp32.onnx", "7.3", "263", "12.8", "0.7")
    assert "once an image" in printed(monkeypatch, made, 80)
