"""``make gpu-check``: its steps, its verdicts, its report, and its messages where something is missing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from mmms_deploy.bench.report import BundleFacts, EngineFacts, Metric, Report
from mmms_deploy.bundle import Bundle
from mmms_deploy.errors import MMMSDeployError
from tests.support.bench_reports import report
from tests.support.paths import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu_check.py"
MACHINE = {"gpus": ["NVIDIA H200 (SM 9.0)"], "driver": "580.65.06", "cuda": "13.0"}
MASK = 4 * 448 * 448
CAST, HALF = "eager.eager_fp16", "eager.eager_fp16_weights"
GRAPHS, DISC = "eager.compiled_graphs_fp16_weights", "click.compact.total"


@pytest.fixture(autouse=True)
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu_steps

    monkeypatch.setattr(gpu_steps, "FULL_SIZE", tmp_path / "mmms-rgb")
    monkeypatch.setattr(gpu_steps, "SEVERAL", tmp_path / "mmms-rgb-batch")


# --- where something is missing ---------------------------------------------------------------------------------------


def test_without_a_gpu(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path / "out"), "--copy-to", str(tmp_path / "copy")]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2, done.stderr
    assert "no GPU can be checked" in done.stderr
    steps = json.loads((tmp_path / "out" / "gpu-check.json").read_text())["steps"]
    assert steps[0]["name"] == "doctor"
    assert steps[0]["results"]["engines"], "it describes the machine"
    assert len(steps) > 3
    for step in steps[1:]:
        assert step["state"] == "skipped"
        assert "no GPU can be checked" in step["missing"]
        assert "to fix: " in step["missing"]
    for name in ("gpu-check.html", "gpu-check.json"):
        assert "no GPU" in (tmp_path / "out" / name).read_text()
        assert "no GPU" in (tmp_path / "copy" / name).read_text()


def test_in_an_environment_with_nothing_installed(tmp_path: Path) -> None:
    command = [sys.executable, "-S", str(SCRIPT), "--out", str(tmp_path / "out")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 2
    assert "lacks click, msgspec, numpy, pillow, rich: pip install click msgspec numpy pillow rich" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_what_an_export_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_steps

    missing = {"timm", "skimage"}
    monkeypatch.setattr(gpu_steps.importlib.util, "find_spec", lambda name: None if name in missing else name)
    text = gpu_steps.lacks(gpu_steps.EXPORTING)
    assert text.startswith("lacks scikit-image, timm: pip install scikit-image timm; or")


# --- steps ------------------------------------------------------------------------------------------------------------


def step(code: str, name: str = "one", **fields: Any) -> Any:
    from gpu_steps import Step

    return Step(name, name, ("-c", code), **fields)


def ended(process: int) -> bool:
    """Whether a process has ended, perhaps as a zombie."""
    file = Path(f"/proc/{process}/stat")
    for _ in range(100):
        try:
            if file.read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.1)
    return False


def ended_now(process: int) -> bool:
    return not Path(f"/proc/{process}").exists()


def test_steps_that_pass_fail_and_hang(tmp_path: Path) -> None:
    from gpu_steps import run

    wrote = run(step("import sys; open('{written}', 'w').write('[1]'); print('said')", written="facts.json"), 60)
    assert (wrote.state, wrote.results, wrote.output) == ("passed", [1], "said\n")
    failed = run(step("import os; os.abort()", written="none.json"), 60)
    assert (failed.state, failed.results) == ("failed", None)
    child = "import subprocess as s, sys; p = s.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    hung = run(step(f"{child}; print(p.pid, flush=True); p.wait()"), 5)
    assert hung.state == "stopped"
    assert "stopped after" in hung.output
    assert ended(int(hung.output.split()[0])), "what a step started ends with it"
    skipped = run(step("print(1)", bundle=str(tmp_path)), 60)
    assert (skipped.state, skipped.output) == ("skipped", "")
    assert "there is no bundle at" in skipped.missing


def test_a_detached_step_is_seen_by_later_calls(tmp_path: Path) -> None:
    from gpu_background import Background

    export = Background(tmp_path, "export")
    assert (export.running, export.noted, export.ended()) == (False, False, None)
    go = tmp_path / "go"
    waits = f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.05)\nprint('done'); 1/0"
    export.start(["-c", waits], tmp_path)
    later = Background(tmp_path, "export")
    assert (later.running, later.noted, later.ended()) == (True, True, None)
    assert not later.wait(0.2)
    later.start(["-c", "print('a second one')"], tmp_path)
    go.touch()
    assert later.wait(60)
    ended = later.ended()
    assert ended is not None
    assert ended.code == 1
    assert "done" in ended.output
    assert "ZeroDivisionError" in ended.output
    later.forget()
    assert not export.noted


def test_a_detached_step_that_was_ended_by_force_has_no_outcome(tmp_path: Path) -> None:
    from gpu_background import Background, end_noted

    export = Background(tmp_path, "export")
    export.start(["-c", "import time; time.sleep(600)"], tmp_path)
    note = tmp_path / "export.process.json"
    process = json.loads(note.read_text())["process"]
    kept = note.read_text()
    assert end_noted(note)
    assert ended(process)
    note.write_text(kept)
    assert not export.running
    assert (found := export.ended()) is not None
    assert found.code is None
    assert not end_noted(note), "nothing is ended twice"


def test_a_number_that_another_process_got_since_is_left_alone(tmp_path: Path) -> None:
    from gpu_background import end_noted, note_process, noted_process

    note = tmp_path / "running.json"
    note_process(note, os.getpid())
    assert noted_process(note) == os.getpid()
    note.write_text(json.dumps({"process": os.getpid(), "started": "1"}))
    assert noted_process(note) is None
    assert not end_noted(note)


def checked(tmp_path: Path, steps: list[Any], **given: Any) -> Any:
    """A check of these steps, whose report is in ``out``."""
    from argparse import Namespace

    from gpu_check import _Check

    usual = {"out": tmp_path / "out", "copy_to": None, "minutes": None, "timeout": 60, "background": False}
    return _Check(Namespace(**{**usual, **given}), MACHINE, steps)


def states(check: Any) -> dict[str, str]:
    return {entry["name"]: entry["state"] for entry in check.save()["steps"]}


def test_what_needs_no_export_is_checked_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_steps
    from gpu_background import Background

    network = gpu_steps.FULL_SIZE
    exports = (
        f"import pathlib, time; time.sleep(1); p = pathlib.Path({str(network)!r}); p.mkdir();"
        " (p / 'bundle.json').touch()"
    )
    monkeypatch.setattr("mmms_deploy.bundle.MANIFEST_NAME", "bundle.json")
    order = tmp_path / "order"
    says = f"import pathlib; f = pathlib.Path({str(order)!r}).open('a'); f.write('{{}} ')"
    steps = [
        step(exports, "export"),
        step(says.format("needs"), "needs", bundle=str(network)),
        step(says.format("other"), "other"),
    ]
    check = checked(tmp_path, steps, background=True)
    check.run(["export", "needs", "other"])
    assert order.read_text() == "other needs "
    assert set(states(check).values()) == {"passed"}
    assert not Background(tmp_path / "out", "export").noted


def test_an_export_goes_on_after_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_check
    from gpu_background import Background

    monkeypatch.setattr(gpu_check, "_SHORTEST", 0.0)
    go = tmp_path / "go"
    waits = f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.05)"
    first = checked(tmp_path, [step(waits, "export"), step("", "other")], background=True, minutes=0.05)
    first.run(["export", "other"])
    assert states(first) == {"export": "not run", "other": "passed"}
    export = Background(tmp_path / "out", "export")
    assert export.running
    go.touch()
    assert export.wait(60)
    second = checked(tmp_path, [step("1/0", "export"), step("", "other")])
    second.run(["export"])
    assert states(second)["export"] == "passed", "its outcome is that of the process that went on"


def test_a_step_of_a_call_that_was_cut_off_is_ended(tmp_path: Path) -> None:
    """A call that is ended by force cannot end its step, and the next one does."""
    from gpu_background import end_noted

    code = (
        f"import sys; sys.path[:0] = [{str(ROOT / 'benchmarks')!r}, {str(ROOT)!r}]\n"
        "from argparse import Namespace; from pathlib import Path\n"
        "from gpu_check import _Check; from gpu_steps import Step\n"
        f"o = Namespace(out=Path({str(tmp_path)!r}), copy_to=None, minutes=None, timeout=600, background=False)\n"
        "_Check(o, {}, [Step('hangs', '', ('-c', 'import time; time.sleep(600)'))]).run(['hangs'])"
    )
    call = subprocess.Popen([sys.executable, "-c", code])
    note = tmp_path / "running.json"
    for _ in range(600):
        if note.is_file() and note.read_text():
            break
        time.sleep(0.1)
    hanging = json.loads(note.read_text())["process"]
    call.kill()
    call.wait()
    assert not ended_now(hanging)
    assert end_noted(note)
    assert ended(hanging)


def test_another_precision_than_requested_is_no_success() -> None:
    from gpu_steps import run

    results = json.dumps({"engine": {"name": "tensorrt", "precision": "fp32"}})
    code = f"open('{{written}}', 'w').write({results!r})"
    done = run(step(code, "bench:demo:tensorrt:fp16", written="bench.json"), 60)
    assert done.state == "failed"
    assert "measured was tensorrt in fp32, not tensorrt in fp16" in done.output
    assert run(step(code, "bench:demo:tensorrt:fp32", written="bench.json"), 60).state == "passed"


def test_no_test_at_all_is_no_success() -> None:
    from gpu_steps import Step, run

    command = ("-m", "pytest", "-q", "-m", "gpu", "--junitxml={written}", "tests/imaging/test_coordinates.py")
    done = run(Step("tests", "tests", command, "tests.xml"), 120)
    assert done.state == "failed"
    assert done.results == {"passed": 0, "failed": [], "skipped": 0, "reasons": []}


def test_the_steps_of_a_bundle(paint: Bundle) -> None:
    from gpu_steps import checked_bundle, steps_of

    names = [one.name for one in steps_of([checked_bundle(paint.path)], full_size=True)]
    assert names[0] == "doctor"
    assert names[-12:] == [
        "compiled:mmms-rgb:tensorrt:fp16",
        "compiled:mmms-rgb:onnxruntime-cuda:fp16",
        "tests:bench",
        "tests:images",
        "tests:labels",
        "tests:masks",
        "tests:plans",
        "tests:sessions",
        "export:batch",
        "build:mmms-rgb-batch",
        "objects:mmms-rgb-batch:tensorrt:fp16",
        "objects:mmms-rgb-batch:onnxruntime-cuda:fp16",
    ]
    for name in ("build:mmms-rgb", "bench:mmms-rgb:tensorrt:fp16", "replay:paint:onnxruntime-cuda:fp32"):
        assert name in names
    alone = [one.name for one in steps_of([checked_bundle(paint.path)])]
    assert [name for name in alone if name.startswith(("compiled", "objects", "export"))] == [
        "compiled:paint:tensorrt:fp32",
        "compiled:paint:onnxruntime-cuda:fp32",
    ]
    demo = replace(checked_bundle(paint.path), trained=True)
    beside = [one.name for one in steps_of([demo], full_size=True) if one.name.startswith("compiled:")]
    assert len(beside) == 4, "a trained network is judged beside torch.compile, too"
    assert "bench:paint:tensorrt:fp16" not in names, "it has no graphs in fp16"
    assert len(set(names)) == len(names)
    with pytest.raises(MMMSDeployError):
        checked_bundle(ROOT / "docs")


def test_unproven_plans_are_taken_only_where_it_is_said(paint: Bundle) -> None:
    from gpu_steps import checked_bundle, steps_of

    def allowing(**options: bool) -> set[str]:
        found = steps_of([checked_bundle(paint.path)], **options)
        return {one.name.partition(":")[0] for one in found if "--allow-unproven" in one.command}

    assert allowing() == set()
    assert allowing(allow_unproven=True) == {"build", "replay", "bench", "compiled"}


def test_every_command_of_a_step_is_one(paint: Bundle) -> None:
    """A module without an entry point would do nothing and exit with 0."""
    from gpu_steps import checked_bundle, steps_of

    modules = {
        one.command[1] for one in steps_of([checked_bundle(paint.path)], full_size=True) if one.command[0] == "-m"
    }
    assert {"mmms_deploy.commands.export", "mmms_deploy.commands.bench", "pytest"} <= modules
    for module in sorted(modules):
        done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=False)
        assert "usage" in done.stdout.lower(), module


def test_earlier_calls_are_kept_for_the_same_machine_alone(tmp_path: Path) -> None:
    from gpu_check import _chosen, _with_older, save
    from gpu_steps import State, run

    passes, fails, new = (step(code, name) for code, name in (("", "a"), ("1/0", "b"), ("", "c")))
    save(tmp_path, MACHINE, [run(passes, 60), run(fails, 60)])
    steps = _with_older([passes, fails, new], tmp_path / "gpu-check.json", MACHINE)
    assert [one.state for one in steps] == [State.PASSED, State.FAILED, State.NOT_RUN]
    assert [one.name for one in steps if _chosen(one, None, True)] == ["b", "c"]
    assert [one.name for one in steps if _chosen(one, ["[ab]"], False)] == ["a", "b"]
    assert _with_older([new], tmp_path / "none.json", MACHINE) == [new]
    with pytest.raises(MMMSDeployError, match="no report of this machine"):
        _with_older([new], tmp_path / "gpu-check.json", {**MACHINE, "driver": "590.1"})
    (tmp_path / "gpu-check.json").write_text("{}")
    with pytest.raises(MMMSDeployError, match="no report of this machine"):
        _with_older([new], tmp_path / "gpu-check.json", MACHINE)


def calls_of_the_document() -> list[str]:
    """The commands for a machine that is lent by calls: what is prepared, then each call."""
    text = (ROOT / "docs" / "gpu-host.md").read_text()
    section = text.partition("## In four calls")[2].partition("\n## ")[0]
    found = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    assert len(found) == 5
    return found


def test_the_calls_of_the_document_are_short_and_bring_everything_back() -> None:
    """Where a machine is lent by calls, a command may have 2,000 characters, and only ``$OUT`` comes back."""
    _, *calls = calls_of_the_document()
    for number, limit, call in zip((1, 2, 3, 4), (3, 6, 10, 10), calls, strict=True):
        assert len(call) <= 2000
        checks = [line for line in call.splitlines() if "gpu_check.py" in line]
        assert bool(checks) is (number != 2)
        assert all("--copy-to $OUT" in line and "--out $D/out" in line for line in checks)
        minutes = [found for line in checks for found in re.findall(r"--minutes (\S+)", line)]
        assert len(minutes) == len(checks), "no check may be cut off in a step"
        assert sum(float(given) for given in minutes if not given.startswith("$")) < limit
        for given in minutes:
            if given.startswith("$"):  # what is left of the call, whose shell counts its seconds
                assert given == f"$((({60 * limit - 30}-SECONDS)/60))"
        done = subprocess.run(["bash", "-n"], input=call, capture_output=True, text=True, check=False)
        assert not done.stderr
    assert "--background" in calls[0]
    assert all("--resume" in call for call in calls[2:])
    assert "pgrep" not in "".join(calls), "it finds the shell of the call, too"


def test_a_call_carries_its_part_beside_the_checkout() -> None:
    """It carries 64 MiB, and the checkout is part of them."""
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    prepare, *_ = calls_of_the_document()
    (part,) = re.findall(r"slim_cuda_provider.py pack .* --part-mb ([\d.]+)", prepare)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    msgspec_wheel = 300_000
    assert sum(file.stat().st_size for file in files if file.is_file()) + 1e6 * float(part) + msgspec_wheel < 64 << 20


def test_the_calls_of_the_document_run_the_steps_that_the_goals_need(tmp_path: Path) -> None:
    """Those of call 3 and the first of call 4, by their names."""
    from gpu_check import _named
    from gpu_steps import CheckedBundle, steps_of

    small = CheckedBundle("demo-small", tmp_path, ("fp16", "fp32"), trained=True)
    names = [one for one in steps_of([small], full_size=True) if "tensorrt" not in one.name]
    *_, third, fourth = calls_of_the_document()
    for call, expected in (
        (third, ["replay:mmms-rgb", "bench:mmms-rgb", "replay:demo-small", "bench:demo-small"]),
        (fourth, ["objects:mmms-rgb-batch", "compiled:mmms-rgb"]),
    ):
        lines = [re.findall(r"--only '([^']+)'", line) for line in call.splitlines() if "--resume --only" in line]
        chosen = [one.name for patterns in lines for one in names if _named(one, patterns)]
        assert chosen == [f"{name}:onnxruntime-cuda:fp16" for name in expected]


def test_the_report_names_no_folder_and_no_machine() -> None:
    """So that it can be shared: neither what ONNX Runtime prints of the machine nor where Python's packages are."""
    from gpu_steps import run

    said = "CUDA failure 2: out of memory ; GPU=0 ; hostname=our-machine ; file=/src/cuda.cc ; line=7"
    code = f"import pytest; print(pytest.__file__); print({str(ROOT / 'docs')!r}); print({said!r})"
    output = run(step(code), 60).output
    assert "our-machine" not in output
    assert sys.prefix not in output
    assert str(ROOT) not in output
    assert "CUDA failure 2: out of memory ; GPU=0 ; file=/src/cuda.cc ; line=7" in output
    assert re.search(r"^(\.\.\.|\.venv)/lib/.*pytest", output, re.MULTILINE)
    assert "\ndocs\n" in output
    for why, left in ((said, said.replace(" ; hostname=our-machine", "")), ("it fails ; hostname=us", "it fails")):
        printed = json.dumps({"why": why, "fix": str(ROOT / "docs"), "cache": "x"})
        assert run(step(f"print({printed!r})", "doctor"), 60).results == {"why": left, "fix": "docs"}


