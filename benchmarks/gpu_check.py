"""Everything that needs a GPU, on this machine, and one report of it: ``make gpu-check``.

Describes the machine. Compiles the plans of the given bundles and inspects their precision. Replays their golden clicks
and measures them with every engine for CUDA in float16 and float32, beside PyTorch where it can use the GPU. Runs the
tests that are marked ``gpu``. Each step is a process of its own, so that a crash ends no other step, and the report is
written again after each. Needs no network and no installation of this package; the report says what is missing. Exits
with 1 when a step failed, and with 2 when nothing could be checked; without a GPU the report says so of every step.

    python3 benchmarks/gpu_check.py --full-size bundles/demo
    python3 benchmarks/gpu_check.py --full-size --background --minutes 3   # export meanwhile, and go on after the call
    python3 benchmarks/gpu_check.py --full-size --resume --minutes 9       # continue where the last call stopped
    python3 benchmarks/gpu_check.py --full-size --only 'bench:*'           # these steps, the others stay as they were
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import gpu_steps
from gpu_background import Background, end_noted, note_process
from gpu_steps import BASE, ROOT, State, Step, checked_bundle, lacks, now, run, shown, steps_of

RESULTS = ROOT / "gpu-check"
"""Where the report goes by default; git ignores it."""
SCHEMA, KIND = 2, "gpu-check"
BAD = (State.FAILED, State.STOPPED)
_TAIL = 4000
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
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="folder of gpu-check.json and gpu-check.html (default: gpu-check)"
    )
    parser.add_argument(
        "--copy-to", type=Path, metavar="DIR", help="write the report into this folder, too, after each step"
    )
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="run these steps (bench:*); the others keep their outcome"
    )
    parser.add_argument(
        "--resume", action="store_true", help="run the steps that did not pass yet; the others keep their outcome"
    )
    parser.add_argument(
        "--background",
        action="store_true",
        help="with --full-size: export in a process that goes on when this call ends; what needs it comes last",
    )
    parser.add_argument(
        "--allow-unproven",
        action="store_true",
        help="take plans of TensorRT whose kernels show another type than their precision; the report lists them",
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
    # A call that is cut off ends its step first, so that nothing of it stays on the GPU.
    with suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _check(options)
    except KeyboardInterrupt:
        print("interrupted; --resume continues", file=sys.stderr)
        return 130


def _check(options: argparse.Namespace) -> int:
    from mmms_deploy.engines.cuda.devices import probe
    from mmms_deploy.errors import MMMSDeployError

    found = probe()
    try:
        bundles = [checked_bundle(path) for path in options.bundles]
        steps = list(steps_of(bundles, full_size=options.full_size, allow_unproven=options.allow_unproven))
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
    if options.only and not any(_named(step, options.only) for step in steps):
        print(f"no step is called {' or '.join(options.only)}; --list names them", file=sys.stderr)
        return 2
    check = _Check(options, machine, steps)
    if found.problem is not None:
        check.without_gpu(chosen, f"no GPU can be checked: {found.given}", found.fix)
        return 2
    if end_noted(check.running):
        print("ended the step of a call that was cut off", flush=True)
    check.run(chosen)
    report = check.save()
    print(*report["targets"], sep="\n")
    print(shown(str(options.out / "gpu-check.html")))
    return 0 if report["passed"] else 1


class _Check:
    """The steps, run in turn; the report is written after each.

    Args:
        options: The options of the command.
        machine: The GPUs and their driver.
        steps: All steps.
    """

    def __init__(self, options: argparse.Namespace, machine: Mapping[str, Any], steps: list[Step]) -> None:
        self._options, self._machine, self._steps = options, machine, steps
        self.running: Path = options.out / "running.json"
        self._export = Background(options.out, "export")
        self._deadline = None if options.minutes is None else time.monotonic() + 60 * options.minutes

    def run(self, chosen: Sequence[str]) -> None:
        """Run the chosen steps. Those that need an export that is still running come last."""
        if self._options.background:
            self._start_export()
        queue = [index for index, step in enumerate(self._steps) if step.name in chosen]
        while queue:
            self._take_export()
            queue = [index for index in queue if _chosen(self._steps[index], None, False)]
            index = next((one for one in queue if not self._waits(self._steps[one])), queue[0] if queue else -1)
            if index < 0:
                break
            step = self._steps[index]
            left = self._left()
            if left < _SHORTEST and self._deadline is not None:
                print(f"the time is up before {step.name}; continue with --resume")
                break
            if self._waits(step):
                print(f"waiting for the export, for which {step.name} waits ...", flush=True)
                if self._export.wait(left):
                    continue
                print("the export is not done; continue with --resume")
                break
            queue.remove(index)
            print(f"{step.name} ...", flush=True)
            self._record(index, run(step, left, self._started))

    def without_gpu(self, chosen: Sequence[str], why: str, fix: str) -> None:
        """Describe the machine, and say of every other step why it is not run."""
        print(f"{why}\n  to fix: {fix}", file=sys.stderr)
        if self._options.background:
            self._start_export()
        for index, step in enumerate(self._steps):
            if step.name == "doctor" and step.name in chosen:
                self._record(index, run(step, self._left(), self._started))
            elif step.state is not State.PASSED:
                self._steps[index] = replace(step, missing=f"{why}; to fix: {fix}", state=State.SKIPPED, date=now())
        self.save()
        print(shown(str(self._options.out / "gpu-check.html")))

    def save(self) -> dict[str, Any]:
        """Write the report of the steps so far, and return it."""
        report = save(self._options.out, self._machine, self._steps)
        if self._options.copy_to is not None:
            try:
                save(self._options.copy_to, self._machine, self._steps)
                if self._export.log.is_file():
                    shutil.copyfile(self._export.log, self._options.copy_to / self._export.log.name)
            except OSError as error:
                print(f"the report could not be copied: {error}", file=sys.stderr)
        return report

    def _record(self, index: int, step: Step) -> None:
        self.running.unlink(missing_ok=True)
        self._steps[index] = step
        self.save()
        _print_step(step)

    def _started(self, process: int) -> None:
        self.running.parent.mkdir(parents=True, exist_ok=True)
        note_process(self.running, process)

    def _left(self) -> float:
        """Return the seconds that the next step may take."""
        timeout = float(self._options.timeout)
        return timeout if self._deadline is None else min(timeout, self._deadline - time.monotonic())

    # --- the export, which may run in the background ---

    def _start_export(self) -> None:
        step = next((step for step in self._steps if step.name == "export"), None)
        if step is None or step.state is State.PASSED:
            return
        if step.missing:
            print(f"no export in the background: {step.missing}", file=sys.stderr)
            return
        print(f"export ... in the background; it writes to {shown(str(self._export.log))}", flush=True)
        self._export.start(step.command, ROOT)

    def _waits(self, step: Step) -> bool:
        needs = step.name == "export" or step.bundle == str(gpu_steps.FULL_SIZE)
        return needs and self._export.running

    def _take_export(self) -> None:
        """Note the outcome of an export in the background once it has ended."""
        ended = self._export.ended()
        index = next((index for index, step in enumerate(self._steps) if step.name == "export"), None)
        if ended is None or index is None or not self._export.noted:
            return
        self._export.forget()
        if ended.code is None:
            return  # it was cut off: it runs again as a step like the others
        text, step = shown(ended.output), self._steps[index]
        state = State.PASSED if ended.code == 0 else State.FAILED
        self._record(index, replace(step, state=state, seconds=ended.seconds, date=now(), output=text[-_TAIL:]))


def _chosen(step: Step, only: Sequence[str] | None, resume: bool) -> bool:
    if step.name == "export" and step.state is State.PASSED:
        return False  # the network is there
    if only and not _named(step, only):
        return False
    return not (resume and step.state is State.PASSED)


def _named(step: Step, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(step.name, pattern) for pattern in patterns)


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
        if older["machine"]["gpus"] == []:
            return list(steps)  # nothing was measured
        known = (older["kind"], older["schema"], older["machine"]) == (KIND, SCHEMA, dict(machine))
        done = {entry["name"]: entry for entry in older["steps"]}
    except (ValueError, KeyError, TypeError):
        known, done = False, {}
    if not known:
        raise MMMSDeployError(
            f"{file} is no report of this machine and this version",
            expected=f"one of {', '.join(machine['gpus']) or 'no GPU'}, driver {machine['driver']}",
            fix="name another folder (--out), or leave --resume and --only out to replace it",
        )
    kept = ("seconds", "date", "output", "results")

    def merged(step: Step) -> Step:
        entry = done.get(step.name)
        if entry is None or (step.state is State.PASSED and entry["state"] != State.PASSED):
            return step  # new; or a network that was not there then
        return replace(step, **{key: entry[key] for key in kept}, state=State(entry["state"]))

    return [merged(step) for step in steps]


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
