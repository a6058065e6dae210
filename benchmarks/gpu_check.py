"""Everything that needs a GPU, on this machine, and one report of it: ``make gpu-check``.

Describes the machine. Compiles the plans of the given bundles and inspects their precision. Replays their golden clicks
and measures them with every engine for CUDA in float16 and float32, beside PyTorch where it can use the GPU. Runs the
tests that are marked ``gpu``. Each step is a process of its own, so that a crash ends no other step, and the report is
written again after each. Needs no network and no installation of this package; the report says what is missing. Exits
with 1 when a step failed, and with 2, writing nothing, when nothing could be checked.

    python3 benchmarks/gpu_check.py --full-size bundles/demo
    python3 benchmarks/gpu_check.py --full-size --resume --minutes 9    # continue where the last call stopped
    python3 benchmarks/gpu_check.py --full-size --only 'bench:*'        # these steps, the others stay as they were
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from gpu_steps import BASE, ROOT, State, Step, checked_bundle, lacks, now, run, shown, steps_of

RESULTS = ROOT / "benchmarks" / "results"
SCHEMA, KIND = 2, "gpu-check"
BAD = (State.FAILED, State.STOPPED)
_SHORTEST = 20.0
"""Seconds that have to be left to begin a step."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the GPU of this machine and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", type=Path, help="bundles to compile, replay and measure")
    parser.add_argument(
        "--full-size",
        action="store_true",
        help="full-size MMMS too: RGB, random weights, fp32 and fp16; exported into bundles/ when it is not there",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of gpu-check.json and gpu-check.html")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="run these steps (bench:*); the others keep their outcome"
    )
    parser.add_argument(
        "--resume", action="store_true", help="run the steps that did not pass yet; the others keep their outcome"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the steps, and run none")
    parser.add_argument("--minutes", type=float, help="stop after so many minutes; --resume continues")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds that one step may take")
    options = parser.parse_args(arguments)
    problem = lacks(BASE)
    if problem:
        print(f"nothing can be checked: Python {sys.version.split()[0]} ({sys.executable}) {problem}", file=sys.stderr)
        return 2
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))  # a checkout need not be installed
    try:
        return _check(options)
    except KeyboardInterrupt:
        print("interrupted; --resume continues", file=sys.stderr)
        return 130


def _check(options: argparse.Namespace) -> int:
    from mmms_deploy.engines.cuda.devices import probe
    from mmms_deploy.errors import MMMSDeployError

    found = probe()
    if found.problem is not None:
        print(f"no GPU can be checked: {found.given}\n  to fix: {found.fix}", file=sys.stderr)
        return 2
    try:
        bundles = [checked_bundle(path) for path in options.bundles]
        steps = list(steps_of(bundles, full_size=options.full_size))
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
            print(f"the time is up before {step.name}; continue with --resume")
            break
        print(f"{step.name} ...", flush=True)
        steps[index] = run(step, left)
        save(options.out, machine, steps)
        _print_step(steps[index])
    report = save(options.out, machine, steps)
    print(*report["targets"], sep="\n")
    print(shown(str(options.out / "gpu-check.html")))
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


# --- the report -------------------------------------------------------------------------------------------------------


def _with_older(steps: Sequence[Step], file: Path, machine: Mapping[str, Any]) -> list[Step]:
    """Return the steps with their outcomes in earlier calls.

    Raises:
        MMMSDeployError: The file is no report of this machine and this version.
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
    """Write the report of the steps so far, and return it."""
    from gpu_page import page

    from mmms_deploy.reporting.files import write_text

    report = describe(machine, steps)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "gpu-check.json", json.dumps(report, indent=1).encode() + b"\n")
    write_text(out / "gpu-check.html", page(report).encode())
    return report


def describe(machine: Mapping[str, Any], steps: Sequence[Step]) -> dict[str, Any]:
    """Return the report."""
    from gpu_targets import benchmarks, lines

    import mmms_deploy

    entries = []
    for step in steps:
        command = shown(shlex.join(("python", *step.command)), step.bundle)
        entries.append({**asdict(step), "command": command, "bundle": shown(step.bundle, step.bundle)})
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "mmms_deploy": mmms_deploy.__version__,
        "date": now(),
        "machine": dict(machine),
        "passed": not any(step.state in BAD for step in steps),
        "targets": list(lines(benchmarks(entries), benchmarks(entries, "compiled").values())),
        "steps": entries,
    }


if __name__ == "__main__":
    sys.exit(main())