# --- verdicts ---------------------------------------------------------------------------------------------------------


def measured(engine: str = "tensorrt", precision: str = "fp16", **values: float) -> Report:
    """A report on the full-size network. Keywords, keys of metrics, replace values; 0 removes one."""
    found = {
        "click.total": 2.7,
        DISC: 0.7,
        "image.total": 3.0,
        "moved.click_up": 16.0,
        "moved.click_down": float(MASK),
        "vram.taken": 440.0,
        "work.parameters": 125.2,
        "eager.eager_fp16.click": 8.4,
        f"{CAST}.click_ratio": 1 / 6,
        f"{HALF}.click_ratio": 1 / 5,
        **values,
    }
    facts = {field: getattr(report().bundle, field) for field in BundleFacts.__struct_fields__}
    return report(
        metrics=tuple(
            Metric(key=key, title=key, unit="ms", samples=(value,) if value else (), why="" if value else "<gone>")
            for key, value in found.items()
        ),
        bundle=BundleFacts(**{**facts, "modalities": (), "name": "mmms-rgb"}),
        engine=EngineFacts(
            name=engine,
            device="cuda",
            precision=precision,
            library={"tensorrt": "TensorRT", "onnxruntime-cuda": "ONNX Runtime"}[engine],
            version="1",
            threads=None,
            providers=(),
            evidence="",
        ),
    )


