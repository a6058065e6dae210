"""TensorRT's compiler on our graphs, without a GPU: TensorRT-RTX compiles ahead of time, and lists its kernels.

The list is undocumented text, so the version is pinned (``make test-rtx``); with another one these tests are skipped.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.cuda.devices import probe
from mmms_deploy.engines.tensorrt.api import describe, listening, load_tensorrt, logger
from mmms_deploy.engines.tensorrt.build import BuildOptions
from mmms_deploy.engines.tensorrt.plans import plans
from mmms_deploy.errors import EngineUnavailableError, PlanBuildError, PlanPrecisionError
from mmms_deploy.progress import Progress
from tests.support.attention import MATRICES, write_attention
from tests.support.rtx import PINNED

trt = pytest.importorskip("tensorrt_rtx")
pytestmark = pytest.mark.skipif(trt.__version__ != PINNED, reason=f"the kernel list is that of {PINNED}")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tensorrt"


def test_it_is_what_it_says() -> None:
    module = load_tensorrt("tensorrt_rtx")
    assert str(describe(module)) == f"TensorRT-RTX {PINNED}"
    assert describe(module).ahead_of_time


def test_an_attention_in_fp16(tmp_path: Path, cache: Path) -> None:
    bundle = write_attention(tmp_path / "half")
    phases: list[Progress] = []
    (plan,) = plans(bundle, Precision.FP16, device=None, on_progress=phases.append).values()
    assert plan.report.matrices == {"fp16": MATRICES}
    assert plan.report.evidence(Precision.FP16) == "6 of 6 matrix operations in fp16, 1 of 1 attentions fused"
    assert plan.report.listed == "build"
    assert set(plan.report.types) == {"fp16"}
    assert phases[0].task == "stage 'click': Building engine"
    assert any(phase.depth > 0 for phase in phases)
    assert phases[-1].finished
    (again,) = plans(bundle, Precision.FP16, device=None).values()
    assert (again.plan, again.report, again.built) == (plan.plan, plan.report, "")
    assert again.file is not None
    assert again.file.parent == cache


def test_an_attention_in_fp32_is_not_fused(tmp_path: Path) -> None:
    (plan,) = plans(write_attention(tmp_path / "single", Precision.FP32), Precision.FP32, device=None).values()
    assert plan.report.matrices == {"fp32": MATRICES}
    assert (plan.report.fused, plan.report.attentions) == (0, 1)


def test_an_fp16_graph_with_a_float32_product_is_refused(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(PlanPrecisionError, match=r"1 in fp32 of 6 matrix operations \(node\d+\)"):
        plans(write_attention(tmp_path / "mixed", wide=True), Precision.FP16, device=None)
    assert list(cache.glob("*.plan")) == []


def test_a_float32_graph_under_the_name_of_fp16_is_refused(tmp_path: Path) -> None:
    """An FP16 engine that silently is FP32."""
    bundle = write_attention(tmp_path / "single", Precision.FP32)
    (stage,) = bundle.manifest.stages
    renamed = msgspec.structs.replace(stage, graphs={Precision.FP16: stage.graphs[Precision.FP32]})
    bundle.manifest = msgspec.structs.replace(bundle.manifest, stages=(renamed,))
    with pytest.raises(PlanPrecisionError, match="6 in fp32 of 6 matrix operations"):
        plans(bundle, Precision.FP16, device=None)


def test_an_operation_that_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(PlanBuildError, match=r"node node\d+ \(Det\)"):
        plans(write_attention(tmp_path / "odd", unknown=True), Precision.FP16, device=None)


def test_a_file_that_is_no_graph(tmp_path: Path) -> None:
    bundle = write_attention(tmp_path / "half")
    bundle.file("click.fp16.onnx").write_bytes(b"nothing")
    bundle.manifest = msgspec.structs.replace(bundle.manifest, files={})
    with pytest.raises(PlanBuildError, match="cannot read stage 'click'"):
        plans(bundle, Precision.FP16, device=None)


def test_targets(tmp_path: Path) -> None:
    bundle = write_attention(tmp_path / "half")
    (plan,) = plans(bundle, Precision.FP16, device=None, options=BuildOptions(targets=("8.9", "12.0"))).values()
    assert plan.report.fused == 1
    # H100 and H200: it must be said here, and not when the plan does not run.
    with pytest.raises(EngineUnavailableError, match=r"9\.0"):
        plans(bundle, Precision.FP16, device=None, options=BuildOptions(targets=("9.0",)))


def test_a_runtime_loads_nothing_without_a_gpu(tmp_path: Path) -> None:
    """Why the GPU is looked for first: the runtime is created, but it loads no plan."""
    (plan,) = plans(write_attention(tmp_path / "half"), Precision.FP16, device=None).values()
    if probe().gpus:
        pytest.skip("this machine has a GPU")
    with listening(trt) as messages:
        assert trt.Runtime(logger(trt)).deserialize_cuda_engine(plan.plan) is None
    assert "cudaError 35" in messages.text()


def test_an_interrupted_command_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    bundle = write_attention(tmp_path / "half")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    script = """
import os, signal, sys
from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.tensorrt.plans import plans
seen = []
def on_progress(step):
    seen.append(step)
    if len(seen) == 20:
        os.kill(os.getpid(), signal.SIGINT)
plans(Bundle(sys.argv[1]), Precision.FP16, device=None, on_progress=on_progress)
"""
    start = time.monotonic()
    command = [sys.executable, "-c", script, str(bundle.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert "KeyboardInterrupt" in done.stderr
    assert done.returncode in (-signal.SIGINT, 1, 130)
    assert time.monotonic() - start < 300
    assert [file.name for file in cache.iterdir()] == [".lock"]


def test_two_processes_build_the_same_plan(tmp_path: Path, cache: Path) -> None:
    bundle = write_attention(tmp_path / "half")
    script = """
import sys
from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.tensorrt.plans import plans
(plan,) = plans(Bundle(sys.argv[1]), Precision.FP16, device=None).values()
print("built" if plan.built else "kept")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(bundle.path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, env=environment, **pipes) for _ in range(2)]
    said = [process.communicate(timeout=300) for process in processes]
    assert sorted(out for out, _ in said) == ["built\n", "kept\n"], said
    assert len(list(cache.glob("*.plan"))) == 1


def test_the_click_stage_of_a_real_export(cell448: Bundle) -> None:
    """A narrow network of the full topology."""
    made = plans(cell448, Precision.FP32, device=None)
    click = made["click"].report
    assert click.attentions == 4
    assert made["image"].report.attentions == 4
    assert click.matrices == {"fp32": sum(click.matrices.values())}
    assert click.kernels > 0
