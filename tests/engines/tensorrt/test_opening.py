"""Opening a bundle that TensorRT has to compile first: only a request for TensorRT by name starts a build."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.explain import reason
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.select import candidates, choose, open_engine
from mmms_deploy.engines.tensorrt.build import BuildOptions
from mmms_deploy.engines.tensorrt.plans import plans, stage_of, why_not_ready
from mmms_deploy.engines.verdicts import Verdict, write_verdict
from mmms_deploy.errors import EngineError, EngineUnavailableError, MMMSDeployWarning
from mmms_deploy.progress import Progress
from mmms_deploy.replay.verification import replay_engines
from mmms_deploy.session import Session
from tests.support import gpu_host
from tests.support.annotating import annotated
from tests.support.attention import write_attention
from tests.support.golden_cases import golden
from tests.support.gpu_host import GpuHost
from tests.support.toy import write_toy


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tensorrt"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[GpuHost]:
    host = gpu_host.prepare(monkeypatch)
    yield host
    assert not host.cuda.leaked
    assert not host.trt.contexts


def name(bundle: Bundle, **asked: Any) -> str:
    engine = open_engine(bundle, **asked)
    engine.close()
    return engine.info.name


def compile_ahead(bundle: Bundle, host: GpuHost, **options: Any) -> None:
    """As mmms-build does."""
    asked = BuildOptions(**options)
    plans(bundle, Precision.FP32, options=asked, on_progress=lambda step: None)
    host.trt.calls.clear()


def passed(bundle: Bundle, engine: str, milliseconds: float, precision: Precision = Precision.FP32) -> None:
    """Keep a verdict for this machine."""
    (candidate,) = (c for c in candidates(bundle, EngineRequest(engine=engine)) if c.precision is precision)
    verdict = Verdict(
        engine=engine,
        version=candidate.version,
        precision=precision,
        passed=milliseconds > 0,
        iou=1.0 if milliseconds > 0 else 0.5,
        limit=0.99,
        milliseconds=abs(milliseconds),
        threads=None,
    )
    assert write_verdict(bundle, verdict)


# --- an engine left open ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [{}, {"device": "cuda"}, {"precision": "fp32"}, {"strict": True}])
def test_what_opens_at_once_is_taken(
    host: GpuHost, paint: Bundle, asked: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with Session(paint, **asked) as session:
        annotated(session)
        assert session.engine.name == "onnxruntime-cuda"
        assert session.engine.reason.endswith(
            "; tensorrt in fp32 would first be compiled for minutes: its plans were never compiled here;"
            f" mmms-build {paint.path} compiles it"
        )
    assert (host.trt.calls, host.imports, caplog.text) == ([], 0, ""), "nothing of TensorRT was touched"


@pytest.mark.parametrize("asked", [{}, {"device": "cuda"}, {"precision": "fp32"}, {"strict": True}])
def test_compiled_plans_come_first(host: GpuHost, paint: Bundle, asked: dict[str, Any]) -> None:
    compile_ahead(paint, host)
    order = choose(paint, EngineRequest(**asked)).order
    assert [c.backend.name for c in order[:2]] == ["tensorrt", "onnxruntime-cuda"]
    assert host.trt.calls == [], "to choose, no runtime is made"
    with Session(paint, **asked) as session:
        annotated(session)
        assert session.engine.name == "tensorrt"
        assert "compiled" not in session.engine.reason
    assert host.trt.calls == ["runtime"]
    assert not host.opened


def test_one_stage_that_is_missing_is_as_good_as_none(host: GpuHost, paint: Bundle) -> None:
    plans(paint, Precision.FP32, stages=["click"], on_progress=lambda step: None)
    assert name(paint) == "onnxruntime-cuda"


def test_plans_that_were_searched_for_longer_are_taken(host: GpuHost, paint: Bundle, cache: Path) -> None:
    compile_ahead(paint, host, opt_level=5, workspace=1 << 30)
    assert name(paint) == "tensorrt"
    assert host.trt.builds == 0
    compile_ahead(paint, host)
    assert len(list(cache.glob("*.plan"))) == 4, "mmms-build compiles what its own options say"


def test_plans_that_compute_otherwise_are_not_taken(host: GpuHost, paint: Bundle) -> None:
    compile_ahead(paint, host, tf32=True)
    assert name(paint) == "onnxruntime-cuda"
    assert "tf32 was True, is False" in reason(choose(paint, EngineRequest()))
    compile_ahead(paint, host, opt_level=5)
    compile_ahead(paint, host, opt_level=5, tf32=True)
    assert name(paint) == "tensorrt", "whichever is newer"


def test_plans_that_turn_out_damaged_are_not_compiled_again_behind_ones_back(
    host: GpuHost, paint: Bundle, cache: Path
) -> None:
    compile_ahead(paint, host)
    file = next(cache.glob("*.plan"))
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)
    with pytest.warns(MMMSDeployWarning, match=r"onnxruntime-cuda in fp32 is taken instead of .* is damaged"):
        assert name(paint) == "onnxruntime-cuda"
    with pytest.raises(EngineUnavailableError, match="would have to be compiled") as caught:
        open_engine(paint, strict=True)
    assert caught.value.fix == f"mmms-build {paint.path}"
    assert host.trt.builds == 0
    file.write_bytes(content[:100])
    assert name(paint) == "onnxruntime-cuda", "that it is cut off shows before it is opened"
    assert "was cut off" in reason(choose(paint, EngineRequest()))


@pytest.mark.parametrize("slower", [0.5, 2.5])
def test_a_verdict_for_plans_that_are_gone_surprises_nobody(host: GpuHost, paint: Bundle, slower: float) -> None:
    compile_ahead(paint, host)
    passed(paint, "tensorrt", 0.8)
    passed(paint, "onnxruntime-cuda", slower)
    assert name(paint) == ("tensorrt" if slower > 0.8 else "onnxruntime-cuda"), "verdicts win"
    host.update_driver("590.1")
    with Session(paint) as session:
        assert session.engine.name == "onnxruntime-cuda"
        assert session.engine.reason.startswith("passed the golden replay here: ")
        late = "; tensorrt in fp32, 0.8 ms a click when it passed here, would first be compiled for minutes: driver was"
        assert (f"{late} {gpu_host.DRIVER}, is 590.1; mmms-build" in session.engine.reason) is (slower > 0.8)
    assert host.trt.builds == 0


def test_an_engine_that_was_not_measured_goes_before_minutes_and_before_the_cpu(host: GpuHost, paint: Bundle) -> None:
    passed(paint, "tensorrt", 0.8)
    passed(paint, "onnxruntime", 80)
    assert [c.backend.name for c in choose(paint, EngineRequest()).order[:3]] == [
        "onnxruntime-cuda",
        "tensorrt",
        "onnxruntime",
    ]
    assert reason(choose(paint, EngineRequest())).startswith(
        "the first engine in fp32 that opens at once; it was not measured here yet"
    )


def test_an_engine_that_failed_does_not_go_before_minutes(
    host: GpuHost, paint: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    passed(paint, "onnxruntime-cuda", -1)
    assert name(paint) == "tensorrt"
    assert "which can take minutes" in caplog.text


def test_another_precision_that_is_compiled_goes_before_minutes(host: GpuHost, tmp_path: Path) -> None:
    both = write_toy(tmp_path / "both", precisions=(Precision.FP32, Precision.FP16))
    compile_ahead(both, host)
    passed(both, "tensorrt", 0.5, Precision.FP16)
    order = [str(candidate) for candidate in choose(both, EngineRequest()).order]
    assert order[:3] == ["tensorrt in fp32", "onnxruntime-cuda in fp32", "tensorrt in fp16"]
    order = [str(candidate) for candidate in choose(both, EngineRequest(precision="fp16")).order]
    assert order[:3] == ["onnxruntime-cuda in fp16", "tensorrt in fp16", "onnxruntime in fp16"]
    assert order[3:5] == ["tensorrt in fp32", "onnxruntime-cuda in fp32"], "what was asked for comes first"
    assert len(order) == len(set(order))


def test_without_a_cache_nothing_is_ever_compiled_for_an_engine_left_open(
    host: GpuHost, paint: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", "off")
    assert name(paint) == "onnxruntime-cuda"
    assert reason(choose(paint, EngineRequest())).endswith("plans are not kept (MMMS_DEPLOY_CACHE is off)")
    assert name(paint, engine="tensorrt") == "tensorrt"


def test_a_library_that_cannot_be_imported_is_said_when_there_are_plans(
    host: GpuHost, paint: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_ahead(paint, host)

    def broken(library: str | None = None) -> None:
        raise EngineUnavailableError("TensorRT is installed but cannot be imported")

    for module in ("plans", "engine"):
        monkeypatch.setattr(f"mmms_deploy.engines.tensorrt.{module}.load_tensorrt", broken)
    assert why_not_ready(paint, Precision.FP32) is None
    with pytest.warns(MMMSDeployWarning, match="cannot be imported"):
        assert name(paint) == "onnxruntime-cuda"


# --- compiling, with a warning ----------------------------------------------------------------------------------------


def test_what_is_asked_for_by_name_is_compiled_and_says_so_once(
    host: GpuHost, paint: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    phases: list[Progress] = []
    with Session(paint, engine="tensorrt", on_progress=phases.append) as session:
        annotated(session)
        assert session.engine.name == "tensorrt"
    assert host.trt.builds == 2
    (record,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert record.getMessage() == (
        f"TensorRT 11.4.0.106 compiles stage 'image' of {paint.path} in fp32 for this GPU, which can take minutes:"
        f" it was never compiled here (run mmms-build {paint.path} beforehand to avoid the wait)"
    )
    assert [stage_of(step) for step in phases if step.finished] == ["image", "click"]
    caplog.clear()
    phases.clear()
    assert name(paint, engine="tensorrt", on_progress=phases.append) == "tensorrt"
    assert (host.trt.builds, caplog.text, phases) == (2, "", [])


def test_the_message_is_seen_where_nobody_set_logging_up(
    host: GpuHost, paint: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    name(paint, engine="tensorrt")
    assert capsys.readouterr().err.count("which can take minutes") == 1


@pytest.mark.parametrize("asked", [{}, {"device": "cuda"}])
def test_the_only_engine_on_the_gpu_is_compiled(
    host: GpuHost, paint: Bundle, asked: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    host.without("onnxruntime-cuda")
    phases: list[Progress] = []
    assert name(paint, on_progress=phases.append, **asked) == "tensorrt"
    assert phases
    assert "which can take minutes" in caplog.text


def test_when_the_quick_engine_cannot_be_opened_the_other_is_compiled(host: GpuHost, paint: Bundle) -> None:
    host.broken = EngineUnavailableError("libcublas.so.13 is missing")
    phases: list[Progress] = []
    with pytest.warns(MMMSDeployWarning, match=r"tensorrt in fp32 is taken instead of onnxruntime-cuda .* libcublas"):
        assert name(paint, on_progress=phases.append) == "tensorrt"
    assert phases


def test_a_build_that_fails_falls_back_with_a_warning(host: GpuHost, paint: Bundle) -> None:
    host.without("onnxruntime-cuda")
    host.trt.fails_with("Error Code 10: no implementation")
    with pytest.warns(MMMSDeployWarning, match=r"taken instead of tensorrt in fp32: .* no implementation"):
        assert name(paint) == "openvino"
    for asked in ({"engine": "tensorrt"}, {"device": "cuda"}, {"strict": True}):
        with pytest.raises(EngineUnavailableError, match="no implementation"):
            open_engine(paint, **asked)


def test_an_interrupt_while_a_session_opens(host: GpuHost, paint: Bundle, cache: Path) -> None:
    """Ctrl-C ends it at TensorRT's next step; nothing of it is left, on disk, on the GPU, or running."""
    host.trt.steps = 10_000

    def slow(step: Progress) -> None:
        if step.done == 3:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        Session(paint, engine="tensorrt", on_progress=slow)
    assert [file.name for file in cache.iterdir()] == [".lock"]
    assert not any(thread.name.startswith("build of") and thread.is_alive() for thread in threading.enumerate())
    assert not host.opened, "no other engine is taken for it"
    host.trt.steps = 3
    assert name(paint, engine="tensorrt") == "tensorrt"