def beside(ratio: float = 0.9, engine: str = "tensorrt") -> Report:
    """A report beside torch.compile."""
    return measured(engine, **{f"{GRAPHS}.click_ratio": ratio})


def verdicts(run: Report, compiled: Report | None = None) -> list[str]:
    from gpu_targets import targets

    return [target.verdict for target in targets(run, compiled or beside())]


def test_goals_that_are_met_missed_and_unknown() -> None:
    assert verdicts(measured()) == ["met"] * 7
    assert verdicts(measured(**{DISC: 0.81}))[0] == "missed"
    assert verdicts(measured("onnxruntime-cuda", **{DISC: 1.79}))[0] == "met"
    assert verdicts(measured("onnxruntime-cuda", **{DISC: 1.81}))[0] == "missed"
    assert verdicts(measured(**{"image.total": 4.1}))[1] == "missed"
    assert verdicts(measured(), beside(1.01))[3] == "missed"
    assert verdicts(measured(**{"moved.click_up": 32.0}))[4] == "missed"
    assert verdicts(measured(**{"moved.click_down": MASK + 1.0}))[5] == "missed"
    assert verdicts(measured(**{"moved.click_down": MASK / 2}))[5] == "met"
    assert verdicts(measured(**{"vram.taken": 451.0}))[6] == "missed"
    assert verdicts(measured(**{"vram.taken": 0}))[6] == "not measured: <gone>"


