from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from mmms_deploy.bench.compare import compare
from mmms_deploy.bench.page import render_page
from mmms_deploy.reporting.svg import Bar, bars, curve, stack, standalone, strip, ticks
from tests.support.bench_reports import metrics, report


def parsed(page: str) -> ElementTree.Element:
    start = "<!DOCTYPE html>\n"
    assert page.startswith(start)
    return ElementTree.fromstring(page.removeprefix(start))


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(report(), compare(report(metrics=metrics(click_total=30.0)), report()))


def test_well_formed_with_every_metric(page) -> None:
    text = " ".join(parsed(page).itertext())
    for metric in metrics():
        assert metric.title.strip() in text
    for expected in ("net<work>", "a note & a half", "torch <is> not installed", "Xeon E5-2697 v4", "regression"):
        assert expected in text


def test_self_contained(page) -> None:
    tree = parsed(page)
    assert not {"script", "link", "img", "iframe", "object", "image", "use"} & {e.tag for e in tree.iter()}
    assert not [e for e in tree.iter() for name in e.attrib if name in ("src", "href", "srcset") or name[:2] == "on"]
    assert not re.search(r"https?:|url\(|@import|//[a-z]", page)


def test_light_and_dark(page) -> None:
    assert "prefers-color-scheme: dark" in page
    used, defined = set(re.findall(r"var\((--[a-z]+)\)", page)), set(re.findall(r"(--[a-z]+):", page))
    assert used <= defined


def test_plots_are_there(page) -> None:
    titles = [e.text for e in parsed(page).iter("title")][1:]
    assert len(titles) == 6
    dots = page.count('class="dot"')
    assert dots == 3  # one for every click


def test_a_report_with_nothing_measured() -> None:
    bare = tuple(type(m)(key=m.key, title=m.title, unit=m.unit, why="no clock") for m in metrics())
    text = " ".join(parsed(render_page(report(metrics=bare))).itertext())
    assert text.count("not measured: no clock") == len(bare)


@pytest.mark.parametrize(
    "svg",
    [
        bars([Bar("a <b>", 3.0, "3 & more"), Bar("zero", 0.0, "0")], "bars"),
        bars([Bar("a", 0.02, "x"), Bar("b", 7000.0, "y")], "bars", log=True),
        bars([Bar("a", 5.0, "x")], "one", log=True),
        stack([("a", 1.0, "1"), ("b", 0.0, "0")], "stack"),
        stack([("a", 0.0, "0")], "empty"),
        strip([1.0], [("p50", 1.0), ("p95", 1.0)], "ms", "strip"),
        strip([0.0, 0.0], [("p50", 0.0)], "ms", "zeros"),
        curve([(1.0, 5.0)], ["5"], "threads", "ms", "point"),
        curve([(1.0, 5.0), (2.0, 3.0)], ["5", "3"], "threads", "ms", "line"),
    ],
)
def test_plots_are_well_formed_and_inside_their_frame(svg) -> None:
    tree = ElementTree.fromstring(standalone(svg))
    width, height = float(tree.attrib["width"]), float(tree.attrib["height"])
    assert "var(" not in standalone(svg)
    for element in tree.iter():
        if "width" in element.attrib and "%" not in element.attrib["width"]:
            assert float(element.attrib.get("x", 0)) + float(element.attrib["width"]) <= width + 1
        for name, limit in (("cx", width), ("x1", width), ("x2", width), ("cy", height), ("y1", height)):
            assert 0 <= float(element.attrib.get(name, 0)) <= limit


@pytest.mark.parametrize("high", [0.003, 0.9, 1.0, 7.0, 12.0, 99.0, 12345.0])
def test_ticks_are_round_and_cover_the_axis(high) -> None:
    found = ticks(high)
    assert found[0] == 0
    assert 3 <= len(found) <= 12
    assert found[-1] <= high < found[-1] + 1.001 * (found[1] - found[0])
