from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mmms_deploy.reporting.html import document
from mmms_deploy.reporting.svg import Bar, bars, standalone
from mmms_deploy.reporting.visible import cell, escape, visible

CONTROLS = "".join(map(chr, (*range(32), *range(0x7F, 0xA0), 0x202E, 0x2066, 0x2028, 0xFFFE, 0xD800, 0xDCFF)))


def test_control_characters_are_written_out() -> None:
    assert visible("a\x00b\x1b[31mc\x9b\u202ed\udcff") == r"a\x00b\x1b[31mc\x9b\u202ed\udcff"
    assert visible("two\nlines\tand a tab\r") == "two\nlines\tand a tab\\x0d"
    assert visible("Größe 漢字 🙂 e\u0301") == "Größe 漢字 🙂 e\u0301"
    shown = visible(CONTROLS, kept="")
    assert shown.isprintable()
    shown.encode()


def test_pages_and_plots_are_well_formed_whatever_a_name_holds() -> None:
    name = f"<b>&{CONTROLS}"
    page = document(name, [f"<p>{escape(name)}</p>", bars([Bar(name, 1.0, name)], name)])
    page.encode()
    body = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))
    assert "\\x00" in str(body.find(".//title").text)
    ElementTree.fromstring(standalone(bars([Bar(name, 1.0, name)], name)))


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
def test_text_that_begins_like_a_formula_is_text(start: str) -> None:
    assert cell(f"{start}cmd|' /C calc'!A0").startswith("'")
    assert cell(f"plain{start}text").startswith("plain")


@pytest.mark.parametrize("value", [-1, 0, 3, -0.25, 1e-9, True, None, math.nan, "-1", "+2.5", "-1e-05", "12", "a-1"])
def test_numbers_stay_numbers(value: object) -> None:
    assert cell(value) is value or cell(value) == value


def test_a_cell_is_one_line() -> None:
    stream = io.StringIO()
    csv.writer(stream).writerow([cell('a\r\n"b",c'), cell("=1+1")])
    assert stream.getvalue() == '"a\\x0d\\x0a""b"",c",\'=1+1\r\n'


def test_only_one_function_writes_csv() -> None:
    package = Path(__file__).parents[2] / "mmms_deploy"
    writers = [
        file.name
        for file in package.rglob("*.py")
        if "csv.DictWriter(" in file.read_text() or "csv.writer(" in file.read_text()
    ]
    assert writers == ["csv_parquet.py"]
