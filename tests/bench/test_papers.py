from __future__ import annotations

import msgspec
import pytest

from mmms_deploy.bench.page import render_page
from mmms_deploy.bench.papers import FIGURES, papers_heading
from tests.support.bench_reports import metrics, report


@pytest.mark.parametrize("parameters", [None, 124.8, 125.2, 143.6, 174.8])
def test_the_papers_network(parameters) -> None:
    assert papers_heading(parameters) == "The papers' figures, on other hardware than this"


@pytest.mark.parametrize("parameters", [4.92, 709.9])
def test_another_network_is_named_as_such(parameters) -> None:
    assert "of other networks: MMMS has 125 M parameters" in papers_heading(parameters)


def test_the_page_says_so() -> None:
    assert "of other networks" in render_page(report(metrics=metrics(work_parameters=4.92)))
    assert "of other networks" not in render_page(report(metrics=metrics(work_parameters=125.0)))


def test_sizes_of_the_measured_network_stand_beside_the_papers() -> None:
    known = report(metrics=metrics(work_parameters=121.5))
    bundle = msgspec.structs.replace(known.bundle, published="iCMFormer, ViT-B")
    page = render_page(msgspec.structs.replace(known, bundle=bundle))
    for text in ("What papers say of iCMFormer, ViT-B", "<td>125</td>", "<td>298</td>", "not measured"):
        assert text in page, text
    assert "What papers say" not in render_page(known)


def test_latencies_come_from_the_one_table() -> None:
    ours = [figure for figure in FIGURES if figure.network.startswith("MMMS")]
    assert [(figure.hardware, figure.milliseconds) for figure in ours] == [
        ("CPU, Xeon E5-2697 v4", 206),
        ("GPU, V100", 12),
        ("GPU, V100", 42),
    ]
    assert ours[2].metric == "click.amortised"
    assert FIGURES[:3] == tuple(ours)
    whole = {figure.network: figure.milliseconds for figure in FIGURES if figure.short == "whole network"}
    assert whole["SimpleClick, ViT-H"] == 7760
