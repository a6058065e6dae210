"""What a caller requests is checked by type and range, in the words of both doors."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from mmms_deploy import open_engine
from mmms_deploy.bundle import Bundle
from mmms_deploy.engines import request
from mmms_deploy.engines.request import MOST_THREADS, EngineRequest, most_threads
from mmms_deploy.errors import Door, EngineError


@pytest.mark.parametrize(
    "wrong",
    [
        {"device": 0},
        {"device": None},
        {"device": b"cpu"},
        {"engine": 3},
        {"engine": ["openvino"]},
        {"precision": 16},
        {"threads": "2"},
        {"threads": 2.0},
        {"threads": True},
        {"threads": 0},
        {"threads": -1},
        {"threads": 4096},
        {"threads": 10**400},
        {"strict": "yes"},
        {"cuda_options": {"ordinal": 1}},
    ],
    ids=str,
)
def test_wrong_types_and_ranges(wrong: dict[str, Any]) -> None:
    with pytest.raises(EngineError) as caught:
        EngineRequest(**wrong)
    name = next(iter(wrong))
    assert name in str(caught.value.given).replace("number of threads", "threads")
    for door in Door:
        assert len(caught.value.message(door)) < 400


def test_numbers_of_numpy_are_numbers() -> None:
    asked = EngineRequest(threads=np.int64(2), strict=np.bool_(True))  # type: ignore[arg-type]
    assert (type(asked.threads), asked.threads, asked.strict) == (int, 2, True)


def test_the_most_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert most_threads() == max(MOST_THREADS, os.cpu_count() or 1)
    monkeypatch.setattr(request.os, "cpu_count", lambda: 256)
    assert EngineRequest(threads=256).threads == 256
    with pytest.raises(EngineError, match="257"):
        EngineRequest(threads=257)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ({"engine": "openvion"}, "openvino"),
        ({"engine": "ort"}, "onnxruntime"),
        ({"device": "gpu"}, "cuda"),
        ({"device": "CPU "}, "cpu"),
        ({"precision": "float16"}, "fp16"),
        ({"precision": "bf61"}, "bf16"),
    ],
    ids=str,
)
def test_misspelt_names(paint: Bundle, wrong: dict[str, Any], meant: str) -> None:
    with pytest.raises(EngineError, match=f"did you mean '{meant}'"):
        open_engine(paint, **wrong)
