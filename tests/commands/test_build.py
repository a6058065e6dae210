from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result

from mmms_deploy.commands.build import main
from mmms_deploy.engines.cuda.devices import Gpu
from mmms_deploy.engines.tensorrt import api as tensorrt_api
from mmms_deploy.engines.tensorrt import plans as tensorrt_plans
from tests.standins.tensorrt import TensorRtStandIn
from tests.support.attention import write_attention
from tests.support.invoke import invoke

GPU = Gpu(ordinal=0, name="NVIDIA H200", capability=(9, 0), memory=1 << 37, cuda="13.0")


def build(*args: object) -> Result:
    return invoke(main, *args)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    return write_attention(tmp_path / "attention").path


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> TensorRtStandIn:
    """A GPU, and a library of which only the API is real."""

    class NoCuda:
        def __init__(self, *arguments: object) -> None:
            pass

        def activate(self) -> None:
            pass

    library = TensorRtStandIn()
    monkeypatch.setattr(tensorrt_api, "_LOGGERS", {})
    monkeypatch.setattr(tensorrt_plans, "load_tensorrt", lambda name=None: library)
    monkeypatch.setattr(tensorrt_plans, "require_gpu", lambda ordinal, **_: GPU)
    monkeypatch.setattr(tensorrt_plans, "driver_release", lambda: "580.65.06")
    monkeypatch.setattr(tensorrt_plans, "Cuda", NoCuda)
    monkeypatch.setattr(tensorrt_plans, "import_cuda", lambda: None)
    return library


def test_a_plan_and_what_it_is(bundle: Path, trt: TensorRtStandIn, tmp_path: Path) -> None:
    result = build(bundle, "--opt-level", 5, "--workspace", "2G", "--json", tmp_path / "plans.json")
    assert result.exit_code == 0, result.output
    assert "click in fp16: 6 of 6 matrix operations in fp16" in result.stdout
    assert "compiling click: it was never compiled here" in result.stderr
    assert str(tmp_path / "cache" / "tensorrt") in result.stdout.replace("\n", "")
    assert f"WORKSPACE {2 << 30}" in trt.calls
    assert "aux streams 0, level 5" in trt.calls
    (row,) = json.loads((tmp_path / "plans.json").read_text())["plans"]
    assert (row["stage"], row["precision"], row["matrices"]) == ("click", "fp16", {"fp16": 6})
    again = build(bundle, "--opt-level", 5, "--workspace", "2G")
    assert "kept" in again.stdout
    assert "compiling" not in again.stderr
    assert "opt_level was 5, is None" in build(bundle, "--workspace", "2G").stderr


def test_a_plan_that_is_not_what_it_should_be(bundle: Path, trt: TensorRtStandIn) -> None:
    trt.compiles_in = "Float"
    result = build(bundle)
    assert result.exit_code == 1
    assert "6 in fp32 of 6 matrix operations" in result.stderr
    assert "Traceback" not in result.output


def test_an_unproven_plan_is_for_those_who_allow_it(bundle: Path, trt: TensorRtStandIn, tmp_path: Path) -> None:
    trt.compiles_in = "Float"
    result = build(bundle, "--allow-unproven", "--json", tmp_path / "plans.json")
    assert result.exit_code == 0, result.output
    assert "warning: TensorRT 11.4.0.106 compiled stage 'click' with 6 in fp32 of 6" in result.stderr
    assert "0 of 6 matrix operations in fp16, 0 of 1 attentions fused; precision not proven" in result.stdout
    assert "kernels that do not show fp16:" in result.stdout
    (row,) = json.loads((tmp_path / "plans.json").read_text())["plans"]
    assert row["proven"] is False
    assert len(row["doubts"]) == 6
    # It is kept, for the same leave alone.
    refused = build(bundle)
    assert refused.exit_code == 1
    assert "6 in fp32 of 6 matrix operations" in refused.stderr
    assert "--allow-unproven" in refused.stderr
    again = build(bundle, "--allow-unproven")
    assert again.exit_code == 0
    assert "kept" in again.stdout
    assert "warning: TensorRT" in again.stderr
    assert trt.builds == 1


def test_without_a_cache_it_says_so(bundle: Path, trt: TensorRtStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", "off")
    result = build(bundle)
    assert result.exit_code == 0
    assert "warning: plans could not be kept" in result.stderr


def test_without_a_gpu(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    result = build(bundle)
    assert result.exit_code == 1
    assert "error: " in result.stderr
    assert "to fix:" in result.stderr


def test_wrong_usage(bundle: Path, trt: TensorRtStandIn) -> None:
    for arguments, message in (
        (("--target", "8.9"), "--target goes with --ahead-of-time"),
        (("--stage", ""), "the text is empty"),
        (("--ahead-of-time", "--target", "hopper"), "is no compute capability such as 8.9"),
        (("--library", "tensort"), "did you mean 'tensorrt'?"),
        (("--workspace", "much"), "is no size such as 512M or 2G"),
        (("--opt-level", "6"), "6 is not in the range"),
    ):
        result = build(bundle, *arguments)
        assert result.exit_code == 2
        assert message in result.stderr
    result = build(bundle, "--stage", "clik")
    assert result.exit_code == 1
    assert "has no stage 'clik'; did you mean 'click'?" in result.stderr
    result = build(bundle, "--precision", "fp32")
    assert result.exit_code == 1
    assert "has no graphs in fp32" in result.stderr
    assert build(bundle, "--ahead-of-time").exit_code == 1


def test_ahead_of_time_for_real(bundle: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    result = build(bundle, "--ahead-of-time", "--library", "tensorrt_rtx", "--target", "8.9")
    assert result.exit_code == 0, result.output
    assert "6 of 6 matrix operations in fp16, 1 of 1 attentions fused" in result.stdout


def test_an_export_that_shall_build_fails_before_it_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmms_deploy.commands.export import main as export

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    result = invoke(export, "--ckpt", "demo", "--build", "tensorrt", "--out", tmp_path / "demo")
    assert result.exit_code == 1
    assert "CUDA was requested" in result.stderr
    assert not (tmp_path / "demo").exists()


def test_an_export_that_builds(
    bundle: Path, trt: TensorRtStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The export itself is tested elsewhere; here it gives a bundle that is there already."""
    from mmms_deploy.bundle import Bundle
    from mmms_deploy.commands import export
    from mmms_deploy.export import exporter

    report = exporter.ExportReport(Bundle(bundle), {"click.fp16.onnx": 1})
    monkeypatch.setattr(exporter, "export_bundle", lambda *args, **options: report)
    monkeypatch.setattr(export, "check_gpu", lambda: None)
    result = invoke(export.main, "--ckpt", "demo", "--build", "tensorrt", "--out", str(tmp_path / "new"))
    assert result.exit_code == 0, result.output
    assert "click in fp16: 6 of 6 matrix operations in fp16" in result.stdout


def test_help() -> None:
    result = build("--help")
    assert result.exit_code == 0
    assert "mmms-build bundles/demo" in result.stdout
