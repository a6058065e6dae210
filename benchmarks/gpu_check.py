"""Everything that needs a GPU, on this machine, and one report of it: ``make gpu-check``.

Looks at the machine, compiles the plans of the bundles it is given (and proves their precision), replays their golden
clicks and measures them with every engine for CUDA in float16 and float32, beside PyTorch where that can use the GPU,
and runs the tests that are marked ``gpu``. Each step is a process, so that one that crashes does not take the others
along, and the report is written anew after each. Needs no network and no installation of this package: where something
is missing, the report says what. Exits with 1 when a step failed, and with 2, writing nothing, when nothing could be
checked.

    python3 benchmarks/gpu_check.py --full-size bundles/demo
    python3 benchmarks/gpu_check.py --full-size --resume --minutes 9    # go on where the last call stopped
    python3 benchmarks/gpu_check.py --full-size --only 'bench:*'        # these steps, the others stay as they were
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from mmms_deploy.bench.report import Report

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FULL_SIZE = ROOT / "bundles" / "mmms-rgb"
SCHEMA, KIND = 2, "gpu-check"
PRECISIONS = ("fp16", "fp32")
_TAIL = 4000
_SHORTEST = 20.0
"""Seconds that have to be left for a step to be begun."""
BASE = {"click": "click", "msgspec": "msgspec", "numpy": "numpy", "PIL": "pillow", "rich": "rich"}
"""Modules without which nothing works, and the packages that they come from."""
PACKAGES = {**BASE, "onnx_ir": "onnx-ir", "skimage": "scikit-image"}
TESTING = ("pytest", "onnx", "onnxruntime")
EXPORTING = ("onnx", "onnx_ir", "onnxruntime", "onnxscript", "safetensors", "skimage", "timm", "torch", "torchvision")


class State(StrEnum):
    """What became of a step."""

    PASSED = "passed"
    FAILED = "failed"
    STOPPED = "stopped"
    SKIPPED = "skipped"
    NOT_RUN = "not run"


BAD = (State.FAILED, State.STOPPED)


@dataclass(frozen=True)
class Step:
    """Something to do, and what became of it.

    Attributes:
        name: Its name, as ``--only`` takes it.
        title: What it is for.
        command: Arguments of Python; ``{written}`` stands for ``written``.
        written: Name of a file of JSON or JUnit's XML that it writes; empty for none.
        bundle: Folder of the bundle that has to be there; empty for none.
        missing: Why it cannot be done here; empty when it can.
        state: What became of it.
        seconds: How long it took.
        date: When it ended.
        output: The end of what it printed.
        results: What it wrote as JSON, or what its test report says; None when nothing.
    """

    name: str
    title: str
    command: tuple[str, ...] = ()
    written: str = ""
    bundle: str = ""
    missing: str = ""
    state: State = State.NOT_RUN
    seconds: float = 0.0
    date: str = ""
    output: str = ""
    results: Any = None


@dataclass(frozen=True)
class Target:
    """A bundle to check.

    Attributes:
        name: Its name.
        path: Where it is.
        precisions: In which of the precisions to check it has graphs.
    """

    name: str
    path: Path
    precisions: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the GPU of this machine and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", type=Path, help="bundles to compile, replay and measure")
    parser.add_argument(
        "--full-size",
        action="store_true",
        help="full-size MMMS, RGB, random weights, in fp32 and fp16 too; exported into bundles/ when it is not there",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of gpu-check.json and gpu-check.html")
    parser.add_argument("--only", action="append", metavar="NAME", help="run these steps (bench:*); the others stay")
    parser.add_argument("--resume", action="store_true", help="run what did not pass yet; the rest stays")
    parser.add_argument("--list", action="store_true", help="print the names of the steps, and run none")
    parser.add_argument("--minutes", type=float, help="stop after so many; --resume goes on")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds that one step may take")
    options = parser.parse_args(arguments)
    problem = _lacks(BASE)
    if problem:
        print(f"nothing can be checked: Python {sys.version.split()[0]} ({sys.executable}) {problem}", file=sys.stderr)
        return 2
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))  # a checkout need not be installed
    try:
        return _check(options)
    except KeyboardInterrupt:
        print("interrupted; --resume goes on", file=sys.stderr)
        return 130


def _lacks(modules: Sequence[str] | Mapping[str, str]) -> str:
    """Return which of the modules are missing and what to do about it; empty when all are there."""
    missing = [PACKAGES.get(name, name) for name in modules if importlib.util.find_spec(name) is None]
    if not missing:
        return ""
    listed = " ".join(missing)
    return (
        f"lacks {', '.join(missing)}: pip install {listed}; or pip install --target FOLDER {listed} elsewhere, and name"
        " the folder in PYTHONPATH"
    )


def _check(options: argparse.Namespace) -> int:
    from mmms_deploy.engines.cuda.devices import probe
    from mmms_deploy.errors import MMMSDeployError

    found = probe()
    if found.problem is not None:
        print(f"no GPU can be checked: {found.given}\n  to fix: {found.fix}", file=sys.stderr)
        return 2
    try:
        steps = list(plan([target(path) for path in options.bundles], full_size=options.full_size))
        machine = {"gpus": [str(gpu) for gpu in found.gpus], "driver": found.driver, "cuda": found.cuda}
        if options.only or options.resume:
            steps = _with_older(steps, options.out / "gpu-check.json", machine)
    except MMMSDeployError as error:
        print(f"nothing can be checked: {error}", file=sys.stderr)
        return 2
    chosen = [step.name for step in steps if _chosen(step, options.only, options.resume)]
    if options.list:
        for step in steps:
            print(f"{step.name:<40} {'' if step.name in chosen else step.state}".rstrip())
        return 0
    if options.only and not chosen:
        print(f"no step is called {' or '.join(options.only)}; --list names them", file=sys.stderr)
        return 2
    deadline = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    for index, step in enumerate(steps):
        if step.name not in chosen:
            continue
        left = options.timeout if deadline is None else min(options.timeout, deadline - time.monotonic())
        if left < _SHORTEST and deadline is not None:
            print(f"the time is up before {step.name}; go on with --resume")
            break
        print(f"{step.name} ...", flush=True)
        steps[index] = run(step, left)
        save(options.out, machine, steps)
        _print_step(steps[index])
    report = save(options.out, machine, steps)
    print(*report["targets"], sep="\n")
    print(_shown(str(options.out / "gpu-check.html")))
    return 0 if report["passed"] else 1


def _chosen(step: Step, only: Sequence[str] | None, resume: bool) -> bool:
    if only and not any(fnmatchcase(step.name, pattern) for pattern in only):
        return False
    return not (resume and step.state is State.PASSED)


def _print_step(step: Step) -> None:
    why = f": {step.missing}" if step.missing else ""
    print(f"{step.state:<8} {step.name} ({step.seconds:.0f} s){why}", flush=True)
    if step.state is State.FAILED:
        print(*(f"    {line}" for line in step.output.splitlines()[-15:]), sep="\n", flush=True)


# --- what to do -------------------------------------------------------------------------------------------------------


def target(path: Path) -> Target:
    """Return a bundle to check.

    Raises:
        BundleError: It is none.
    """
    from mmms_deploy.bundle import Bundle

    path = path.resolve()
    manifest = Bundle(path, verify=False).manifest
    return Target(path.name, path, tuple(name for name in PRECISIONS if name in manifest.precisions))


def plan(targets: Sequence[Target], *, full_size: bool = False) -> Iterator[Step]:
    """Yield the steps, in the order in which they are done.

    Args:
        targets: Bundles to compile, replay and measure.
        full_size: Whether the full-size network is checked too, before the others.
    """
    from mmms_deploy.bundle import MANIFEST_NAME
    from mmms_deploy.engines.registry import BACKENDS

    yield Step("doctor", "what is here", _module("doctor", "--json"), "doctor.json")
    if full_size:
        there = (FULL_SIZE / MANIFEST_NAME).is_file() and target(FULL_SIZE).precisions == PRECISIONS
        if not there:
            options = ("--random-weights", "0", "--precision", "fp32,fp16", "--out", str(FULL_SIZE), "--overwrite")
            command = _module("export", *options)
            yield Step("export", "the full-size network", command, missing=_lacks(EXPORTING))
        targets = (Target(FULL_SIZE.name, FULL_SIZE, PRECISIONS), *(t for t in targets if t.name != FULL_SIZE.name))
    engines = {backend.name: _unusable(backend) for backend in BACKENDS if backend.device == "cuda"}
    for one in targets:
        wanted = tuple(part for precision in one.precisions for part in ("--precision", precision))
        command = _module("build", str(one.path), *wanted, "--json", "{written}")
        name, place = f"build:{one.name}", str(one.path)
        yield Step(name, f"plans of {one.name}", command, "plans.json", place, engines.get("tensorrt", ""))
        for engine, why in engines.items():
            for precision in one.precisions:
                yield from _measured(one, engine, precision, why)
    targets = [one for one in targets if one.precisions]
    if targets:
        first, working = targets[0], [name for name, why in engines.items() if not why]
        yield Step(
            f"compiled:{first.name}",
            f"{first.name} beside torch.compile",
            _bench(first, (working or ["tensorrt"])[0], first.precisions[0], "--clicks", "10", "--images", "1"),
            "bench.json",
            str(first.path),
            "" if working else next(iter(engines.values())),
        )
    for file in sorted((ROOT / "tests" / "gpu").glob("test_*.py")):
        name = file.stem.removeprefix("test_gpu_")
        options = ("-m", "gpu", "-v", "-rs", "-p", "no:cacheprovider", "--junitxml={written}", f"tests/gpu/{file.name}")
        command = ("-m", "pytest", *options)
        yield Step(f"tests:{name}", f"tests that need a GPU: {name}", command, "tests.xml", missing=_lacks(TESTING))


def _measured(one: Target, engine: str, precision: str, why: str) -> Iterator[Step]:
    name, title, place = f"{one.name}:{engine}:{precision}", f"{one.name}, {engine} in {precision}", str(one.path)
    command = _module("verify", place, *_chosen_engine(engine, precision), "--strict")
    yield Step(f"replay:{name}", f"golden replay of {title}", command, "", place, why)
    command = _bench(one, engine, precision, "--no-compiled")
    yield Step(f"bench:{name}", f"time and memory of {title}", command, "bench.json", place, why)


def _bench(one: Target, engine: str, precision: str, *more: str) -> tuple[str, ...]:
    chosen = _chosen_engine(engine, precision)
    return _module("bench", str(one.path), *chosen, *more, "--json", "{written}")


def _chosen_engine(engine: str, precision: str) -> tuple[str, ...]:
    return "--device", "cuda", "--engine", engine, "--precision", precision


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return "-m", f"mmms_deploy.commands.{name}", *arguments


def _unusable(backend: Any) -> str:
    """Return why an engine cannot be used; empty when it can."""
    from mmms_deploy.errors import EngineError

    try:
        backend.usable()
    except EngineError as error:
        return f"{error.given}; to fix: {error.fix}"
    return ""


# --- doing it ---------------------------------------------------------------------------------------------------------


def run(step: Step, timeout: float) -> Step:
    """Do a step.

    Args:
        step: What to do.
        timeout: Seconds that it may take.
    """
    from mmms_deploy.bundle import MANIFEST_NAME

    if step.bundle and not (Path(step.bundle) / MANIFEST_NAME).is_file():
        step = replace(step, missing=step.missing or f"there is no bundle at {_shown(step.bundle, step.bundle)}")
    if step.missing:
        return replace(step, state=State.SKIPPED, date=_now())
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        written, said = Path(folder) / (step.written or "nothing"), Path(folder) / "said"
        command = [sys.executable, *(part.replace("{written}", str(written)) for part in step.command)]
        with said.open("wb") as output:
            # A group of its own: what a step starts and leaves behind (PyTorch's compilers) ends with it.
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            code = _waited(process, timeout)
        text = said.read_text(errors="replace").replace(folder, "tmp")
        results = _read(written) if written.is_file() else _printed(text) if step.name == "doctor" else None
    if code is None:
        text += f"\nstopped after {timeout:.0f} s\n"
    if other := _another(step, results):
        code, text = 1, f"{text}\n{other}\n"
    state = State.STOPPED if code is None else State.PASSED if code == 0 else State.FAILED
    return replace(
        step,
        state=state,
        seconds=time.monotonic() - start,
        date=_now(),
        output="" if step.name == "doctor" and results else _shown(text, step.bundle)[-_TAIL:],
        results=results,
    )


def _waited(process: subprocess.Popen[bytes], timeout: float) -> int | None:
    """Return the exit code, or None when the time was up; nothing of it is left either way."""
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()


def _another(step: Step, results: Any) -> str:
    """Return what was measured instead of what was asked for; empty when it is that.

    Measuring is not strict, because a click that cannot be one CUDA graph is worth a number too.
    """
    if not step.name.startswith("bench:") or not results:
        return ""
    asked, found = step.name.split(":")[2:], [results["engine"]["name"], results["engine"]["precision"]]
    return "" if found == asked else f"measured was {' in '.join(found)}, not {' in '.join(asked)}"


def _read(file: Path) -> Any:
    text = file.read_text()
    return counts(text) if file.suffix == ".xml" else json.loads(text)


def _printed(text: str) -> Any:
    """Return the JSON that was printed, without the place of the cache; None when there is none."""
    try:
        found = json.loads(text[text.index("{") : text.rindex("}") + 1])
    except ValueError:
        return None
    return {key: value for key, value in found.items() if key != "cache"}


def counts(junit: str) -> dict[str, Any]:
    """Return how many tests passed, which failed, and why others were skipped."""
    cases = list(ElementTree.fromstring(junit).iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [found for case in cases if (found := case.find("skipped")) is not None]
    return {
        "passed": len(cases) - len(failed) - len(skipped),
        "failed": [f"{case.get('classname')}::{case.get('name')}" for case in failed],
        "skipped": len(skipped),
        "reasons": sorted({str(found.get("message")) for found in skipped}),
    }


def _shown(text: str, bundle: str = "") -> str:
    """Return text without the places of this machine's folders, and of a bundle."""
    text = text.replace(str(ROOT) + os.sep, "")
    places = {str(Path(bundle).parent): "..." if bundle else "", str(Path.home()): "~"}
    for place, name in places.items():
        if len(place) > 1:
            text = text.replace(place + os.sep, name + os.sep)
    return text


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# --- the report -------------------------------------------------------------------------------------------------------


