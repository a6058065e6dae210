"""``make gpu-check``: its steps, its report, and what it says without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mmms_deploy.engines.devices import Gpu, Probe

ROOT = Path(__file__).parents[2]
GPU = Gpu(ordinal=0, name="NVIDIA H200", capability=(9, 0), memory=1 << 37, cuda="13.0")


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_without_a_gpu(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_check.py"), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2, done.stderr
    assert "no GPU can be checked" in done.stderr
    assert not (tmp_path / "out").exists()


def test_steps_that_pass_fail_and_hang(tmp_path: Path) -> None:
    from gpu_check import run

    file = tmp_path / "facts.json"
    wrote = run("writes", [sys.executable, "-c", f"open({str(file)!r}, 'w').write('[1]'); print('said')"], 60, file)
    assert (wrote.passed, wrote.results, wrote.output) == (True, [1], "said\n")
    failed = run("fails", [sys.executable, "-c", "import os; os.abort()"], 60, tmp_path / "none.json")
    assert (failed.passed, failed.results) == (False, None)
    hung = run("hangs", [sys.executable, "-c", "import time; time.sleep(60)"], 0.5)
    assert not hung.passed
    assert "stopped after" in hung.output


def test_no_test_at_all_is_no_success(tmp_path: Path) -> None:
    from gpu_check import run

    junit = tmp_path / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", f"--junitxml={junit}", "tests/test_geometry.py"]
    step = run("tests", command, 120, junit)
    assert not step.passed
    assert step.results == {"passed": 0, "failed": [], "skipped": 0}


def test_the_page(tmp_path: Path) -> None:
    from gpu_check import Step, describe, page

    plan = {"stage": "click", "precision": "fp16", "matrices": {"fp16": 82}, "fused": 8, "attentions": 8}
    plans = {"plans": [{**plan, "kernels": 129, "plan_bytes": 39_000_000, "seconds": 60.0}]}
    steps = [
        Step(
            "tests",
            "pytest -m gpu",
            False,
            3.0,
            "\x1b[31mE   1 < 0\x1b[0m",
            {"passed": 2, "failed": ["a::b"], "skipped": 1},
        ),
        Step("plans of <demo>", "mmms-build", True, 60.0, "", plans),
    ]
    report = describe(Probe((GPU,), driver="580.65.06", cuda="13.0", runtime="13.5"), steps)
    assert report["passed"] is False
    assert json.loads(json.dumps(report))["steps"][1]["results"] == plans
    html = page(report)
    ElementTree.fromstring(html.replace("<!DOCTYPE html>", ""))
    for text in ("NVIDIA H200", "a::b", "2 passed, 1 failed, 1 skipped", "8 of 8", "82 fp16", "plans of &lt;demo&gt;"):
        assert text in html
