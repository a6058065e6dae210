"""The commands and ``tests/gpu`` on a rehearsed GPU host, from end to end, each in a process of its own."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmms_deploy.bench.report import read_report
from mmms_deploy.bundle import Bundle, Precision
from tests.support.rehearsal import FAILS, TENSORRT, TORCH, environment, run
from tests.support.scenes import scene
from tests.support.toy import write_toy

COMMANDS = "mmms_deploy.commands"
PLANE = 4 * 64 * 96


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Graphs in float32 and float16."""
    return write_toy(tmp_path_factory.mktemp("bundles") / "both", precisions=(Precision.FP32, Precision.FP16))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def command(name: str, *arguments: object, cache: Path, **variables: str) -> str:
    done = run("-m", f"{COMMANDS}.{name}", *arguments, env=environment(cache, **variables))
    assert done.returncode == 0, done.stdout + done.stderr
    # Nothing is printed while Python ends, when libraries are released in any order.
    assert "Exception ignored" not in done.stderr
    return done.stdout + done.stderr


def examined(cache: Path, **variables: str) -> Any:
    """What the doctor prints for programs; what it says meanwhile goes to stderr."""
    return json.loads(run("-m", f"{COMMANDS}.doctor", "--json", env=environment(cache, **variables)).stdout)


def test_the_doctor(cache: Path) -> None:
    facts = examined(cache)
    works = {engine["name"]: engine["works"] for engine in facts["engines"] if engine["device"] == "cuda"}
    assert works == {"tensorrt": True, "onnxruntime-cuda": True}
    without = examined(cache, **{TENSORRT: "off"})
    works = {engine["name"]: engine["works"] for engine in without["engines"] if engine["device"] == "cuda"}
    assert works == {"tensorrt": False, "onnxruntime-cuda": True}


@pytest.mark.parametrize("version", ["10.16.1.11", "11.4.0.106"])
def test_plans_are_built_inspected_and_used(both: Bundle, cache: Path, tmp_path: Path, version: str) -> None:
    output = command("build", both.path, "--json", tmp_path / "plans.json", cache=cache, **{TENSORRT: version})
    plans = json.loads((tmp_path / "plans.json").read_text())["plans"]
    assert [(plan["stage"], plan["precision"], plan["listed"]) for plan in plans] == [
        (stage, precision, "inspector") for precision in ("fp32", "fp16") for stage in ("image", "click")
    ]
    assert output.count("it was never compiled here") == 4
    assert "never compiled" not in command("build", both.path, cache=cache, **{TENSORRT: version})
    output = command("verify", both.path, "--device", "cuda", "--strict", cache=cache, **{TENSORRT: version})
    assert f"TensorRT {version} on cuda, fp32" in output
    assert "passed" in output


def test_every_engine_in_every_precision(both: Bundle, cache: Path) -> None:
    output = command("verify", both.path, "--device", "cuda", "--all-engines", cache=cache)
    assert sum("passed" in line or "shows nothing" in line for line in output.splitlines()) >= 4
    assert "cannot run" not in output
    assert "differs" not in output
    # Masks that are all empty let no reduced precision pass, and are no reason to refuse it when it is requested.
    assert output.count("shows nothing") == 2
    wanted = ["--device", "cuda", "--engine", "tensorrt", "--precision", "fp16", "--strict"]
    assert "passed: 1 clicks on TensorRT" in command("verify", both.path, *wanted, cache=cache)


def test_a_mask_from_the_command_line(both: Bundle, cache: Path, tmp_path: Path) -> None:
    Image.new("RGB", (70, 50), "grey").save(tmp_path / "grey.png")
    masks = []
    for device, engine in (("cuda", "tensorrt"), ("cuda", "onnxruntime-cuda"), ("cpu", "onnxruntime")):
        masks.append(tmp_path / f"{engine}.png")
        wanted = ["--device", device, "--engine", engine, "--strict", "--out", masks[-1]]
        command("segment", both.path, tmp_path / "grey.png", "--pos", "20,20", *wanted, cache=cache)
    assert len({mask.read_bytes() for mask in masks}) == 1


