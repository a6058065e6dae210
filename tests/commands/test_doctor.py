from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmms_deploy.commands import docs, health
from mmms_deploy.commands.docs import show_document
from mmms_deploy.commands.doctor import main
from mmms_deploy.commands.health import examine
from mmms_deploy.documents import document
from mmms_deploy.engines.cuda import devices
from mmms_deploy.engines.openvino import library as openvino_library
from mmms_deploy.engines.registry import BACKENDS
from mmms_deploy.engines.tensorrt import api as tensorrt_api
from mmms_deploy.engines.tensorrt import resources
from tests.standins.cuda import CudaStandIn, Error
from tests.support.blocker import BLOCKER
from tests.support.invoke import invoke
from tests.support.paths import ROOT
from tests.support.terminal import Terminal

Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make distributions look as if they were installed (a version) or were not (None)."""
    # What make test-rtx installs is no part of these machines.
    changed: dict[str, str | None] = {"tensorrt-rtx": None, "tensorrt-rtx-cu13": None}
    real = metadata.version

    def version(name: str) -> str:
        found = changed[name] if name in changed else real(name)
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)

    def change(**installed: str | None) -> None:
        changed.update({name.replace("_", "-"): found for name, found in installed.items()})

    return change


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> CudaStandIn:
    standin = CudaStandIn()
    standin.unusable, standin.driver = Error.cudaErrorInsufficientDriver, 0
    monkeypatch.setattr(devices, "import_cuda", lambda: standin)
    monkeypatch.setenv("COLUMNS", "140")
    return standin


@pytest.fixture
def gpu(no_gpu: CudaStandIn) -> CudaStandIn:
    no_gpu.unusable, no_gpu.driver = Error.cudaSuccess, 13000
    return no_gpu


def engine(name: str) -> health.EngineHealth:
    return next(engine for engine in examine().engines if engine.name == name)


def test_a_machine_without_a_gpu(install: Install) -> None:
    install(openvino="2026.4.1")
    result = invoke(main)
    assert result.exit_code == 0, result.output
    for text in ("This machine", "Engines", "processor", "memory", "numpy", "openvino"):
        assert text in result.stdout
    assert "none: there is no NVIDIA driver" in result.stdout
    assert "to use tensorrt and onnxruntime-cuda: install the NVIDIA driver" in result.stdout
    assert "ready: openvino and onnxruntime" in result.stdout


def test_json() -> None:
    result = invoke(main, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["works"] is True
    assert facts["machine"]["cores"] >= 1
    assert facts["packages"]["numpy"]
    assert facts["gpu"]["problem"] == "there is no NVIDIA driver"
    assert [e["name"] for e in facts["engines"]] == [backend.name for backend in BACKENDS]
    assert {e["name"] for e in facts["engines"] if e["works"]} == {"openvino", "onnxruntime"}
    assert result.stderr == ""


def test_every_engine_is_looked_at() -> None:
    assert set(health._CHECKS) == {backend.name for backend in BACKENDS}


def test_no_engine_at_all(install: Install) -> None:
    install(openvino=None, onnxruntime=None)
    result = invoke(main)
    assert result.exit_code == 1
    assert "no engine works" in result.stdout
    assert 'to use openvino and onnxruntime: pip install "mmms-deploy[cpu]"' in result.stdout
    assert json.loads(invoke(main, "--json").stdout)["works"] is False


def test_both_wheels_of_onnxruntime(install: Install) -> None:
    install(onnxruntime_gpu="1.31.1")
    result = invoke(main)
    assert result.exit_code == 0, "OpenVINO works"
    assert "conflict onnxruntime" in result.stdout
    assert 'pip uninstall -y onnxruntime onnxruntime-gpu, then pip install "mmms-deploy[cpu]"' in result.stdout
    found = engine("onnxruntime")
    assert not found.works
    assert "are installed together" in found.why
    install(openvino=None)
    assert invoke(main).exit_code == 1


def test_both_wheels_of_cudnn(gpu: CudaStandIn, install: Install) -> None:
    install(nvidia_cudnn_cu12="9.1.0", nvidia_cudnn_cu13="9.26.0")
    printed = invoke(main).stdout
    assert "conflict nvidia-cudnn-cu13 9.26.0 and nvidia-cudnn-cu12 9.1.0 are installed together" in printed
    command = 'pip uninstall -y nvidia-cudnn-cu13 nvidia-cudnn-cu12, then pip install "mmms-deploy[cuda]"'
    assert command in printed
    install(nvidia_cudnn_cu12=None)
    assert "conflict" not in invoke(main).stdout


def test_a_gpu_without_its_wheels(gpu: CudaStandIn, install: Install) -> None:
    install(tensorrt=None, tensorrt_rtx=None)
    result = invoke(main)
    assert "Stand-in GPU (SM 9.0), driver for CUDA 13.0, 1024 GiB" in result.stdout
    command = 'pip uninstall -y onnxruntime, then pip install "mmms-deploy[cuda]"'
    assert f"to use tensorrt and onnxruntime-cuda: {command}" in result.stdout, (
        "as it stands it would add a second wheel"
    )
    assert "is a wheel without CUDA" in engine("onnxruntime-cuda").why
    assert "pip uninstall -y onnxruntime" in engine("onnxruntime-cuda").fix
    install(onnxruntime_gpu="1.31.1")
    assert 'then pip install "mmms-deploy[cuda]"' in invoke(main).stdout, "with a GPU, the other one is kept"


def test_a_gpu_with_everything(gpu: CudaStandIn, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tensorrt="11.4.0", onnxruntime=None, onnxruntime_gpu="1.31.1")
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    opened = SimpleNamespace(get_providers=lambda: providers)
    ort = SimpleNamespace(
        __version__="1.31.1",
        cuda_version="13.0",
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        set_default_logger_severity=lambda severity: None,
        SessionOptions=SimpleNamespace,
        OrtValue=SimpleNamespace,
        InferenceSession=lambda *arguments, **options: opened,
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", ort)
    monkeypatch.setattr(tensorrt_api, "load_tensorrt", lambda: SimpleNamespace(__version__="11.4.0"))
    assert all(engine.works for engine in examine().engines)
    assert engine("tensorrt").library == "TensorRT 11.4.0 on Stand-in GPU (SM 9.0), driver for CUDA 13.0"
    assert engine("tensorrt").precisions == ("fp32", "fp16", "bf16")

    ort.cuda_version = "14.1"
    assert "is for CUDA 14.1, and the driver runs CUDA 13.0 at most" in engine("onnxruntime-cuda").why
    ort.cuda_version = "12.8"
    providers.remove("CUDAExecutionProvider")
    assert "cannot use the GPU: it takes CPUExecutionProvider" in engine("onnxruntime-cuda").why

    def preload_dlls(**asked: object) -> None:
        print("Failed to load libcudnn.so.9: no such file")

    ort.preload_dlls = preload_dlls
    found = engine("onnxruntime-cuda")
    assert not found.works
    assert "libcudnn.so.9" in found.why
    assert found.fix == 'pip install "onnxruntime-gpu[cuda,cudnn]"'
    ort.get_available_providers = lambda: ["CPUExecutionProvider"]
    assert "has no CUDAExecutionProvider" in engine("onnxruntime-cuda").why


def test_tensorrt_for_rtx_on_a_gpu_that_it_does_not_know(
    gpu: CudaStandIn, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tensorrt_rtx="1.7.1")
    rtx = SimpleNamespace(__version__="1.7.1", ComputeCapability=SimpleNamespace(SM89=89))
    monkeypatch.setattr(tensorrt_api, "load_tensorrt", lambda: rtx)
    found = engine("tensorrt")
    assert not found.works
    assert "TensorRT-RTX 1.7.1 does not run on Stand-in GPU" in found.why
    rtx.ComputeCapability.SM90 = 90
    assert engine("tensorrt").works


def test_tensorrt_without_the_library_for_this_gpu(
    gpu: CudaStandIn, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tensorrt="10.15.1.29")
    monkeypatch.setattr(tensorrt_api, "load_tensorrt", lambda: SimpleNamespace(__version__="10.15.1.29"))
    asked: list[tuple[int, int]] = []

    def missing(capability: tuple[int, int]) -> resources.MissingResource:
        asked.append(capability)
        return resources.MissingResource("libnvinfer_builder_resource_sm90.so", Path("/opt/trt"), ("ptx",))

    monkeypatch.setattr(resources, "missing_resource", missing)
    found = engine("tensorrt")
    assert not found.works
    assert asked == [(9, 0)]
    assert "libnvinfer_builder_resource_sm90.so is missing in /opt/trt" in found.why
    assert "in version 10.15.1.29" in found.fix
    monkeypatch.setattr(resources, "missing_resource", lambda capability: None)
    assert engine("tensorrt").works


def test_tensorrt_is_not_touched_without_a_gpu(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tensorrt="11.4.0")
    monkeypatch.setattr(tensorrt_api, "load_tensorrt", lambda: pytest.fail("it would end the process"))
    assert not engine("tensorrt").works


def test_a_library_that_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = engine("onnxruntime")
    assert "cannot be imported" in found.why
    assert "--force-reinstall" in found.fix


def test_a_cpu_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_library, "bf16_capable", lambda: False)
    found = engine("openvino")
    assert (found.works, found.precisions) == (True, ("fp32", "int8"))
    assert "no bf16" in found.why
    assert "no bf16" in " ".join(re.sub("[│┃]", " ", invoke(main).stdout).split()), "wherever the table's line ends"


def test_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", "off")
    assert "off (MMMS_DEPLOY_CACHE)" in invoke(main).stdout


def test_without_torch_and_onnx() -> None:
    script = BLOCKER + (
        "from mmms_deploy.commands.doctor import main\n"
        "main([], standalone_mode=False)\n"
        "print('imported:', sorted(BLOCKED & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "imported: []" in done.stdout


def test_help_imports_nothing() -> None:
    script = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from mmms_deploy.commands.doctor import main\n"
        "result = CliRunner().invoke(main, ['--help'])\n"
        "assert 'mmms-doctor --json' in result.output and result.exit_code == 0\n"
        "print(sorted({'numpy', 'onnxruntime', 'openvino', 'msgspec'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_it_is_a_command() -> None:
    import tomllib

    scripts: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["mmms-doctor"] == "mmms_deploy.commands.start:doctor"


def test_documents_are_listed_and_shown() -> None:
    listed = invoke(main, "--docs")
    assert listed.exit_code == 0
    for text in ("session", "engines", "datasets", "documents"):
        assert text in listed.stdout
    shown = invoke(main, "--docs", "engines")
    assert shown.exit_code == 0
    assert "# Engines" in shown.stdout
    assert shown.stdout == invoke(main, "--docs", "docs/engines.md").stdout
    assert shown.stdout.endswith(f"\n\n{Path(document('engines')).read_text(encoding='utf-8')}\n"), "as it is in a pipe"
    wrong = invoke(main, "--docs", "engine")
    assert wrong.exit_code == 2
    assert "did you mean 'engines'?" in wrong.stderr
    assert invoke(main, "--docs", "engines", "--json").exit_code == 2


def test_a_document_is_drawn_for_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[str] = []
    monkeypatch.setattr("click.echo_via_pager", pages.append)
    monkeypatch.setattr(docs, "console", SimpleNamespace(width=80))
    monkeypatch.setattr("sys.stdout", Terminal())
    show_document("session")
    (page,) = pages
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in page.splitlines()]
    assert lines[0] == document("session")
    assert max(len(line) for line in lines[2:]) <= 80
    assert any(line.split() == ["call", "does"] for line in lines), "a table is drawn"
    assert any("session.click(320, 240)" in line for line in lines)
    assert not any(line.startswith(("# ", "|", "```")) for line in lines)
