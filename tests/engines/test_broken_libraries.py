"""An engine whose library fails when it is imported, for whatever reason, is one that is not chosen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmms_deploy.bundle import Bundle
from tests.support.paths import ROOT

CLICK = """
import sys, warnings
import numpy as np
from mmms_deploy import Session
from mmms_deploy.commands.doctor import main
warnings.simplefilter("ignore")
with Session(sys.argv[1], threads=1) as session:
    session.set_image(np.zeros((30, 40, 3), np.uint8))
    session.click(3, 4)
    print(session.engine.name)
main([], standalone_mode=False)
"""


@pytest.mark.parametrize(
    "failure",
    [
        "raise RuntimeError('Could not determine home directory.')",
        "raise SystemExit(3)",
        "import no_such_module",
        "1 +",
    ],
)
def test_another_engine_is_taken(paint: Bundle, tmp_path: Path, failure: str) -> None:
    broken = tmp_path / "openvino"
    broken.mkdir()
    (broken / "__init__.py").write_text(failure + "\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", CLICK, str(paint.path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout.splitlines()[0] == "onnxruntime"
    assert "cannot be imported" in done.stdout
