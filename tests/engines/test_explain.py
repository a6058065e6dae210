"""What is said about a choice: the same facts in the words of either door."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from mmms_deploy import Bundle, CudaOptions, Session, open_engine
from mmms_deploy.engines import registry
from mmms_deploy.engines.cuda import devices
from mmms_deploy.engines.cuda.engine import CudaEngine
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import Door, EngineError, EngineUnavailableError
from tests.standins.cuda import CudaStandIn
from tests.support import standin_engine

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"device": "gpu"}, 'pass device="cuda" or device="auto"', "pass --device cuda or --device auto"),
    ({"device": "tpu0"}, 'pass device="auto"', "pass --device auto"),
    ({"engine": "torch"}, "pass engine=None to", "leave --engine out to"),
    (
        {"engine": "tensort"},
        'pass engine="tensorrt", or engine=None to',
        "pass --engine tensorrt, or leave --engine out to",
    ),
    ({"precision": "half"}, 'pass precision="fp16", or precision=None', "pass --precision fp16, or leave it out"),
    ({"precision": "double"}, "pass precision=None", "leave --precision out"),
    ({"precision": "fp16", "strict": True}, "pass precision='fp32', or", "pass --precision fp32, or"),
    ({"threads": 0}, "pass threads=None", "leave --threads out"),
    (
        {"threads": 64, "engine": "openvino", "strict": True},
        "request what is possible, or pass strict=False",
        "request what is possible, or leave --strict out",
    ),
]


@pytest.mark.parametrize(("request_", "python", "command"), REFUSED, ids=lambda value: str(value)[:40])
def test_both_doors(paint: Bundle, request_: dict[str, Any], python: str, command: str) -> None:
    with pytest.raises(EngineError) as caught:
        open_engine(paint, **request_)
    assert f"to fix: {python}" in str(caught.value)
    assert f"to fix: {command}" in caught.value.message(Door.COMMAND_LINE)
    assert caught.value.message(Door.PYTHON) == str(caught.value)


def test_an_error_without_words_of_its_own_for_the_command_line() -> None:
    error = EngineUnavailableError("no engine", expected="one", fix="pip install one")
    assert error.message(Door.COMMAND_LINE) == str(error) == "no engine\n  expected: one\n  to fix: pip install one"


def test_one_request_names_one_gpu() -> None:
    with pytest.raises(EngineError, match="name different GPUs"):
        EngineRequest(device="cuda:1", cuda_options=CudaOptions(ordinal=2))
    for request in (
        EngineRequest(device="cuda:2", strict=True),
        EngineRequest(device="cuda:2", strict=True, cuda_options=CudaOptions(ordinal=2)),
        EngineRequest(device="cuda", strict=True, cuda_options=CudaOptions(ordinal=2)),
    ):
        assert request.ordinal == 2
        assert request.on_gpu() == CudaOptions(ordinal=2, strict=True)


def test_options_reach_the_engine(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "BACKENDS", standin_engine.GPU_BACKENDS)
    cuda = CudaStandIn()
    monkeypatch.setattr(devices, "import_cuda", lambda: cuda)
    options = CudaOptions(history_block=4)
    with closing(open_engine(paint, cuda_options=options)) as engine:
        assert isinstance(engine, CudaEngine)
        assert engine.options == options
    with Session(paint, cuda_options=options) as session:
        assert session._engine.options == options
    shared = open_engine(paint)
    with pytest.raises(EngineError, match="cuda_options"):
        Session(paint, engine=shared, cuda_options=options)
    shared.close()
