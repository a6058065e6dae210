"""Everything that needs a GPU, on this machine, and one report of it: ``make gpu-check``.

Runs the tests that are marked ``gpu``, compiles the plans of the bundles it is given (and proves their precision),
replays their golden clicks on the GPU, and measures them with ``mmms-bench``. Each step is a process, so that one
that crashes does not take the others along. Needs no network. Exits with 1 when a step failed, and with 2, writing
nothing, when there is no GPU.

    python benchmarks/gpu_check.py bundles/demo
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import mmms_deploy
from mmms_deploy.engines.devices import Probe, probe
from mmms_deploy.reporting.files import write_text
from mmms_deploy.reporting.html import document

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_TAIL = 4000


@dataclass(frozen=True)
class Step:
    """A command that was run.

    Attributes:
        name: What it is for.
        command: The command.
        passed: Whether it succeeded.
        seconds: How long it took.
        output: The end of what it printed.
        results: What it wrote as JSON, or what its test report says; None when nothing.
    """

    name: str
    command: str
    passed: bool
    seconds: float
    output: str
    results: Any = None


def main() -> None:
    """Check the GPU of this machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", type=Path, help="bundles to compile, replay and measure")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of gpu-check.json and gpu-check.html")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds that one step may take")
    arguments = parser.parse_args()
    found = probe()
    if found.problem is not None:
        print(f"no GPU can be checked: {found.given}\n  to fix: {found.fix}", file=sys.stderr)
        sys.exit(2)
    with tempfile.TemporaryDirectory() as folder:
        steps = run_all(arguments.bundles, Path(folder), arguments.timeout)
    arguments.out.mkdir(parents=True, exist_ok=True)
    report = describe(found, steps)
    write_text(arguments.out / "gpu-check.json", json.dumps(report, indent=1).encode() + b"\n")
    write_text(arguments.out / "gpu-check.html", page(report).encode())
    for step in steps:
        print(f"{'passed' if step.passed else 'FAILED'}  {step.name} ({step.seconds:.0f} s)")
    print(arguments.out / "gpu-check.html")
    sys.exit(0 if all(step.passed for step in steps) else 1)


def run_all(bundles: Sequence[Path], folder: Path, timeout: float) -> list[Step]:
    """Run every step, whatever becomes of the others.

    Args:
        bundles: Bundles to compile, replay and measure.
        folder: Where steps may write.
        timeout: Seconds that one may take.
    """
    python, junit = sys.executable, folder / "tests.xml"
    tests = [python, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", f"--junitxml={junit}", "tests"]
    steps = [run("tests that need a GPU", tests, timeout, junit)]
    for bundle in bundles:
        name, plans, bench = bundle.name, folder / f"{bundle.name}.plans.json", folder / f"{bundle.name}.bench.json"
        tool = [python, "-m"]
        steps += [
            run(
                f"plans of {name}",
                [*tool, "mmms_deploy.commands.build", str(bundle), "--json", str(plans)],
                timeout,
                plans,
            ),
            run(
                f"golden replay of {name} on the GPU",
                [*tool, "mmms_deploy.commands.verify", str(bundle), "--device", "cuda", "--strict"],
                timeout,
            ),
            run(
                f"time and memory of {name} on the GPU",
                [
                    *tool,
                    "mmms_deploy.commands.bench",
                    str(bundle),
                    "--device",
                    "cuda",
                    "--no-eager",
                    "--json",
                    str(bench),
                ],
                timeout,
                bench,
            ),
        ]
    return steps


def run(name: str, command: Sequence[str], timeout: float, written: Path | None = None) -> Step:
    """Run a command.

    Args:
        name: What it is for.
        command: The command.
        timeout: Seconds that it may take.
        written: A file of JSON or JUnit's XML that it writes.
    """
    start = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, check=False
        )
        code, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        code, output = -1, (error.stdout or b"") + f"\nstopped after {timeout:.0f} s".encode()
    seconds = time.monotonic() - start
    results = None
    if written is not None and written.is_file():
        text = written.read_text()
        results = counts(text) if written.suffix == ".xml" else json.loads(text)
    # pytest: 5 means that no test was found, which proves nothing.
    tail = output.decode(errors="replace")[-_TAIL:]
    return Step(name, " ".join(map(str, command)), code == 0, seconds, tail, results)


def counts(junit: str) -> dict[str, Any]:
    """Return how many tests passed, failed and were skipped, and the names of those that failed."""
    cases = list(ElementTree.fromstring(junit).iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    return {
        "passed": len(cases) - len(failed) - len(skipped),
        "failed": [f"{case.get('classname')}::{case.get('name')}" for case in failed],
        "skipped": len(skipped),
    }


def describe(found: Probe, steps: Sequence[Step]) -> dict[str, Any]:
    """Return the report."""
    return {
        "mmms_deploy": mmms_deploy.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "gpus": [str(gpu) for gpu in found.gpus],
        "driver": found.driver,
        "cuda": {"driver": found.cuda, "bindings": found.runtime},
        "passed": all(step.passed for step in steps),
        "steps": [asdict(step) for step in steps],
    }


def page(report: dict[str, Any]) -> str:
    """Return the report as a page."""
    rows = [
        f"<tr><td>{escape(step['name'])}</td><td>{'passed' if step['passed'] else _FAILED}</td>"
        f"<td>{step['seconds']:.1f}</td></tr>"
        for step in report["steps"]
    ]
    parts = [
        "<h1>GPU check</h1>",
        f'<p class="faint">{escape(", ".join(report["gpus"]))}; driver {escape(str(report["driver"]))};'
        f" mmms-deploy {escape(report['mmms_deploy'])}; {escape(report['date'])}</p>",
        f"<table><tr><th>step</th><th>result</th><th>seconds</th></tr>{''.join(rows)}</table>",
        *(part for step in report["steps"] for part in _details(step)),
    ]
    return document("mmms-deploy: GPU check", parts)


_FAILED = '<span class="regression">FAILED</span>'


def _details(step: dict[str, Any]) -> list[str]:
    parts = [f"<h2>{escape(step['name'])}</h2>", f'<p class="faint">{escape(step["command"])}</p>']
    results = step["results"]
    if isinstance(results, dict) and "plans" in results:
        rows = "".join(
            f"<tr><td>{escape(plan['stage'])}</td><td>{escape(plan['precision'])}</td>"
            f"<td>{escape(', '.join(f'{n} {kind}' for kind, n in plan['matrices'].items()))}</td>"
            f"<td>{plan['fused']} of {plan['attentions']}</td><td>{plan['kernels']}</td>"
            f"<td>{plan['plan_bytes'] / 1e6:.1f}</td><td>{plan['seconds']:.1f}</td></tr>"
            for plan in results["plans"]
        )
        heads = ("stage", "precision", "matrix operations", "attentions fused", "kernels", "plan MB", "seconds")
        parts.append(f"<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{rows}</table>")
    elif isinstance(results, dict) and "skipped" in results:
        parts.append(
            f"<p>{results['passed']} passed, {len(results['failed'])} failed, {results['skipped']} skipped</p>"
        )
        parts += [f'<p class="regression">{escape(name)}</p>' for name in results["failed"]]
    printed = "".join(c for c in step["output"] if c in "\n\t" or c >= " ")
    parts.append(f'<div class="scroll"><pre>{escape(printed)}</pre></div>')
    return parts


if __name__ == "__main__":
    main()