def test_a_trained_network_is_judged_by_its_own_masks() -> None:
    from gpu_targets import targets

    own = msgspec.structs.replace(measured(), metrics=tuple(m for m in measured().metrics if m.key != DISC))
    assert targets(own)[0].verdict == "missed"
    assert targets(own)[0].shown == "2.70 ms"
    assert "disc" in targets(measured())[0].what
    assert "disc" not in targets(own)[0].what


def test_memory_of_onnx_runtime_is_reported_and_not_judged() -> None:
    from gpu_targets import lines, targets

    run = measured("onnxruntime-cuda", **{"vram.taken": 560.0})
    found = targets(run)[6]
    assert (found.met, found.verdict, found.shown) == (None, "reported", "560 MiB")
    assert "1,474" in found.goal
    assert [line for line in lines({"bench:a": run}) if "VRAM" in line] == [
        "reported mmms-rgb, ONNX Runtime fp16: VRAM beyond the CUDA context: 560 MiB (paper, V100: 1,474 MiB)"
    ]


def test_beside_compiled_pytorch_only_the_same_engine_counts() -> None:
    from gpu_targets import lines, targets

    run = measured("onnxruntime-cuda")
    assert targets(run)[3].verdict == "not measured: no step beside torch.compile was run"
    others = [beside(2.0), beside(0.5, "onnxruntime-cuda")]
    (line,) = (line for line in lines({"bench:a": run}, others) if "CUDA graphs" in line)
    assert line.startswith("met ")
    assert "2.00 times as fast (not slower)" in line


