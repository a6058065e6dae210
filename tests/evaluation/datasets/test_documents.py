"""docs/datasets.md says what the readers do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmms_deploy.evaluation.datasets import DATASETS, parse_dataset_argument
from tests.support.dataset_trees import RGB, labels, save
from tests.support.paths import ROOT

TEXT = (ROOT / "docs" / "datasets.md").read_text()
SECTIONS = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("kind", DATASETS)
def test_every_kind_is_described(kind: str) -> None:
    section = SECTIONS[kind]
    assert f"```text\n{DATASETS[kind].tree}\n```" in section
    assert re.search(r"https?://", section) or kind in ("folder", "drawn")
    assert "**Void**" in section
    assert "**Surface**" in section or "**Modalities**" in section
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| `?([^|`]*)`? \|$", section, re.MULTILINE))
    expected = {}
    for option in DATASETS[kind].options:
        default = option.default
        expected[option.name] = ",".join(default) if isinstance(default, tuple) else str(default or "").strip()
        if default == 0:
            expected[option.name] = "0"
    assert {name: value.strip() for name, value in rows.items()} == expected
    assert all(f"`{choice}`" in section for option in DATASETS[kind].options for choice in option.choices)


def test_arguments_are_arguments() -> None:
    kinds = "|".join(DATASETS)
    found = re.findall(rf"(?:^|`)((?:{kinds})=[^\s`]+)", TEXT, re.MULTILINE)
    assert len(found) >= 6
    for text in found:
        argument = parse_dataset_argument(text)
        assert set(argument.options) <= {"name", *(option.name for option in DATASETS[argument.kind].options)}


def test_the_example_runs(tmp_path: Path) -> None:
    save(tmp_path / "photos" / "images" / "a.jpg", RGB)
    save(tmp_path / "photos" / "masks" / "a.png", labels(nw=3, se=255))
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["1 ('a',) ()", "a 3 216"]
