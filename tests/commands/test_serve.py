"""``mmms-serve``, and its subcommands for Triton."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmms_deploy.bundle import Bundle
from mmms_deploy.commands import serve
from mmms_deploy.doors.triton.server import this_python
from tests.support.invoke import invoke
from tests.support.triton import read_pbtxt


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parameters(config: Path) -> dict[str, str]:
    return {one["key"]: one["value"]["string_value"] for one in read_pbtxt(config.read_text())["parameters"]}


def test_a_model_repository(folder: Path, paint: Bundle) -> None:
    done = invoke(
        serve.main,
        *("triton", paint.path, "--out", "models", "--name", "net", "--engine", "onnxruntime", "--threads", 2),
        *("--set", "zoom=true", "--set", "store_mib=12", "--this-python", "--idle", "90.5", "--no-copy"),
    )
    assert (done.exit_code, done.stderr.count("warning: the weights of")) == (0, 1), done.output
    assert "net, for Triton's python backend" in done.stdout
    assert done.stdout.endswith("Serve it: tritonserver --model-repository=models\n")
    assert parameters(folder / "models" / "net" / "config.pbtxt") == {
        "bundle": str(paint.path.resolve()),
        "python_path": ":".join(map(str, this_python())),
        "engine": "onnxruntime",
        "threads": "2",
        "zoom": "true",
        "store_mib": "12",
    }
    again = invoke(serve.main, "triton", paint.path, "--out", "models")
    assert (again.exit_code, "pass --overwrite" in again.stderr) == (1, True)
    done = invoke(serve.main, "triton", paint.path, "--out", "models", "--overwrite", "--form", "tensorrt")
    assert done.exit_code == 0
    assert "note: the graphs are not compiled yet: run models/compile.sh" in done.stderr
    assert json.loads((folder / "models" / "mmms-deploy.json").read_text())["form"] == "tensorrt"


WRONG = [
    ("--set", "zoom"),
    ("--set", "zom=true"),
    ("--set", "store_mib=many"),
    ("--name", "a/b"),
    ("--form", "torch"),
    ("--form", "onnx", "--engine", "openvino"),
    ("--form", "onnx", "--set", "zoom=true"),
    ("--form", "onnx", "--this-python"),
    ("--form", "tensorrt", "--precision", "fp8"),
    ("--sequences", "0"),
]


@pytest.mark.parametrize("options", WRONG, ids=" ".join)
def test_wrong_usage(folder: Path, paint: Bundle, options: tuple[str, ...]) -> None:
    done = invoke(serve.main, "triton", paint.path, "--out", "models", *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert list(folder.iterdir()) == []


def test_errors_have_the_words_of_the_command_line(folder: Path, proposing: Bundle, paint: Bundle) -> None:
    done = invoke(serve.main, "triton", proposing.path, "--out", "models", "--form", "onnx")
    assert (done.exit_code, "take --form python" in done.stderr) == (1, True)
    done = invoke(serve.main, "triton", "nothing", "--out", "models")
    assert (done.exit_code, "no bundle at nothing" in done.stderr) == (1, True)
    (folder / "full").mkdir()
    (folder / "full" / "photo.jpg").touch()
    done = invoke(serve.main, "triton", paint.path, "--out", "full", "--overwrite")
    assert (done.exit_code, "photo.jpg" in done.stderr, "with --out" in done.stderr) == (1, True, True)
    assert [path.name for path in folder.rglob("*")] == ["full", "photo.jpg"]


def test_a_server_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmms_deploy.doors.triton import server

    monkeypatch.setattr(server, "find_spec", lambda name: None)
    done = invoke(serve.main, "triton-run", "models")
    assert (done.exit_code, 'pip install "mmms-deploy[cpu,triton]"' in done.stderr) == (1, True)


@pytest.mark.parametrize("words", [(), ("triton",), ("triton-run",)])
def test_help_and_version(words: tuple[str, ...]) -> None:
    assert "Examples:" in invoke(serve.main, *words, "-h").stdout
    assert "version" in invoke(serve.main, *words, "--version").stdout
    assert invoke(serve.main, *words).exit_code == 2
    assert invoke(serve.main, "tritton").exit_code == 2