def test_clicks_are_counted_by_several_workers(both: Bundle, cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for index in range(2):
        one = scene(index, surfaces=1)
        Image.fromarray(one.image).save(tmp_path / "data" / "images" / f"{index}.png")
        Image.fromarray(one.surfaces[0].mask).save(tmp_path / "data" / "masks" / f"{index}.png")
    found = []
    for device, engine in (("cuda", "tensorrt"), ("cuda", "onnxruntime-cuda"), ("cpu", "onnxruntime")):
        wanted = ["--device", device, "--engine", engine, "--strict", "--workers", "2", "--max-clicks", "3"]
        data = ["--dataset", f"folder={tmp_path / 'data'}:name=ellipses:modalities=none"]
        command("eval", both.path, *data, *wanted, "--out", tmp_path / engine, cache=cache)
        with (tmp_path / engine / "objects.csv").open(newline="") as stream:
            found.append([(row["case"], row["points"], row["iou_03"]) for row in csv.DictReader(stream)])
    assert len(found[0]) == 2
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("engine", ["tensorrt", "onnxruntime-cuda"])
def test_the_benchmark(both: Bundle, cache: Path, tmp_path: Path, engine: str) -> None:
    wanted = [
        "--engine",
        engine,
        "--precision",
        "fp16",
        "--strict",
        "--clicks",
        3,
        "--images",
        1,
        "--image-size",
        "50x70",
    ]
    files = ["--json", tmp_path / "new.json", "--html", tmp_path / "new.html"]
    command("bench", both.path, "--device", "cuda", *wanted, *files, cache=cache)
    report = read_report(tmp_path / "new.json")
    assert (report.engine.name, report.engine.device, report.engine.precision) == (engine, "cuda", "fp16")
    compiled = [note for note in report.notes if note.startswith("Compiled in this run: image, click.")]
    assert len(compiled) == (engine == "tensorrt")
    assert report.value("moved.click_up") == 16
    mask = 50 * 12  # bits, each row in whole words of 32
    assert report.value("moved.click_down") == PLANE + mask
    assert 0 < report.value("click.engine") < report.value("click.total")
    assert report.value("vram.before") == 520
    assert report.value("graph.click_ratio") is not None
    assert "<svg" in (tmp_path / "new.html").read_text()


@pytest.mark.parametrize(
    ("engine", "fails", "said"),
    [
        ("tensorrt", "cudaStreamEndCapture", "cudaStreamEndCapture failed with cudaErrorUnknown"),
        ("onnxruntime-cuda", "onnxruntime-graph", "CUDA failure 900"),
    ],
)
def test_a_click_that_is_no_cuda_graph_is_measured_with_a_warning(
    both: Bundle, cache: Path, tmp_path: Path, engine: str, fails: str, said: str
) -> None:
    wanted = ["--device", "cuda", "--engine", engine, "--precision", "fp32"]
    files = ["--clicks", "2", "--images", "1", "--no-eager", "--json", tmp_path / "new.json"]
    output = command("bench", both.path, *wanted, *files, cache=cache, **{FAILS: fails})
    assert "runs as a sequence of operations, not as one CUDA graph" in output
    assert said in output
    report = read_report(tmp_path / "new.json")
    metric = report.metric("graph.click_ratio")
    assert metric is not None
    assert "not one CUDA graph" in metric.why
    assert report.value("click.total") is not None
    done = run("-m", f"{COMMANDS}.verify", both.path, *wanted, "--strict", env=environment(cache, **{FAILS: fails}))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_what_fails_has_a_name(both: Bundle, cache: Path) -> None:
    """Whatever call of CUDA or TensorRT fails, the user reads a message."""
    for name, fails in (
        ("build", "tensorrt-build"),
        ("verify", "cudaHostAlloc"),
        ("verify", "cudaMemcpyAsync"),
        ("bench", "cudaMemGetInfo"),
        ("bench", "cudaEventCreate"),
    ):
        wanted = [] if name == "build" else ["--device", "cuda", "--engine", "tensorrt"]
        done = run("-m", f"{COMMANDS}.{name}", both.path, *wanted, env=environment(cache, **{FAILS: fails}))
        assert done.returncode == 1, fails
        assert "error: " in done.stderr
        assert "to fix: " in done.stderr
        assert "Traceback" not in done.stderr, done.stderr


@pytest.mark.slow
def test_everything_that_is_marked_gpu(tmp_path: Path) -> None:
    """The tests for a GPU pass on the stand-ins, so that a failure on a real GPU is that GPU's."""
    options = ["-m", "gpu", "-q", "-p", "no:cacheprovider", "--basetemp", tmp_path / "pytest"]
    done = run(
        "-m", "pytest", *options, "tests/gpu", env=environment(tmp_path / "cache", **{TORCH: "on"}), timeout=3600
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " skipped" not in done.stdout.splitlines()[-1]
    assert " passed" in done.stdout.splitlines()[-1]
