"""The scripts beside the package: they start, refuse a peer that changed, and judge their targets correctly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def scripts(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.mark.parametrize(("script", "option"), [("cpu.py", "--prepare"), ("operators.py", "--precision")])
def test_help(script, option) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / script), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert option in done.stdout


def test_operators_of_a_stage(paint) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "operators.py"), str(paint.path), "--engine", "onnxruntime"]
    done = subprocess.run([*command, "--threads", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "paint, stage click, onnxruntime fp32, 1 threads" in done.stdout
    done = subprocess.run([*command, "--stage", "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "has the stages image, click" in done.stderr


def test_time_by_kind() -> None:
    from operators import Node, table

    text = table([Node("a", "Conv", 3.0), Node("b", "Conv", 1.0), Node("c", "Add", 4.0), Node("d", "Nop", 0.0)], 2)
    assert "| Conv | 2 | 4.00 | 50.0 % |" in text
    assert "| all | 4 | 8.00 | |" in text
    assert "Nop" not in text
    assert text.index("| c | Add | 4.00 |") < text.index("| a | Conv | 3.00 |")
    assert "| b |" not in text


def test_the_package_does_not_import_them() -> None:
    for path in (ROOT / "mmms_deploy").rglob("*.py"):
        text = path.read_text()
        assert "import benchmarks" not in text
        assert "from benchmarks" not in text


def test_a_peer_that_cannot_be_had_is_an_error_of_its_own(tmp_path, monkeypatch) -> None:
    import peers

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(peers.PeerError, match="HF_HUB_OFFLINE=1 forbids"):
        peers.fetch(tmp_path)


class StandIn:
    """A variant that only notes what it is asked."""

    def __init__(self, key: str, seen: list, *, fails: bool = False) -> None:
        from variants import Row

        self.row = Row(key=key, label=key, inputs=key.partition("/")[0])
        self.seen = seen
        self.fails = fails
        self.closed = False

    def set_image(self, picture) -> float:
        self.seen.append((self.row.key, "image"))
        return 5.0

    def click(self, point, *, record: bool) -> None:
        if self.fails:
            raise RuntimeError("out of order")
        if record:
            self.row.click.append(1.0)

    def probability(self):
        return np.full((2, 2), 0.5 if self.row.key.endswith("eager") else 0.75)

    def close(self) -> None:
        self.closed = True


def test_turns(monkeypatch, paint) -> None:
    import turns

    from mmms_deploy.bench.workload import make_pictures

    monkeypatch.setattr(turns, "SETTLE", 0.0)
    seen: list = []
    variants = [StandIn("rgb/eager", seen), StandIn("rgb/a", seen), StandIn("other/b", seen)]
    turns.measure_in_turns(variants, make_pictures(paint.manifest, 3, 7, (10, 12)), lambda text: None)
    assert [len(v.row.image) for v in variants] == [3, 3, 3]
    assert [len(v.row.click) for v in variants] == [21, 21, 21]
    assert [v.row.difference for v in variants] == [None, 0.25, None]  # another network answers something else
    assert all(v.closed for v in variants)
    after_warm_up = [key for key, _ in seen[3:]]
    assert {after_warm_up[0], after_warm_up[3], after_warm_up[6]} == {"rgb/eager", "rgb/a", "other/b"}


def test_variants_are_closed_when_one_fails(paint) -> None:
    import turns

    from mmms_deploy.bench.workload import make_pictures

    variants = [StandIn("rgb/a", []), StandIn("rgb/b", [], fails=True)]
    with pytest.raises(RuntimeError, match="out of order"):
        turns.measure_in_turns(variants, make_pictures(paint.manifest, 1, 2, (10, 12)), lambda text: None)
    assert all(v.closed for v in variants)


def test_rows_without_a_second_predictor_say_so() -> None:
    from clicks import DATA, REFERENCE, Run, _row

    data = next(data for data in DATA if data.ckpt == "sam2-tiny")
    run = Run(data, *REFERENCE)
    assert run.arguments(Path("bundle")) == []
    assert "--against" in Run(data, "openvino", "bf16").arguments(Path("bundle"))
    targets = [{"target": one, "noc": 2.0, "failure_rate": 0.0} for one in (0.8, 0.85, 0.9)]
    spent = {"click": 0.1, "click_with_simulation": 0.2, "image": 1.0}
    found = {"targets": targets, "curve": {"iou": [0.5] * 20}, "time": spent, "engine": "ONNX Runtime on cpu, fp32"}
    assert "| reference |  | 1000 / 100.0 / 100.0 |" in _row(run, found)
    assert _row(run, {**found, "time": None}).endswith("| reference |  |  |"), "the machine was busy"


def test_clicks_of_the_networks_of_others(tmp_path) -> None:
    from clicks import foreign_clicks, kept_runs, markdown

    file = tmp_path / "clicks.json"
    assert "Not counted yet" in "\n".join(foreign_clicks(file))
    targets = [{"target": one, "noc": 1.5, "failure_rate": 0.0} for one in (0.8, 0.85, 0.9)]
    spent = {"click": 0.1, "click_with_simulation": 0.2, "image": 1.0}
    result = {"targets": targets, "curve": {"iou": [0.5] * 20}, "time": spent, "engine": "ONNX", "objects": 68}
    runs = {"voc-sam2-onnxruntime-fp32": result, "voc-onnxruntime-fp32": result, "unknown-onnxruntime-fp32": result}
    file.write_text(json.dumps({"runs": runs, "surfaces": {}}))
    lines = foreign_clicks(file)
    assert [line for line in lines if line.startswith("###")] == ["### VOC objects: `sam2-tiny`, 68 objects"]
    kept = kept_runs(file)
    assert [run.key for run, _ in kept] == ["voc-sam2-onnxruntime-fp32", "voc-onnxruntime-fp32"]
    earlier = "Of an earlier run, with the libraries that stand in its rows: VOC objects: demo-small."
    assert earlier in markdown(kept, [], only=["voc-sam2"])
    assert "Of an earlier run" not in markdown(kept, [])
