"""The table of all families: what stands in it, what stays in it, and what is measured again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from mmms_deploy.bundle import Bundle
from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.engines.machine import describe_machine
from tests.support.bench_reports import MACHINE
from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def variant(key: str, label: str, *, precision: str = "fp32", click: float = 0.0, **fields: Any) -> Any:
    from variants import Row

    times = {"image": [10 * click], "click": [click, 3 * click, click]} if click else {}
    return Row(key, label, "net", ours="eager" not in key, precision=precision, **(times | fields))


def measured(*, passed: bool = True, **fields: Any) -> Any:
    from families_table import FamilyRow, Replay

    variants = [
        variant("net/eager", "PyTorch eager, whole", click=400.0),
        variant("net/onnxruntime-fp32", "ONNX Runtime", click=90.0, host=[2.5], difference=2e-4),
        variant("net/openvino-fp32", "OpenVINO float32", click=80.0, difference=1e-4),
        variant("net/openvino-bf16", "OpenVINO BF16", click=40.0, precision="bf16", difference=3e-2),
    ]
    replays = {"net/openvino-bf16": Replay(passed, 0.97 if passed else 0.83, 0.95, telling=True)}
    facts = {"parameters": 97.1, "image": 0.9, "click": 156.3, "gain": 1.01, "others": 0.1, "replays": replays}
    return FamilyRow(**({"key": "net", "name": "Net", "whole": True, "variants": variants} | facts | fields))


def page(*rows: Any) -> list[str]:
    from families_table import markdown

    return markdown([part(*rows)], (1080, 1920), ["## Clicks"]).splitlines()


def part(*rows: Any, **changes: Any) -> Any:
    from families_table import Part

    machine = json.loads(json.dumps(to_builtins(MACHINE))) | changes
    return Part(machine, {"threads": 2, "images": 4, "clicks": 10}, "2026-01-02T03:04:05+00:00", list(rows))


class TestTheTable:
    def test_the_best_engine_beside_pytorch(self) -> None:
        lines = page(measured())
        numbers = "97.1 | 0.9 | 156.3 | 1.01x | OpenVINO BF16 | 400 | 40.0 | whole | 400 | 0.10 | 3e-02"
        assert f"| Net | {numbers} |" in lines
        assert (
            "| Net | OpenVINO BF16, **best** | 400 | 40.0 | 112 |  | 3e-02 | passed: 0.970 of at least 0.95 |" in lines
        )
        assert "| beside it | other programs kept at most 0.10 CPUs busy (Net) |" in lines

    def test_bf16_that_fails_its_replay_is_shown_and_not_the_best(self) -> None:
        lines = page(measured(passed=False))
        assert any("| 1.01x | OpenVINO float32 | 800 | 80.0 | whole | 400 | 0.20 | 1e-04 |" in line for line in lines)
        assert any("| OpenVINO BF16 | 400 | 40.0" in line and "**failed**: 0.830" in line for line in lines)

    def test_bf16_without_a_replay_is_not_the_best(self) -> None:
        assert measured(replays={}).best.label == "OpenVINO float32"

    def test_golden_masks_that_tell_nothing_judge_nothing(self) -> None:
        from families_table import Replay

        row = measured(replays={"net/openvino-bf16": Replay(False, 1.0, 0.95, telling=False)})
        assert row.best.label == "OpenVINO float32"
        assert any("not judged: all golden masks are empty or full" in line for line in page(row))

    def test_a_network_that_failed_stays_with_its_reason(self) -> None:
        from families_table import FamilyRow

        lines = page(measured(), FamilyRow("bad", "Bad", gain=2.0, why="its export failed: no | memory\nmore"))
        assert "| Bad |  |  |  | 2.00x | not measured: its export failed: no / memory |  |  |  |  |  |  |" in lines
        first = [line for line in lines if line.startswith(("| network | weights", "| Net | 97.1", "| Bad |"))]
        assert {line.count("|") for line in first} == {13}

    def test_a_network_without_pytorch(self) -> None:
        row = measured()
        row.variants[0] = variant("net/eager", "PyTorch eager", why="there is no network in PyTorch")
        lines = page(row)
        assert any("| OpenVINO BF16 | 400 | 40.0 |  |  |  | 3e-02 |" in line for line in lines)
        assert "| Net | PyTorch eager | not measured: there is no network in PyTorch | | | | |  |" in lines

    def test_every_machine_has_its_tables(self) -> None:
        from families_table import markdown

        parts = [part(measured()), part(measured(name="Other"), cpu="another processor")]
        lines = markdown(parts, (1080, 1920), []).splitlines()
        assert [line for line in lines if line.startswith("#")] == [
            "# Families",
            "## Machine 1",
            "### Every engine of machine 1",
            "## Machine 2",
            "### Every engine of machine 2",
        ]
        assert lines.index("| processor | another processor |") > lines.index("## Machine 2")
        assert "On 2 threads; 4 images of 1920 x 1080, 10 clicks on each." in lines

    def test_rows_as_json_and_back(self) -> None:
        from dataclasses import asdict

        from families_table import row_of

        row = measured()
        assert row_of(json.loads(json.dumps(asdict(row)))) == row


class StandIn:
    """A variant that answers at once."""

    def __init__(self, row: Any) -> None:
        self.row = row

    def set_image(self, picture: Any) -> float:
        return 5.0

    def click(self, point: Any, *, record: bool) -> None:
        if record:
            self.row.click.append(1.0)

    def probability(self) -> Any:
        return np.full((2, 2), 0.5 if self.row.key.endswith("/onnxruntime-fp32") else 0.75)

    def close(self) -> None:
        pass


class TestOneNetwork:
    def test_what_is_measured(self, monkeypatch: pytest.MonkeyPatch, paint: Bundle) -> None:
        import families
        import turns

        rows = [
            variant("net/eager", "PyTorch eager", why="there is no network in PyTorch"),
            variant("net/onnxruntime-fp32", "ONNX Runtime"),
            variant("net/openvino-fp32", "OpenVINO float32"),
        ]
        monkeypatch.setattr(turns, "SETTLE", 0.0)
        monkeypatch.setattr(families, "SIZE", (10, 12))
        monkeypatch.setattr(families, "bundle_of", lambda network, bundles: paint.path)
        monkeypatch.setattr(families, "open_network", lambda *given: ([StandIn(row) for row in rows[1:]], rows))
        said: list[str] = []
        settings = {"threads": 1, "images": 2, "clicks": 3}
        row = families.measure_here(families.Network("net", "Net", "RGB"), Path(), settings, said.append)
        assert row.why == ""
        assert [len(one.click) for one in row.variants] == [0, 6, 6]
        assert row.variants[2].difference == 0.25  # without PyTorch, from ONNX Runtime
        assert "PyTorch eager: there is no network in PyTorch" in said
        assert row.best is rows[1]

    def test_what_it_runs_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import families

        monkeypatch.setattr(families, "open_each", lambda pairs: pairs)
        wholes = {}
        for network in families.NETWORKS:
            _, (eager, *engines) = families.open_network(network, Path(), 1)
            wholes[network.key] = "whole" in eager.label
            assert [row.key.rpartition("/")[2] for row in engines] == [
                "onnxruntime-fp32",
                "openvino-fp32",
                "openvino-bf16",
            ]
        assert (wholes["simpleclick-b"], wholes["mfp-hrnet"], wholes["mmms"]) == (True, True, False)

    def test_it_is_replayed_as_it_is_opened(self, paint: Bundle) -> None:
        import families
        from variants import EngineVariant

        opened = EngineVariant(variant("net/onnxruntime-fp32", "ONNX Runtime"), paint.path, "onnxruntime", 1)
        try:
            found = families.replayed(paint.path, opened)
        finally:
            opened.close()
        assert found.iou >= found.limit == 0.99
        assert found.passed


class TestAllNetworks:
    @pytest.fixture
    def run(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
        """Runs the command on three networks; the second one cannot be measured, unless it is told otherwise."""
        import families

        networks = tuple(families.Network(key, key.upper(), "RGB", {"family": "onnx"}) for key in ("a", "b", "c"))
        monkeypatch.setattr(families, "NETWORKS", networks)

        def call(*arguments: str, failing: str = "b", stopped: str = "") -> tuple[int, list[str]]:
            seen: list[str] = []

            def measure(network: Any, *given: Any) -> Any:
                if network.key == stopped:
                    raise KeyboardInterrupt
                seen.append(network.key)
                if network.key == failing:
                    return families.unmeasured(network, "it failed")
                return measured(key=network.key, name=network.backbone)

            monkeypatch.setattr(families, "measure_alone", measure)
            return families.main(["--out", str(tmp_path), "--bundles", str(tmp_path / "bundles"), *arguments]), seen

        return call

    @staticmethod
    def table(folder: Path) -> dict[str, str]:
        parts = json.loads((folder / "families.json").read_text())["parts"]
        return {row["key"]: row["why"] for part in parts for row in part["rows"]}

    def test_a_network_that_cannot_be_measured_stays(self, run: Any, tmp_path: Path) -> None:
        assert run() == (1, ["a", "b", "c"])
        assert self.table(tmp_path) == {"a": "", "b": "it failed", "c": ""}
        assert "| B |  |  |  |  | not measured: it failed |" in (tmp_path / "families.md").read_text()

    def test_what_was_done_is_kept_and_taken_up(self, run: Any, tmp_path: Path) -> None:
        assert run(stopped="c") == (130, ["a", "b"])
        assert self.table(tmp_path) == {"a": "", "b": "it failed"}
        assert run("--resume", failing="") == (0, ["b", "c"])
        assert self.table(tmp_path) == {"a": "", "b": "", "c": ""}

    def test_one_is_measured_again(self, run: Any, tmp_path: Path) -> None:
        run()
        assert run("--networks", "b", "--add", failing="") == (0, ["b"])
        assert self.table(tmp_path) == {"a": "", "b": "", "c": ""}
        assert run("--networks", "b", failing="") == (0, ["b"])
        assert self.table(tmp_path) == {"b": ""}

    def test_rows_of_other_machines_and_settings_stay_apart(
        self, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import families

        run()
        assert run("--resume", "--clicks", "3", "--networks", "a", failing="") == (0, ["a"])
        other = msgspec.structs.replace(describe_machine(), cpu="Another CPU")
        monkeypatch.setattr(families, "describe_machine", lambda: other)
        assert run("--add", "--networks", "b", failing="") == (0, ["b"])
        parts = json.loads((tmp_path / "families.json").read_text())["parts"]
        assert [[row["key"] for row in part["rows"]] for part in parts] == [["a", "b", "c"], ["a"], ["b"]]
        assert [part["settings"]["clicks"] for part in parts] == [10, 3, 10]
        assert parts[2]["machine"]["cpu"] == "Another CPU"
        assert run("--networks", "c", failing="") == (0, ["c"]), "without --add a run begins anew"
        assert self.table(tmp_path) == {"c": ""}


class TestExporting:
    def test_bundles_that_exist_stay_and_failures_are_noted(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        import families

        there = {"family-b"}
        monkeypatch.setattr(families, "usable", lambda path: path.name in there)
        asked: list[str] = []

        def export(network: Any, path: Path, on_step: Any) -> Any:
            asked.append(path.name)
            on_step("a step")
            return type("Row", (), {"why": "no memory" if network.key == "a" else ""})

        monkeypatch.setattr(families, "export_alone", export)
        networks = [families.Network(key, key.upper(), "RGB", {"family": "onnx"}) for key in ("a", "b", "c")]
        assert families.prepare(networks, tmp_path, fresh=False) == 1
        assert asked == ["family-a", "family-c"]
        assert families.not_exported(tmp_path) == {"a": "no memory"}
        settings = {"threads": 1, "images": 1, "clicks": 1}
        row = families.measure_alone(networks[0], tmp_path, settings, lambda step: None)
        assert row.why == "its export failed: no memory"
        there.add("family-a")
        assert families.prepare(networks[:1], tmp_path, fresh=False) == 0
        assert families.not_exported(tmp_path) == {}

    def test_what_was_not_exported_is_counted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import families
        from splits import Counted

        network = families.Network("light", "Light", "RGB", {"family": "interformer"})
        counted = Counted("Light", 1.0, 30.0, 10.0, 2.0)
        monkeypatch.setattr(families, "count", lambda name, fields: counted)
        row = families.measure_alone(network, tmp_path, {}, lambda step: None)
        assert row.why == "it was not exported; --prepare does it"
        assert (row.parameters, row.image, row.click, row.gain) == (1.0, 30.0, 10.0, 4.0)

    def test_what_cannot_be_counted_keeps_its_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import families

        from mmms_deploy.errors import SizeError

        def refuse(name: str, fields: Any) -> Any:
            raise SizeError("network height 63", expected="a multiple of 16", fix="choose one")

        monkeypatch.setattr(families, "count", refuse)
        row = families.unmeasured(families.Network("bad", "Bad", "RGB", {"family": "mfp"}), "it failed")
        assert (row.why, row.whole, row.gain) == ("it failed", True, None)

    def test_every_family_is_in_the_table(self) -> None:
        import families

        from mmms_deploy.models.families import FAMILIES

        known = {network.overrides.get("family", "mmms") for network in families.NETWORKS}
        assert known == {*FAMILIES, "onnx"}
        assert set(families.WHOLE) < set(FAMILIES)
        bundles = [families.bundle_of(network, Path()) for network in families.NETWORKS]
        assert len(set(bundles)) == len(bundles)


def test_a_process_of_its_own(tmp_path: Path) -> None:
    from alone import run_alone

    script = tmp_path / "part.py"
    script.write_text('import sys\nprint("chatter")\nprint("3")\nprint(\'{"step": "one"}\')\nprint(sys.argv[1])\n')
    steps: list[str] = []
    assert run_alone([str(script), '{"row": {"a": 1}}'], steps.append) == {"row": {"a": 1}}
    assert steps == ["one"]
    script.write_text('import sys\nprint("torn", file=sys.stderr)\nsys.exit("no memory")\n')
    assert run_alone([str(script)], steps.append) == {"why": "the process ended with 1: no memory"}
