"""The Python in the documents runs as written: typed from the top, in one folder, each snippet by itself.

The folder holds what a reader has: pictures of his own, and the bundles that the documents' commands make. Bundles of
full size are stood in for by small ones that take the same inputs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_deploy.bundle import Bundle
from mmms_deploy.bundle.contract import ModalitySpec
from tests.support.demos import small_as_demo
from tests.support.documents import ORIGINALS, Block, blocks, docstring_examples
from tests.support.paths import ROOT
from tests.support.toy import write_toy

SNIPPETS = {
    **{path.relative_to(ROOT).as_posix(): found for path in ORIGINALS if (found := blocks(path, "python"))},
    "docstrings": docstring_examples(),
}
"""The Python of every document, and of the package's docstrings."""

ELSEWHERE = {"docs/export.md": "tests/export/test_exporter.py", "docs/foreign.md": "tests/export/pair/conftest.py"}
"""Documents whose Python takes long and runs where a test needs what it makes anyway."""

RUNNER = """
import runpy, sys
for file in sys.argv[1:]:
    print("running", file, flush=True)
    runpy.run_path(file, run_name="__main__")
"""
SIZE = (480, 640)
"""Height and width of the reader's photograph."""


@pytest.fixture
def folder(paint: Bundle, tmp_path: Path) -> Path:
    """A reader's folder."""
    height, width = SIZE
    rows, columns = np.mgrid[:height, :width]
    picture = np.stack([rows // 2, columns // 3, np.hypot(rows - 240, columns - 320) % 256], axis=2).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "photo.jpg")
    for name in ("thermal.png", "better.png"):
        Image.fromarray(picture[..., 2]).save(tmp_path / name)
    (tmp_path / "photos" / "images").mkdir(parents=True)
    (tmp_path / "photos" / "masks").mkdir()
    Image.fromarray(picture).save(tmp_path / "photos" / "images" / "one.jpg")
    Image.fromarray((np.hypot(rows - 240, columns - 320) < 100).astype(np.uint8)).save(
        tmp_path / "photos" / "masks" / "one.png"
    )
    small_as_demo(tmp_path)
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "demo").symlink_to(paint.path)
    write_toy(tmp_path / "bundles" / "demo-thermal", modalities=(ModalitySpec(name="thermal", optional=True),))
    write_toy(tmp_path / "bundles" / "provider", size=(224, 224), backbone=(160, 28, 28))
    return tmp_path


def written(found: list[Block], folder: Path) -> list[Path]:
    """Write snippets to files, with the numbers of their lines in the document."""
    files = []
    for block in found:
        name = f"{block.document.replace('/', '_').replace('.', '_')}_{block.line}.py"
        file = folder / name
        file.write_text("\n" * (block.line - 1) + block.text)
        files.append(file)
    return files


def test_every_document_was_searched() -> None:
    assert {"README.md", "docs/session.md", "docs/engines.md", "docs/export.md", "docs/datasets.md"} <= set(SNIPPETS)
    assert SNIPPETS["docstrings"]
    for name, module in ELSEWHERE.items():
        assert f'"{Path(name).name}"' in (ROOT / module).read_text()


@pytest.mark.parametrize("name", [name for name in SNIPPETS if name not in ELSEWHERE])
def test_python_runs_as_written(name: str, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    files = written(SNIPPETS[name], tmp_path_factory.mktemp("snippets"))
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, *map(str, files)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_type_checker_takes_the_snippets_and_the_examples(tmp_path: Path) -> None:
    """As a user's does who is as strict as mypy can be; functions of a snippet need no annotations."""
    pytest.importorskip("mypy", reason="checking types needs the extra test")
    notebook = json.loads((ROOT / "examples" / "notebook.ipynb").read_text())
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    cells = Block("examples/notebook.ipynb", "python", 1, "\n\n".join(code))
    files = [file for found in [*SNIPPETS.values(), [cells]] for file in written(found, tmp_path)]
    files += sorted((ROOT / "examples").glob("*.py"))
    assert len(files) > 15
    options = ["--strict", "--allow-untyped-defs", "--allow-untyped-calls", "--no-error-summary"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *map(str, files)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