def _with_older(steps: Sequence[Step], file: Path, machine: Mapping[str, Any]) -> list[Step]:
    """Return the steps with what became of them in earlier calls.

    Raises:
        MMMSDeployError: The report is of another machine, or of another kind.
    """
    from mmms_deploy.errors import MMMSDeployError

    if not file.is_file():
        return list(steps)
    try:
        older = json.loads(file.read_text())
        known = (older["kind"], older["schema"], older["machine"]) == (KIND, SCHEMA, dict(machine))
        done = {entry["name"]: entry for entry in older["steps"]}
    except (ValueError, KeyError, TypeError):
        known, done = False, {}
    if not known:
        raise MMMSDeployError(
            f"{file} is no report of this machine and this version",
            expected=f"one of {', '.join(machine['gpus'])}, driver {machine['driver']}",
            fix="name another folder (--out), or leave --resume and --only out to replace it",
        )
    kept = ("seconds", "date", "output", "results")
    return [
        replace(step, **{key: done[step.name][key] for key in kept}, state=State(done[step.name]["state"]))
        if step.name in done
        else step
        for step in steps
    ]


def save(out: Path, machine: Mapping[str, Any], steps: Sequence[Step]) -> dict[str, Any]:
    """Write the report of what was done so far, and return it."""
    from gpu_page import page

    from mmms_deploy.reporting.files import write_text

    report = describe(machine, steps)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "gpu-check.json", json.dumps(report, indent=1).encode() + b"\n")
    write_text(out / "gpu-check.html", page(report).encode())
    return report


def describe(machine: Mapping[str, Any], steps: Sequence[Step]) -> dict[str, Any]:
    """Return the report."""
    from gpu_targets import lines

    import mmms_deploy

    entries = []
    for step in steps:
        command = _shown(shlex.join(("python", *step.command)), step.bundle)
        entries.append({**asdict(step), "command": command, "bundle": _shown(step.bundle, step.bundle)})
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "mmms_deploy": mmms_deploy.__version__,
        "date": _now(),
        "machine": dict(machine),
        "passed": not any(step.state in BAD for step in steps),
        "targets": list(lines(benchmarks(entries))),
        "steps": entries,
    }


def benchmarks(entries: Sequence[Mapping[str, Any]], kind: str = "bench") -> dict[str, Report]:
    """Return what ``mmms-bench`` measured, by the name of the step.

    Args:
        entries: The steps of a report.
        kind: What their names begin with.
    """
    import msgspec

    from mmms_deploy.bench.report import Report

    return {
        entry["name"]: msgspec.convert(entry["results"], Report)
        for entry in entries
        if entry["name"].startswith(f"{kind}:") and entry["state"] == State.PASSED and entry["results"]
    }


if __name__ == "__main__":
    sys.exit(main())
