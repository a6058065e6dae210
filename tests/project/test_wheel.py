"""The run-time half as its users install it: from a wheel and from a clone, in fresh environments, without torch, timm
and onnx; and the demo, which needs nothing else."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Bundle
from mmms_deploy.bundle.packed import CHECKPOINTS
from mmms_deploy.page.runtime import FOLDER
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
NEVER = ("torch", "timm", "onnx ", "polygraphy", "opencv", "scipy", "scikit-image")
"""What [cpu] alone does not bring."""


def run(*command: str | Path, code: int = 0, cwd: Path = ROOT.parent, **environment: str) -> str:
    # Nothing of this environment may be imported, and nothing is kept outside of the test's folders.
    variables = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), **environment}
    done = subprocess.run(
        [str(c) for c in command],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**pip_settings(), **variables},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def pip_settings() -> dict[str, str]:
    """How this machine reaches an index."""
    names = ("PIP_", "HTTP", "HTTPS", "NO_PROXY", "SSL_", "REQUESTS_")
    return {name: value for name, value in os.environ.items() if name.upper().startswith(names)}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "build", "--outdir", out, ROOT)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (file,) = built.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def from_wheel(wheel: Path, tmp_path_factory) -> Path:
    return environment(tmp_path_factory.mktemp("wheel-env"), f"{wheel}[cpu]")


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
    shipped = {path.name for path in (ROOT / "mmms_deploy" / "demo").iterdir() if path.suffix not in (".py", ".md", "")}
    checkpoints = {f"{name}-checkpoint.{end}" for name in CHECKPOINTS for end in ("tar.xz", "sha256")}
    assert shipped == {"bundles.tar.xz", "demo.sha256", "demo-small.sha256"} | checkpoints
    assert {f"mmms_deploy/demo/{name}" for name in shipped} <= set(names)
    assert "mmms_deploy/engines/tensorrt/surface/" in {name.rpartition("/")[0] + "/" for name in names}
    tops = ("tests/", "training/", "benchmarks/", "export/", "engines/", "docs/", "tools/")
    assert not [name for name in names if name.startswith(tops)]
    assert wheel.stat().st_size < 60e6


def test_the_wheel_holds_every_document(wheel) -> None:
    archive = zipfile.ZipFile(wheel)
    names = set(archive.namelist())
    root = "mmms_deploy/documents/"
    documents = {f"{root}docs/{path.relative_to(ROOT / 'docs').as_posix()}" for path in (ROOT / "docs").rglob("*.*")}
    examples = {f"{root}examples/{path.name}" for path in (ROOT / "examples").glob("*.*")}
    assert documents | examples | {f"{root}README.md", f"{root}CHANGELOG.md"} <= names
    assert archive.read(f"{root}docs/engines.md") == (ROOT / "docs" / "engines.md").read_bytes()


def test_the_wheel_holds_the_page_and_its_runtime_where_it_was_fetched(wheel) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [path for path in (ROOT / "mmms_deploy" / "page" / "files").rglob("*") if path.is_file()]
    assert {path.relative_to(ROOT).as_posix() for path in files} <= names
    runtime = [path for path in FOLDER.glob("*") if path.is_file()]
    packed = {name for name in names if name.startswith("mmms_deploy/page/runtime/")}
    assert packed == {path.relative_to(ROOT).as_posix() for path in runtime}


def test_the_page_of_the_package_stands_alone(wheel) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    text = archive.read(name).decode()
    assert "Description-Content-Type: text/markdown" in text
    assert "Project-URL: " in text
    assert "## The first minute" in text
    assert not re.search(r"\]\((?!https?:|#)", text)


def test_a_source_distribution_holds_what_a_wheel_is_made_of(built) -> None:
    """The wheel was built from it."""
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isreg()}
    assert {"setup.py", "pyproject.toml", "README.md", "mmms_deploy/demo/bundles.tar.xz"} <= names
    assert "mmms_deploy/documents/docs/engines.md" in names


def test_run_time_half(from_wheel, wheel, tmp_path, paint: Bundle, photo) -> None:
    python = from_wheel
    listed = run(python, "-m", "pip", "list", "--disable-pip-version-check").lower()
    assert not [name for name in NEVER if f"\n{name}" in listed]
    assert "(40, 60)" in run(python, "-c", CLICK, paint.path, photo)
    assert "passed" in run(python.parent / "mmms-verify", paint.path).lower()
    assert "works" in run(python.parent / "mmms-doctor")
    mask = tmp_path / "mask.png"
    run(python.parent / "mmms-segment", paint.path, photo, "--pos", "10,10", "--out", mask)
    assert Image.open(mask).size == (60, 40)
    text = run(python.parent / "mmms-export", "--ckpt", "demo", "--out", tmp_path / "new", code=1)
    assert f'pip install "{wheel}[export,cpu]"' in text


def test_the_demo_needs_nothing_else(from_wheel, tmp_path, photo) -> None:
    """In a folder of its own, where no bundle lies, with a cache of its own."""
    commands, cache = from_wheel.parent, str(tmp_path / "cache")

    def demo(command: str, *arguments: str | Path) -> str:
        return run(commands / command, "demo-small", *arguments, cwd=tmp_path, MMMS_DEPLOY_CACHE=cache)

    demo("mmms-segment", photo, "--pos", "10,10", "--out", tmp_path / "mask.png")
    assert Image.open(tmp_path / "mask.png").size == (60, 40)
    (unpacked,) = (tmp_path / "cache" / "bundles").iterdir()
    assert unpacked.name.startswith("demo-small-")
    assert not (tmp_path / "cache" / "checkpoints").exists()
    assert "passed" in demo("mmms-verify")
    assert "report.html" in demo("mmms-eval", "--limit", "1", "--max-clicks", "2")
    demo("mmms-bench", "--images", "1", "--clicks", "2", "--json", tmp_path / "bench.json")
    assert json.loads((tmp_path / "bench.json").read_text())
    assert "(40, 60)" in run(from_wheel, "-c", CLICK, "demo-small", photo, cwd=tmp_path, MMMS_DEPLOY_CACHE="off")
    shown = run(commands / "mmms-doctor", "--docs", "engines", cwd=tmp_path)
    assert "site-packages" in shown.splitlines()[0]
    assert "# Engines" in shown


def test_from_a_clone(tmp_path, photo) -> None:
    """As the README says: ``pip install ".[cpu]"``; the clone holds what git tracks."""
    clone = tmp_path / "clone"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, clone / name, follow_symlinks=False)
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "--disable-pip-version-check", "-q", ".[cpu]", cwd=clone)
    listed = run(python, "-m", "pip", "list", "--disable-pip-version-check").lower()
    assert not [name for name in NEVER if f"\n{name}" in listed]
    overlay = tmp_path / "overlay.png"
    run(python.parent / "mmms-segment", "demo-small", photo, "--pos", "10,10", "--overlay", overlay, cwd=tmp_path)
    assert overlay.is_file()
    text = run(python.parent / "mmms-export", "--ckpt", "demo", "--out", "bundles/new", code=1, cwd=tmp_path)
    (command,) = re.findall(r"pip install .*", text)
    assert shlex.split(command) == ["pip", "install", f"{clone}[export,cpu]"]


def test_base_install_says_what_is_missing(wheel, tmp_path, paint: Bundle, photo) -> None:
    """And the command that it gives is the one that the other tests install with."""
    python = environment(tmp_path / "env", str(wheel))
    text = run(python.parent / "mmms-segment", paint.path, photo, "--pos", "10,10", "--out", tmp_path / "m.png", code=1)
    assert "Traceback" not in text
    (command,) = set(re.findall(r"pip install .*", text))
    assert shlex.split(command) == ["pip", "install", f"{wheel}[cpu]"]
