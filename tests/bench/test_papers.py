from __future__ import annotations

import pytest

from mmms_deploy.bench.page import render_page
from mmms_deploy.bench.papers import papers_heading
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
