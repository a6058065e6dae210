"""Importing TensorRT, and collecting its messages."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path

import pytest

from mmms_deploy.engines.tensorrt import api as tensorrt_api
from mmms_deploy.engines.tensorrt.api import describe, listening, load_tensorrt, logger
from mmms_deploy.errors import EngineUnavailableError
from tests.standins.tensorrt import Severity, TensorRtStandIn
from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither library is installed, and no logger exists yet."""
    monkeypatch.setattr(tensorrt_api, "_LOGGERS", {})
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)


def packages(folder: Path, monkeypatch: pytest.MonkeyPatch, **modules: str) -> None:
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(folder)


def test_the_first_that_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineUnavailableError, match="TensorRT is not installed") as caught:
        load_tensorrt()
    assert 'pip install "mmms-deploy[cuda]"' in str(caught.value.fix)
    packages(tmp_path, monkeypatch, tensorrt_rtx="__version__ = '1.7.1.116'")
    assert load_tensorrt().__name__ == "tensorrt_rtx"
    packages(tmp_path, monkeypatch, tensorrt="__version__ = '10.12.0.36'")
    assert load_tensorrt().__name__ == "tensorrt"
    assert load_tensorrt("tensorrt_rtx").__name__ == "tensorrt_rtx"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import ctypes; ctypes.CDLL('libnvinfer-none.so.11')", "installed but cannot be imported: libnvinfer-none"),
        ("from tensorrt_bindings_none import *", "installed but cannot be imported: No module named"),
        ("raise RuntimeError('TensorRT currently only builds wheels for x86_64')", "only builds wheels"),
        ("__version__ = '10.3.0'", "TensorRT 10.3.0 is installed"),
        ("", "TensorRT unknown is installed"),
    ],
)
def test_what_is_installed_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    packages(tmp_path, monkeypatch, tensorrt=code)
    with pytest.raises(EngineUnavailableError, match=message):
        load_tensorrt()


def test_a_library_of_another_name() -> None:
    with pytest.raises(EngineUnavailableError, match="'tensorrt_lean' was requested"):
        load_tensorrt("tensorrt_lean")


def test_which_library_it_is() -> None:
    library = TensorRtStandIn("10.16.1.11")
    assert str(describe(library)) == "TensorRT 10.16.1.11"
    assert not describe(library).ahead_of_time
    library.ComputeCapability = object()
    assert describe(library).title == "TensorRT-RTX"
    assert describe(library).ahead_of_time


def test_one_logger_for_a_process_and_many_listeners() -> None:
    library = TensorRtStandIn()
    ear = logger(library)
    assert logger(library) is ear
    with listening(library) as outer:
        ear.log(Severity.ERROR, "first (In next at /_src/a.cpp:92)")
        with listening(library) as inner:
            thread = threading.Thread(target=lambda: ear.log(Severity.INTERNAL_ERROR, "second\n  line"))
            thread.start()
            thread.join()
            ear.log(Severity.WARNING, "careful")
            ear.log(Severity.INFO, "Total Activation Memory: 5 bytes")
            ear.log(Severity.VERBOSE, "nothing of interest")
    ear.log(Severity.ERROR, "nobody listens")
    assert outer.text() == "first; second line"
    assert inner.text() == "second line"
    assert inner.warnings == ["careful"]
    assert inner.details == ["Total Activation Memory: 5 bytes"]


def test_places_in_the_source_are_left_out() -> None:
    """The words of TensorRT 10.15 without a driver."""
    library = TensorRtStandIn()
    with listening(library) as said:
        logger(library).log(
            Severity.ERROR,
            "createInferBuilder: Error Code 6: API Usage Error (CUDA initialization failure with error: 35. Check"
            " In operator() at /_src/optimizer/api/builder.cpp:1399)",
        )
        logger(library).log(
            Severity.ERROR,
            "[checkMacros.cpp::catchCudaError::229] Error Code 1: Cuda Runtime (In catchCudaError at"
            " /_src/common/dispatch/checkMacros.cpp:229)",
        )
    assert said.text() == (
        "createInferBuilder: Error Code 6: API Usage Error (CUDA initialization failure with error: 35. Check;"
        " Error Code 1: Cuda Runtime"
    )


def test_many_errors_are_cut_short() -> None:
    library = TensorRtStandIn()
    with listening(library) as said:
        for i in range(1000):
            logger(library).log(Severity.ERROR, f"error {i}")
    assert said.text() == "error 0; error 1; error 2 (and 397 more)"


def test_the_messages_of_the_document_are_those_of_the_code() -> None:
    root = ROOT
    rows = re.findall(r"^\| `([^`]+)` \|", (root / "docs" / "gpu-host.md").read_text(), re.MULTILINE)
    code = "".join(file.read_text() for file in (root / "mmms_deploy").rglob("*.py"))
    messages = [row for row in rows if not row.startswith("tensorrt-")]
    assert len(messages) > 10
    for message in messages:
        for part in re.split(r"\b(?:12\.4|fp16|TensorRT)\b", message):
            assert part.strip() in code, message
