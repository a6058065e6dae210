"""A part of a script in a process of its own: it reports in lines of JSON, and what it held is free after it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from mmms_deploy.errors import MMMSDeployError


def run_alone(command: Sequence[str], on_step: Callable[[str], None]) -> dict[str, Any]:
    """Run a part of a script in a process of its own, which is :func:`report_alone` there.

    Args:
        command: Arguments for this Python, the script first.
        on_step: Called with the name of each step.

    Returns:
        ``{"row": ...}`` with what the part returned, or ``{"why": ...}`` when it failed or was killed.
    """
    found: dict[str, Any] = {}
    with (
        tempfile.TemporaryFile("w+", errors="replace") as errors,
        subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=errors, text=True) as child,
    ):
        for text in child.stdout or ():
            try:
                line = json.loads(text)
            except ValueError:
                continue  # a library's chatter
            if not isinstance(line, dict):
                continue
            if "step" in line:
                on_step(line["step"])
            else:
                found = line
        code = child.wait()
        errors.seek(0)
        last = errors.read().strip().splitlines()[-1:]
    if "row" in found or "why" in found:
        return found
    return {"why": f"the process ended with {code}" + (f": {last[0]}" if last else "")}


def report_alone(part: Callable[[Callable[[str], None]], dict[str, Any]]) -> int:
    """Run a part in this process, and send its steps and its result to :func:`run_alone`.

    Args:
        part: Takes what to call with the name of each step, and returns what JSON can hold.

    Returns:
        The exit code.
    """

    def send(**line: Any) -> None:
        print(json.dumps(line), flush=True)

    try:
        row = part(lambda name: send(step=name))
    except MMMSDeployError as error:
        send(why=str(error))
        return 1
    send(row=row)
    return 0