def test_pytorch_is_taken_in_its_fastest_form() -> None:
    assert verdicts(measured(**{f"{CAST}.click_ratio": 1 / 3.9}))[2] == "missed"
    assert verdicts(measured(**{f"{HALF}.click_ratio": 1 / 3.9}))[2] == "missed"
    assert verdicts(measured(**{f"{HALF}.click_ratio": 0}))[2] == "met"
    without = measured(**{f"{CAST}.click_ratio": 0, f"{HALF}.click_ratio": 0})
    assert verdicts(without)[2] == "not measured: <gone>"


def test_a_run_whose_precision_is_not_proven_says_so_at_every_verdict() -> None:
    from gpu_targets import lines

    run = measured()
    evidence = "0 of 82 matrix operations in fp16; precision not proven"
    doubtful = msgspec.structs.replace(run, engine=msgspec.structs.replace(run.engine, evidence=evidence))
    assert all("TensorRT fp16, precision not proven: " in line for line in lines({"bench:a": doubtful}))
    assert not any("not proven" in line for line in lines({"bench:a": run}))


def test_the_goals_are_for_the_full_size_network_and_the_demos_in_float16() -> None:
    from gpu_targets import is_full_size, is_judged, lines

    def called(name: str, trained: bool) -> Report:
        small = measured(**{"work.parameters": 3.0})
        return msgspec.structs.replace(small, bundle=msgspec.structs.replace(small.bundle, name=name, trained=trained))

    assert is_full_size(measured())
    assert not is_full_size(report())
    assert is_judged(measured())
    assert not is_judged(measured(precision="fp32"))
    assert is_judged(called("demo", True))
    assert not is_judged(called("demo", False))
    assert not is_judged(called("mine", True))
    assert lines({"bench:mine": called("mine", True)}) == []
    assert len(lines({"bench:a": measured(), "bench:b": measured("onnxruntime-cuda")})) == 14


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page() -> None:
    from gpu_check import describe
    from gpu_page import page
    from gpu_steps import State, Step

    plan = {"stage": "click", "precision": "fp16", "matrices": {"fp16": 82}, "fused": 8, "attentions": 8}
    doubtful = {"proven": False, "doubts": ["gemm 'a<b', sm90_odd: fp32 for node7"]}
    plans = {"plans": [{**plan, "kernels": 129, "plan_bytes": 39_000_000, "seconds": 60.0, **doubtful}]}
    tests = {"passed": 2, "failed": ["a::b"], "skipped": 1, "reasons": ["no <TensorRT>"]}
    slow, blind = measured("onnxruntime-cuda", **{DISC: 3.0}), measured(**{"vram.taken": 0})
    runs = [measured(**{"graph.click_ratio": 0}), slow, blind]
    steps = [
        Step(
            "tests:plans",
            "tests",
            ("-m", "pytest"),
            state=State.FAILED,
            output="\x1b[31mE   1 < 0\x1b[0m",
            results=tests,
        ),
        Step("build:demo", "plans of <demo>", (str(ROOT / "bundles"),), state=State.PASSED, results=plans),
        Step("replay:demo:tensorrt:fp16", "replay", missing="TensorRT & co are not installed", state=State.SKIPPED),
        Step("compiled:demo:tensorrt:fp16", "beside torch.compile"),
        *(
            Step(f"bench:{n}", "time", state=State.PASSED, results=msgspec.to_builtins(run))
            for n, run in enumerate(runs)
        ),
    ]
    alone = msgspec.to_builtins(measured(**{"eager.compiled_fp16_weights.click_ratio": 0}))
    steps.append(Step("compiled:other", "beside", state=State.PASSED, results=alone))
    several = msgspec.to_builtins(measured(**{"objects.16": 4321.0, "objects.16_torch": 0}))
    steps.append(Step("objects:many:tensorrt:fp16", "several", state=State.PASSED, results=several))
    described = describe(MACHINE, steps)
    assert described["passed"] is False
    assert described["steps"][1]["command"] == "python bundles"
    html = page(json.loads(json.dumps(described)))
    ElementTree.fromstring(html.replace("<!DOCTYPE html>", ""))
    for text in (
        "NVIDIA H200",
        "a::b",
        "2 passed, 1 failed, 1 skipped",
        "no &lt;TensorRT&gt;",
        "8 of 8",
        "82 fp16",
        "plans of &lt;demo&gt;",
        "precision not proven",
        "gemm &#x27;a&lt;b&#x27;, sm90_odd: fp32 for node7",
        "Not done: replay:demo:tensorrt:fp16: TensorRT &amp; co are not installed",
        "Not run yet: compiled:demo:tensorrt:fp16",
        "mmms-rgb: several objects at once",
        "<td>clicks a second, on 16 at once</td><td>4,321</td>",
        "not measured: &lt;gone&gt;",
        "other, torch.compile: not measured: &lt;gone&gt;",
        "0, a click as one CUDA graph: not measured: &lt;gone&gt;",
        '<b>3.00 ms</b><span class="missed">missed</span><small>at most 1.8 ms</small>',
        '<b>0.70 ms</b><span class="met">met</span><small>at most 0.8 ms</small>',
        "not measured: &lt;gone&gt;",
        "1,474",
    ):
        assert text in html, text
    assert str(ROOT) not in html
    assert "give --full-size" not in html
    assert "give --full-size" in page(describe(MACHINE, steps[:4]))
