"""Commands on a GPU host where TensorRT has to compile first: they say so, show how far it is, can be interrupted."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from rich.console import Console

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.commands import display, segment, verify
from mmms_deploy.commands import eval as eval_command
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.select import choose
from mmms_deploy.errors import EngineUnavailableError
from tests.support import gpu_host
from tests.support.golden_cases import golden
from tests.support.gpu_host import GpuHost
from tests.support.invoke import invoke
from tests.support.terminal import Terminal
from tests.support.toy import write_toy


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[GpuHost]:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(tmp_path / "cache"))
    host = gpu_host.prepare(monkeypatch)
    yield host
    assert not host.cuda.leaked


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a user at a terminal sees of progress."""
    seen = Terminal()
    console = Console(file=seen, force_terminal=True, width=100)
    for module in (display, segment, verify, eval_command):
        monkeypatch.setattr(module, "err_console", console, raising=False)
    return seen


@pytest.fixture
def bundle(tmp_path: Path, paint: Bundle) -> Bundle:
    return write_toy(tmp_path / "toy", golden=[golden(paint)])


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    Image.fromarray(np.full((40, 60, 3), 51, np.uint8)).save(folder / "images" / "0.png")
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:40] = 1
    Image.fromarray(mask).save(folder / "masks" / "0.png")
    return folder


def run(command: str, bundle: Bundle, picture: Path, *options: object) -> Result:
    if command == "segment":
        image, out = picture / "images" / "0.png", picture / "mask.png"
        return invoke(segment.main, bundle.path, image, "--pos", "20,20", "--out", out, "--overwrite", *options)
    if command == "verify":
        return invoke(verify.main, bundle.path, *options)
    data = f"folder={picture}:name=one:modalities=none"
    arguments: list[Any] = ["--dataset", data, "--out", picture / "out", "--max-clicks", 2]
    return invoke(eval_command.main, bundle.path, *arguments, *options)


@pytest.mark.parametrize("command", ["segment", "verify", "eval"])
def test_what_is_asked_for_by_name_shows_how_far_it_is(
    host: GpuHost,
    bundle: Bundle,
    picture: Path,
    terminal: io.StringIO,
    command: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    result = run(command, bundle, picture, "--engine", "tensorrt")
    assert result.exit_code == 0, result.output
    assert host.trt.builds == 2
    assert caplog.text.count("which can take minutes") == 1
    for stage in ("image", "click"):
        assert f"stage '{stage}': Building engine" in terminal.getvalue()


@pytest.mark.parametrize("command", ["segment", "verify", "eval"])
def test_what_is_left_open_compiles_nothing(host: GpuHost, bundle: Bundle, picture: Path, command: str) -> None:
    result = run(command, bundle, picture, "--device", "cuda")
    assert result.exit_code == 0, result.output
    assert host.trt.calls == []
    if command != "eval":
        assert f"mmms-build {bundle.path} compiles it" in result.stdout


@pytest.mark.parametrize("command", ["segment", "verify", "eval"])
def test_an_interrupt_while_it_compiles(host: GpuHost, bundle: Bundle, picture: Path, command: str) -> None:
    def interrupted(logger: object) -> bool:
        raise KeyboardInterrupt

    host.trt.fail = interrupted
    result = run(command, bundle, picture, "--engine", "tensorrt")
    assert result.exit_code == 130
    assert "error: interrupted" in result.stderr
    cache = Path(bundle.path.parent / "cache" / "tensorrt")
    assert [file.name for file in cache.iterdir()] == [".lock"]
    assert not (picture / "mask.png").exists()


def test_every_engine(host: GpuHost, tmp_path: Path, paint: Bundle, terminal: io.StringIO) -> None:
    both = write_toy(tmp_path / "both", precisions=(Precision.FP32, Precision.FP16), golden=[golden(paint)])
    result = invoke(verify.main, both.path, "--all-engines")
    assert result.exit_code == 0, result.output
    rows = [line.replace("│", " ").split()[:2] for line in result.stdout.splitlines() if "passed" in line]
    for engine in ("tensorrt", "onnxruntime-cuda", "onnxruntime"):
        assert [engine, "fp32"] in rows
        assert [engine, "fp16"] in rows
    assert "stage 'image': Building engine" in terminal.getvalue()
    assert host.trt.builds == 4
    assert choose(both, EngineRequest()).order[0].passed
    again = invoke(verify.main, both.path, "--all-engines")
    assert again.exit_code == 0, again.output
    assert host.trt.builds == 4, "what was compiled is kept"


def test_every_engine_but_the_one_that_fails(host: GpuHost, bundle: Bundle) -> None:
    host.trt.fails_with("Error Code 10: no implementation")
    host.broken = EngineUnavailableError("libcublas.so.13 is missing")
    result = invoke(verify.main, bundle.path, "--all-engines")
    assert result.exit_code == 1, "in fp32 each has to pass"
    assert "tensorrt and onnxruntime-cuda did not pass" in result.stderr
    for text in ("no implementation", "libcublas.so.13 is missing", "passed"):
        assert text in result.stdout
    chosen = choose(bundle, EngineRequest(device="cpu")).order[0]
    assert chosen.passed, "the verdicts of the others are kept"
