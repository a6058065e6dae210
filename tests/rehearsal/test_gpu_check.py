"""``benchmarks/gpu_check.py`` on a rehearsed GPU host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmms_deploy.bundle import Precision
from tests.support.paths import ROOT
from tests.support.rehearsal import TENSORRT, environment, run
from tests.support.toy import write_toy


def test_step_by_step(tmp_path: Path) -> None:
    bundle = write_toy(tmp_path / "both", precisions=(Precision.FP32, Precision.FP16)).path
    out, env = tmp_path / "out", environment(tmp_path / "cache")

    def check(*options: object, **variables: str) -> tuple[str, dict[str, Any]]:
        done = run("benchmarks/gpu_check.py", bundle, "--out", out, *options, env={**env, **variables})
        assert done.returncode == 0, done.stdout + done.stderr
        report = json.loads((out / "gpu-check.json").read_text())
        return done.stdout, {entry["name"]: entry for entry in report["steps"]}

    _, steps = check("--only", "build:*", "--only", "replay:*")
    assert [name for name, entry in steps.items() if entry["state"] == "passed"] == [
        "build:both",
        *(f"replay:both:{e}:{p}" for e in ("tensorrt", "onnxruntime-cuda") for p in ("fp16", "fp32")),
    ]
    assert {entry["state"] for name, entry in steps.items() if name.startswith("bench:")} == {"not run"}
    first = steps["build:both"]
    text, steps = check("--resume", "--only", "doctor", "--only", "build:*", "--only", "bench:*:onnxruntime-cuda:fp32")
    assert "build:both" not in text, "it passed"
    assert steps["build:both"] == first
    assert steps["doctor"]["results"]["works"]
    assert steps["bench:both:onnxruntime-cuda:fp32"]["results"]["engine"]["device"] == "cuda"
    page = (out / "gpu-check.html").read_text()
    assert "NVIDIA H200 (rehearsal)" in page
    assert "Not run yet: bench:both:tensorrt:fp16" in page
    for place in (str(ROOT), str(tmp_path)):
        assert place not in page
        assert place not in json.dumps(steps)
    text, _ = check("--resume", "--only", "build:*", "--copy-to", tmp_path / "copy")
    assert "build:both" not in text, "there is nothing left to do"
    assert (tmp_path / "copy" / "gpu-check.json").read_bytes() == (out / "gpu-check.json").read_bytes()
    # Without TensorRT, its steps say so, and the others are as they were.
    text, steps = check("--resume", "--only", "bench:*:fp16", "--minutes", "0.01", **{TENSORRT: "off"})
    assert "the time is up before bench:both:tensorrt:fp16" in text
    text, steps = check("--resume", "--only", "bench:*:tensorrt:fp16", **{TENSORRT: "off"})
    assert steps["bench:both:tensorrt:fp16"]["state"] == "skipped"
    assert "TensorRT is not installed" in steps["bench:both:tensorrt:fp16"]["missing"]
    assert steps["build:both"]["state"] == "passed"
