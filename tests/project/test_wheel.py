"""The run-time half as its users install it: from a wheel, in a fresh environment, without torch, timm and onnx."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Bundle
from tests.support.paths import ROOT

pytestmark = pytest.mark.wheel

CLICK = """
import sys
from mmms_deploy import Session
with Session(sys.argv[1]) as session:
    session.set_image(sys.argv[2])
    result = session.click(10, 10)
    print(result.mask.shape, session.engine.providers)
heavy = {"torch", "timm", "onnx", "onnxscript", "safetensors", "skimage"} & set(sys.modules)
assert not heavy, heavy
"""


def run(*command: str | Path, code: int = 0) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, cwd=ROOT.parent)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", out, ROOT)
    (file,) = out.glob("*.whl")
    return file


def environment(folder: Path, *requirements: str) -> Path:
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--disable-pip-version-check", "-q", *requirements)
    return python


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(path)
    return path


def test_the_wheel_holds_what_it_promises(wheel) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "mmms_deploy/py.typed" in names
    assert {f"mmms_deploy/demo/{name}.safetensors" for name in ("demo", "demo-thermal")} <= set(names)
    assert "mmms_deploy/engines/tensorrt/surface/" in {name.rpartition("/")[0] + "/" for name in names}
    assert not [n for n in names if n.startswith(("tests/", "training/", "benchmarks/", "export/", "engines/"))]
    assert wheel.stat().st_size < 22e6


def test_run_time_half(wheel, tmp_path, paint: Bundle, photo) -> None:
    python = environment(tmp_path / "env", f"{wheel}[cpu]")
    listed = run(python, "-m", "pip", "list", "--disable-pip-version-check").lower()
    assert not [name for name in ("torch", "timm", "onnx ", "polygraphy") if f"\n{name}" in listed]
    assert "(40, 60)" in run(python, "-c", CLICK, paint.path, photo)
    assert "passed" in run(python.parent / "mmms-verify", paint.path).lower()
    assert "works" in run(python.parent / "mmms-doctor")
    mask = tmp_path / "mask.png"
    run(python.parent / "mmms-segment", paint.path, photo, "--pos", "10,10", "--out", mask)
    assert Image.open(mask).size == (60, 40)
    assert 'pip install "mmms-deploy[export,cpu]"' in run(
        python.parent / "mmms-export", "--ckpt", "demo", "--out", "bundles/new", code=1
    )


def test_base_install_says_what_is_missing(wheel, tmp_path, paint: Bundle, photo) -> None:
    python = environment(tmp_path / "env", str(wheel))
    text = run(python.parent / "mmms-segment", paint.path, photo, "--pos", "10,10", "--out", tmp_path / "m.png", code=1)
    assert 'pip install "mmms-deploy[cpu]"' in text
    assert "Traceback" not in text
