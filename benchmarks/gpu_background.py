"""A step of the GPU check that runs detached: it goes on when the call that started it ends, and later calls see it.

The export of the full-size network takes minutes of the processor's time and none of the GPU's. So it is started first,
and what needs it not is checked meanwhile. This file is also the process that runs the step: it notes how it ended.

Importing this needs the standard library alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Ended:
    """How a detached step ended.

    Attributes:
        code: Its exit code; None when its process is gone without a word.
        seconds: How long it took.
        output: What it printed.
    """

    code: int | None
    seconds: float
    output: str


class Background:
    """A detached step, known by two files in the folder of the report.

    Args:
        folder: The folder.
        name: Name of the step.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.log = folder / f"{name}.log"
        self._note = folder / f"{name}.process.json"
        self._end = folder / f"{name}.ended.json"

    def start(self, command: Sequence[str], folder: Path) -> None:
        """Start it, unless it runs already.

        Args:
            command: Arguments of Python.
            folder: Where it runs.
        """
        if self.running:
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._end.unlink(missing_ok=True)
        with self.log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).resolve()), str(self._end.resolve()), *command],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        note_process(self._note, process.pid)

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return not self._end.is_file() and noted_process(self._note) is not None

    @property
    def noted(self) -> bool:
        """Whether it was started here, and its outcome was not taken yet."""
        return self._note.is_file()

    def ended(self) -> Ended | None:
        """Return how it ended; None when it runs, or was never started here."""
        if self.running or not self.log.is_file():
            return None
        try:
            found = json.loads(self._end.read_text())
            code, seconds = int(found["code"]), float(found["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            code, seconds = None, 0.0
        return Ended(code, seconds, self.log.read_text(errors="replace"))

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended, and return whether it has.

        Args:
            seconds: How long to wait at most.
        """
        until = time.monotonic() + seconds
        while self.running and time.monotonic() < until:
            time.sleep(min(_POLL_SECONDS, max(0.0, until - time.monotonic())))
        return not self.running

    def forget(self) -> None:
        """Remove its files, so that it can be started again."""
        for file in (self._note, self._end):
            file.unlink(missing_ok=True)


# --- processes that are noted in a file -------------------------------------------------------------------------------


def note_process(file: Path, process: int) -> None:
    """Write which process runs, with the time at which it started: another one may get its number."""
    file.write_text(json.dumps({"process": process, "started": _started(process)}))


def noted_process(file: Path) -> int | None:
    """Return the process that a file names, if it still runs; None otherwise, and where the system cannot tell."""
    try:
        found = json.loads(file.read_text())
        process, started = int(found["process"]), str(found["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return process if started and _started(process) == started else None


def end_noted(file: Path) -> bool:
    """End the process that a file names, and all that it started; return whether there was one. The file is removed.

    A call that was ended from outside, by force, leaves the process of its step on the GPU.
    """
    process = noted_process(file)
    file.unlink(missing_ok=True)
    if process is None:
        return False
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)
    return True


def _started(process: int) -> str:
    """Return when a process started, in ticks since the machine did; empty when it does not run (any more)."""
    try:
        state, *rest = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else rest[18]


def main(end: Path, command: Sequence[str]) -> int:
    """Run a step, and write how it ended to a file."""
    start = time.monotonic()
    code = subprocess.run([sys.executable, *command], check=False).returncode
    partial = end.with_suffix(".partial")
    partial.write_text(json.dumps({"code": code, "seconds": time.monotonic() - start}))
    partial.replace(end)
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
