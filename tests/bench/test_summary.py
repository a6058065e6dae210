from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmms_deploy.bench.report import percentile, summarise


def test_known_numbers() -> None:
    summary = summarise([5.0, 1.0, 4.0, 2.0, 3.0])
    assert (summary.count, summary.mean, summary.p50, summary.low, summary.high) == (5, 3.0, 3.0, 1.0, 5.0)
    assert summary.p95 == pytest.approx(4.8)
    assert summary.spread == pytest.approx(1.4826)


def test_an_outlier_moves_the_mean_alone() -> None:
    calm, wild = summarise([10.0] * 9 + [11.0]), summarise([10.0] * 9 + [1000.0])
    assert wild.p50 == calm.p50 == 10.0
    assert wild.spread == calm.spread == 0.0
    assert wild.mean > 10 * calm.mean > 100


def test_one_sample() -> None:
    summary = summarise([7.0])
    assert summary.p50 == summary.p99 == summary.mean == 7.0
    assert summary.spread == 0.0


@pytest.mark.parametrize("samples", [[], [1.0, float("nan")], [float("inf")]])
def test_what_is_no_measurement(samples) -> None:
    with pytest.raises(ValueError, match="finite"):
        summarise(samples)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0, 100))
@settings(deadline=None)
def test_percentiles_are_numpys(samples, percent) -> None:
    assert percentile(sorted(samples), percent) == pytest.approx(np.percentile(samples, percent), abs=1e-6)
