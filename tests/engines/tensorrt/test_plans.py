"""The cache of plans, and the builds that need a GPU, with a library of which only the API is real."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.cuda.devices import Gpu
from mmms_deploy.engines.tensorrt import api as tensorrt_api
from mmms_deploy.engines.tensorrt import plan_cache as tensorrt_plan_cache
from mmms_deploy.engines.tensorrt import plans as tensorrt_plans
from mmms_deploy.engines.tensorrt.build import BuildOptions
from mmms_deploy.engines.tensorrt.plan_cache import one_at_a_time, plan_file, read_plan
from mmms_deploy.engines.tensorrt.plans import plans
from mmms_deploy.errors import (
    BundleCorruptError,
    EngineUnavailableError,
    PlanBuildError,
    PlanError,
    PlanPrecisionError,
)
from mmms_deploy.progress import Progress
from tests.standins.tensorrt import Severity, TensorRtStandIn
from tests.support.attention import MATRICES, write_attention
from tests.support.toy import write_toy

GPU = Gpu(ordinal=0, name="NVIDIA H200", capability=(9, 0), memory=1 << 37, cuda="13.0")


@pytest.fixture
def trt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TensorRtStandIn:
    """A library, a GPU, and an empty cache."""
    library = TensorRtStandIn(scratch=1234)
    library.inner_phases = library.fuses = False
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tensorrt_plans, "load_tensorrt", lambda name=None: library)
    see(monkeypatch, GPU, "580.65.06")
    monkeypatch.setattr(tensorrt_api, "_LOGGERS", {})

    class NoCuda:
        def __init__(self, *arguments: object) -> None:
            pass

        def activate(self) -> None:
            library.calls.append("activate")

    monkeypatch.setattr(tensorrt_plans, "Cuda", NoCuda)
    monkeypatch.setattr(tensorrt_plans, "import_cuda", lambda: None)
    return library


def see(monkeypatch: pytest.MonkeyPatch, gpu: Gpu, driver: str) -> None:
    monkeypatch.setattr(tensorrt_plans, "require_gpu", lambda ordinal, **_: gpu)
    monkeypatch.setattr(tensorrt_plans, "driver_release", lambda: driver)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_attention(tmp_path / "attention")


def built(bundle: Bundle, **options: Any) -> tuple[bytes, str]:
    """The plan of the only stage, and why it was compiled; empty when it was not."""
    (plan,) = plans(bundle, Precision.FP16, on_progress=lambda step: None, **options).values()
    return plan.plan, plan.built


def kept(tmp_path: Path) -> Path:
    (file,) = (tmp_path / "cache" / "tensorrt").glob("*.plan")
    return file


def test_a_plan_is_compiled_once(trt: TensorRtStandIn, bundle: Bundle, tmp_path: Path) -> None:
    plan, why = built(bundle)
    assert why == "it was never compiled here"
    assert trt.calls[0] == "activate"
    assert "clear TF32" in trt.calls
    assert "aux streams 0, level 3" in trt.calls  # a click is one CUDA graph
    trt.calls.clear()
    assert built(bundle) == (plan, "")
    assert trt.calls == []
    assert {name: made.plan for name, made in plans(bundle, Precision.FP16).items()} == {"click": plan}
    assert kept(tmp_path).stat().st_mode & 0o777 == 0o600
    assert built(bundle, rebuild=True)[1] == "it was requested"


def test_the_report_shows_the_precision(trt: TensorRtStandIn, bundle: Bundle) -> None:
    (plan,) = plans(bundle, Precision.FP16).values()
    assert plan.report.listed == "inspector"
    assert plan.report.matrices == {"fp16": MATRICES}
    assert plan.report.activation_bytes == 1234
    assert plan.report.evidence(Precision.FP16) == "6 of 6 matrix operations in fp16, 0 of 1 attentions fused"


def test_a_plan_of_another_precision_is_refused_and_not_kept(
    trt: TensorRtStandIn, bundle: Bundle, tmp_path: Path
) -> None:
    trt.compiles_in = "Float"
    with pytest.raises(PlanPrecisionError, match="6 in fp32 of 6 matrix operations \\(node0"):
        built(bundle)
    assert list((tmp_path / "cache" / "tensorrt").glob("*.plan")) == []


def test_without_a_list_of_kernels_the_typed_graph_is_the_evidence(trt: TensorRtStandIn, tmp_path: Path) -> None:
    trt.lists_kernels = False
    (plan,) = plans(write_attention(tmp_path / "half"), Precision.FP16).values()
    assert "as its typed graph says (the library lists no kernels)" in plan.report.evidence(Precision.FP16)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("driver", "driver was 580.65.06, is 590.1"),
        ("gpu", "gpu was NVIDIA H200, is NVIDIA L4; compute capability was 9.0, is 8.9"),
        ("library", "library was TensorRT 11.4.0.106, is TensorRT 10.12.0.36"),
        ("options", "opt_level was None, is 5"),
    ],
)
def test_what_differs_is_said(
    trt: TensorRtStandIn, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, change: str, reason: str
) -> None:
    built(bundle)
    options = BuildOptions()
    if change == "driver":
        see(monkeypatch, GPU, "590.1")
    elif change == "gpu":
        see(monkeypatch, Gpu(ordinal=0, name="NVIDIA L4", capability=(8, 9), memory=1, cuda="13.0"), "580.65.06")
    elif change == "library":
        trt.__version__ = "10.12.0.36"
    else:
        options = BuildOptions(opt_level=5)
    assert built(bundle, options=options)[1] == reason
    assert built(bundle, options=options)[1] == ""


def test_another_graph_is_another_plan(trt: TensorRtStandIn, bundle: Bundle, tmp_path: Path) -> None:
    built(bundle)
    trt.fail = lambda logger: False
    with pytest.raises(PlanBuildError, match="node"):
        built(write_attention(tmp_path / "other", unknown=True))


@pytest.mark.parametrize("where", [0, 200, -200, -36, -1])
def test_one_flipped_bit(trt: TensorRtStandIn, bundle: Bundle, tmp_path: Path, where: int) -> None:
    plan, _ = built(bundle)
    file = kept(tmp_path)
    content = bytearray(file.read_bytes())
    content[where] ^= 1
    file.write_bytes(content)
    again, why = built(bundle)
    assert again == plan
    assert str(file) in why
    assert built(bundle)[1] == ""


@pytest.mark.parametrize("length", [0, 1, 39, 40, 100, -1])
def test_cut_off(trt: TensorRtStandIn, bundle: Bundle, tmp_path: Path, length: int) -> None:
    plan, _ = built(bundle)
    file = kept(tmp_path)
    file.write_bytes(file.read_bytes()[:length])
    again, why = built(bundle)
    assert again == plan
    assert str(file) in why


def test_a_plan_that_somebody_put_there_is_never_loaded(trt: TensorRtStandIn, bundle: Bundle, tmp_path: Path) -> None:
    plan, _ = built(bundle)
    file = kept(tmp_path)
    file.write_bytes(plan)  # what trtexec would have written
    assert "is no plan of mmms-deploy, or was cut off" in built(bundle)[1]
    assert read_plan(file, the_identity(file))[0] == plan


def the_identity(file: Path) -> tensorrt_plan_cache.Identity:
    with tensorrt_plan_cache._opened(file) as stream:
        return tensorrt_plan_cache._facts(file, tensorrt_plan_cache._tail(file, stream)[2]).identity


def test_a_plan_for_something_else_under_this_name(trt: TensorRtStandIn, bundle: Bundle, tmp_path: Path) -> None:
    built(bundle)
    here = kept(tmp_path)
    trt.__version__ = "10.12.0.36"
    built(bundle)
    (other,) = set(here.parent.glob("*.plan")) - {here}
    here.replace(other)
    assert "was made for something else: library was TensorRT 11.4" in built(bundle)[1]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="owners are a POSIX thing")
def test_a_plan_that_others_could_have_written(trt: TensorRtStandIn, bundle: Bundle, tmp_path: Path) -> None:
    built(bundle)
    file = kept(tmp_path)
    file.chmod(0o666)
    with pytest.raises(PlanError, match="mode 666"):
        read_plan(file, the_identity_of_bundle(bundle, file))
    assert "has mode 666" in built(bundle)[1]
    if os.geteuid() == 0:
        os.chown(file, 12345, 12345)
        assert "belongs to user 12345" in built(bundle)[1]


def the_identity_of_bundle(bundle: Bundle, file: Path) -> tensorrt_plan_cache.Identity:
    """Any will do: a foreign file is refused before it is read."""
    return tensorrt_plan_cache.Identity(
        graph="",
        precision=Precision.FP16,
        library="",
        gpu="",
        compute_capability="",
        driver="",
        every_click=True,
        options={},
    )


def test_a_changed_graph_is_not_compiled_under_the_old_name(trt: TensorRtStandIn, bundle: Bundle) -> None:
    file = bundle.file("click.fp16.onnx")
    file.write_bytes(file.read_bytes().replace(b"node1", b"node0"))
    with pytest.raises(BundleCorruptError, match="was changed or removed after the bundle was opened"):
        built(bundle)
    with pytest.raises(BundleCorruptError, match="SHA-256"):
        built(Bundle(bundle.path, verify=False))


def test_without_a_cache(trt: TensorRtStandIn, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", "off")
    assert "MMMS_DEPLOY_CACHE is off" in built(bundle)[1]
    assert "MMMS_DEPLOY_CACHE is off" in built(bundle)[1]


def test_a_full_disk_costs_time_not_the_plan(
    trt: TensorRtStandIn, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mmms_deploy.files.output._into_place", full)
    (plan,) = plans(bundle, Precision.FP16).values()
    assert plan.plan
    assert plan.file is None
    assert [file.name for file in (tmp_path / "cache" / "tensorrt").iterdir()] == [".lock"]


def test_an_interrupt_while_writing_leaves_nothing(
    trt: TensorRtStandIn, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mmms_deploy.files.output._into_place", interrupted)
    with pytest.raises(KeyboardInterrupt):
        built(bundle)
    assert [file.name for file in (tmp_path / "cache" / "tensorrt").iterdir()] == [".lock"]


def test_what_was_measured_is_used_again(trt: TensorRtStandIn, bundle: Bundle, tmp_path: Path) -> None:
    built(bundle)
    assert "timing cache of 0 bytes" in trt.calls
    trt.calls.clear()
    built(bundle, rebuild=True)
    assert "timing cache of 1 bytes" in trt.calls
    trt.calls.clear()
    built(bundle, rebuild=True, options=BuildOptions(timing_cache=False))
    assert not any("timing" in call for call in trt.calls)
    (file,) = (tmp_path / "cache" / "tensorrt").glob("*.timing")
    file.write_bytes(b"x" * 40)
    trt.calls.clear()
    built(bundle, rebuild=True)
    assert "timing cache of 0 bytes" in trt.calls
    trt.accepts_timing = False
    trt.calls.clear()
    built(bundle, rebuild=True)
    assert [call for call in trt.calls if "timing" in call] == ["timing cache of 1 bytes", "timing cache of 0 bytes"]


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("Unable to load library: libnvinfer_builder_resource_sm90.so.11.4.0", "builder resource"),
        ("Error Code 2: OutOfMemory (Requested size was 1 bytes.)", "close other programs"),
        ("CUDA initialization failure with error: 35", "NVIDIA driver"),
        ("CUDA initialization failure with error: 100", "nvidia-smi"),
        ("Error Code 10: Internal Error (Could not find any implementation)", "another engine"),
    ],
)
def test_a_failed_build_says_what_the_library_said(trt: TensorRtStandIn, bundle: Bundle, words: str, fix: str) -> None:
    def fail(logger: Any) -> bool:
        logger.log(Severity.WARNING, "something else")
        logger.log(Severity.ERROR, words)
        return True

    trt.fail = fail
    with pytest.raises(PlanBuildError) as caught:
        built(bundle)
    assert words.partition(" (")[0] in caught.value.given
    assert "something else" not in caught.value.given
    assert fix in str(caught.value.fix)


def test_an_operation_that_the_parser_does_not_know(trt: TensorRtStandIn, tmp_path: Path) -> None:
    with pytest.raises(
        PlanBuildError, match=r"node node\d+ \(Det\): Assertion failed: no importer \[UNSUPPORTED_NODE\]"
    ):
        built(write_attention(tmp_path / "odd", unknown=True))


def test_progress_and_a_listener_that_fails(trt: TensorRtStandIn, bundle: Bundle) -> None:
    seen: list[Progress] = []
    plans(bundle, Precision.FP16, on_progress=seen.append)
    assert [(step.done, step.total, step.finished) for step in seen] == [
        (0, 3, False),
        (1, 3, False),
        (2, 3, False),
        (3, 3, False),
        (3, 3, True),
    ]
    assert trt.threads != {threading.current_thread().name}

    def fails(step: Progress) -> None:
        raise RuntimeError("no terminal")

    with pytest.raises(RuntimeError, match="no terminal"):
        plans(bundle, Precision.FP16, rebuild=True, on_progress=fails)


def nothing_runs() -> bool:
    builds = [thread for thread in threading.enumerate() if thread.name.startswith("build of")]
    for thread in builds:
        thread.join(1)
    return not any(thread.is_alive() for thread in builds)


def test_an_interrupt_stops_the_library(trt: TensorRtStandIn, bundle: Bundle, tmp_path: Path) -> None:
    """Ctrl-C reaches the waiting thread; the library stops at its next step and leaves nothing."""
    trt.steps = 10_000

    def slow(step: Progress) -> None:
        if step.done == 3:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        plans(bundle, Precision.FP16, on_progress=slow)
    assert time.monotonic() - start < 30
    assert nothing_runs()
    assert [file.name for file in (tmp_path / "cache" / "tensorrt").iterdir()] == [".lock"]
    trt.steps = 3
    assert built(bundle)[1] == "it was never compiled here"


def test_an_impatient_second_interrupt_waits_for_the_library_too(trt: TensorRtStandIn, bundle: Bundle) -> None:
    """A process that ends while TensorRT still compiles ends in a crash."""
    trt.steps = 10_000

    def slow(step: Progress) -> None:
        if step.done == 3:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)

    with pytest.raises(KeyboardInterrupt):
        plans(bundle, Precision.FP16, on_progress=slow)
    assert not any(thread.name.startswith("build of") for thread in threading.enumerate())


def test_an_interrupt_while_the_build_starts(
    trt: TensorRtStandIn, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt.steps = 1000
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        plans(bundle, Precision.FP16, on_progress=lambda step: time.sleep(0.01))
    assert nothing_runs()


def _hold(folder: Path, ready: Any, release: Any) -> None:
    with one_at_a_time(folder):
        ready.set()
        release.wait(60)


def test_a_second_process_waits_for_the_first_and_takes_its_plan(
    trt: TensorRtStandIn, bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan, _ = built(bundle)
    file = kept(tmp_path)
    content = file.read_bytes()
    file.unlink()
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(file.parent, ready, release))
    process.start()
    try:
        assert ready.wait(60)
        trt.calls.clear()

        finished: list[bool] = []

        def on_progress(step: Progress) -> None:
            assert step.task == "stage 'click': another process compiles plans; waiting for it"
            finished.append(step.finished)
            file.write_bytes(content)  # the other one is done
            file.chmod(0o600)
            release.set()

        (found,) = plans(bundle, Precision.FP16, on_progress=on_progress).values()
    finally:
        release.set()
        process.join(60)
    assert (found.plan, found.built) == (plan, "")
    assert trt.calls == []
    assert finished == [False, True], "its bar goes"
    assert "another process compiles plans" in caplog.text, "for those who show no bars"


def test_a_graph_of_another_precision(trt: TensorRtStandIn, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError, match="has no graphs in fp16"):
        plans(write_toy(tmp_path / "toy"), Precision.FP16)


def test_tensorrt_does_not_build_without_a_gpu(trt: TensorRtStandIn, bundle: Bundle) -> None:
    with pytest.raises(EngineUnavailableError, match="without a GPU"):
        plans(bundle, Precision.FP16, device=None)
    assert trt.calls == []


def test_the_gpu_is_found_before_the_library_is_touched(bundle: Bundle) -> None:
    """Without a GPU, the runtime is invalid, and the process dies when it is used."""
    script = """
import sys
from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.tensorrt.plans import plans
from mmms_deploy.errors import EngineUnavailableError
try:
    plans(Bundle(sys.argv[1]), Precision.FP16, device=0)
except EngineUnavailableError as error:
    print("refused", sorted({"tensorrt", "tensorrt_rtx"} & set(sys.modules)))
"""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(bundle.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == "refused []\n", done.stderr


@pytest.mark.parametrize("options", [{"opt_level": 6}, {"opt_level": -1}, {"workspace": 12}, {"aux_streams": -1}])
def test_impossible_options(options: dict[str, int]) -> None:
    with pytest.raises(PlanBuildError, match=next(iter(options))):
        BuildOptions(**options)


def test_old_plans_go(trt: TensorRtStandIn, bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "tensorrt"
    folder.mkdir(parents=True)
    old = folder / "old.plan"
    old.write_bytes(b"")
    os.utime(old, (0, 0))
    built(bundle)
    assert not old.exists()
    assert plan_file(folder, the_identity(kept(tmp_path))) == kept(tmp_path)