# --- every engine in turn ---------------------------------------------------------------------------------------------


@pytest.fixture
def both(tmp_path: Path, paint: Bundle, host: GpuHost) -> Bundle:
    host.trt.compiles_in = "Float"
    case = golden(paint)
    return write_toy(tmp_path / "all", precisions=(Precision.FP32, Precision.FP16), golden=[case])


def test_an_unproven_plan_opens_only_where_it_is_allowed(host: GpuHost, tmp_path: Path) -> None:
    attention = write_attention(tmp_path / "attention")
    host.trt.compiles_in = "Float"
    with pytest.raises(EngineUnavailableError, match="in fp32 of"):
        name(attention, engine="tensorrt", precision="fp16")
    allowing = CudaOptions(allow_unproven=True)
    asked = {"engine": "tensorrt", "precision": "fp16", "strict": True}
    with pytest.warns(MMMSDeployWarning, match="precision not proven"):
        engine = open_engine(attention, cuda_options=allowing, **asked)
    assert "precision not proven" in engine.info.evidence
    engine.close()
    with pytest.raises(EngineUnavailableError, match="in fp32 of"):  # its plans are kept now
        name(attention, **asked)
    assert "precision not proven" in str(why_not_ready(attention, Precision.FP16))


def test_every_engine_is_replayed_one_at_a_time(host: GpuHost, both: Bundle) -> None:
    started: list[tuple[str, dict[str, int]]] = []
    phases: list[Progress] = []

    def on_progress(step: Progress) -> None:
        if " in fp" not in step.task and " in bf" not in step.task:
            phases.append(step)
        elif step.done == 0 and not step.finished:
            started.append((step.task, host.cuda.leaked))

    outcomes = replay_engines(both, on_progress=on_progress)
    assert [(o.engine, str(o.precision)) for o in outcomes if o.engine != "openvino"] == [
        ("tensorrt", "fp32"),
        ("onnxruntime-cuda", "fp32"),
        ("onnxruntime", "fp32"),
        ("tensorrt", "fp16"),
        ("onnxruntime-cuda", "fp16"),
        ("onnxruntime", "fp16"),
    ]
    assert [f"{o.engine} in {o.precision}" for o in outcomes] == [what for what, _ in started]
    assert all(left == {} for _, left in started), "one is closed before the next is opened"
    able = [o for o in outcomes if o.precision != "bf16"]  # not every CPU can
    assert {f"{o.engine} in {o.precision}": o.error for o in able if o.error} == {}
    assert all(o.passed and o.kept for o in able)
    assert {stage_of(step) for step in phases} == {"image", "click"}


def test_one_that_fails_does_not_end_the_others(host: GpuHost, both: Bundle) -> None:
    host.trt.fails_with("Error Code 10: no implementation")
    host.broken = EngineError("the GPU fell off the bus")
    outcomes = replay_engines(both)
    failed = {(o.engine, str(o.precision)): o.error.given for o in outcomes if o.error is not None}
    assert "no implementation" in failed["tensorrt", "fp32"]
    assert failed["onnxruntime-cuda", "fp16"] == "the GPU fell off the bus"
    assert [o.engine for o in outcomes if o.passed and o.precision == "fp32"] == ["openvino", "onnxruntime"]
    assert name(both) in ("openvino", "onnxruntime")
