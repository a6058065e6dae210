"""The notebook runs, and what it stores is what it shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.demos import small_as_demo
from tests.support.paths import ROOT

NOTEBOOK = ROOT / "examples" / "notebook.ipynb"
MOST_BYTES = 300_000
"""With its pictures: a notebook is downloaded whole by whoever looks at it."""
RUNNING = ("ipykernel", "nbclient", "nbformat")
"""What running a notebook needs, from the extra ``test``."""


def shown(notebook: Any) -> list[tuple[int, str, list[str], str]]:
    """What every cell shows: its kinds, and printed text with every number replaced."""
    return [
        (number, output.output_type, sorted(output.get("data", {})), re.sub(r"[\d.,]+", "#", output.get("text", "")))
        for number, cell in enumerate(notebook.cells)
        for output in cell.get("outputs", [])
    ]


def test_it_runs_and_shows_what_it_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RUNNING:
        pytest.importorskip(name, reason=f"running a notebook needs {name}")
    import nbformat

    from tools.run_notebook import executed

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    demo = small_as_demo(tmp_path)
    stored = nbformat.read(NOTEBOOK, as_version=4)
    done = executed(stored, tmp_path)
    assert shown(done) == shown(stored)
    kinds = [kind for _, _, data, _ in shown(done) for kind in data]
    assert kinds.count("image/png") >= 2
    assert kinds.count("text/html") >= 2
    assert list(tmp_path.iterdir()) == [demo]


def test_it_is_small_and_says_nothing_about_a_machine() -> None:
    text = NOTEBOOK.read_text()
    assert len(text) < MOST_BYTES
    assert set(re.findall(r"/(?:root|home|tmp|work)/[\w.-]+", text)) <= {"/home/user"}
