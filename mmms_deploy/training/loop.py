"""The loop of a run: steps, a log, states at intervals, and one more state when it is stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmms_deploy.errors import FileReadError
from mmms_deploy.files import append_to, read_text, write_file, writing
from mmms_deploy.progress import OnProgress, Progress
from mmms_deploy.training.batches import Batches, stream
from mmms_deploy.training.rounds import Round
from mmms_deploy.training.run import TrainingRun
from mmms_deploy.training.state import RunFacts, load_state, save_state

STATE_FILE = "state.safetensors"
LOG_FILE = "log.jsonl"
LOG_EVERY = 10
"""Steps averaged in a line of the log."""
SAVE_SECONDS = 120.0
_LOG_LIMIT = 256 << 20

Measure = Callable[[TrainingRun], dict[str, Any]]
"""Measures a run; what it returns is written to the log."""


def resume(run: TrainingRun, folder: Path, facts: RunFacts) -> bool:
    """Bring a run to where its folder's state stands; returns whether there is one.

    Raises:
        TrainingStateError: The state is damaged, or belongs to a run with other settings.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return False
    run.restore(load_state(path, facts))
    return True


def train(
    run: TrainingRun,
    batches: Batches,
    folder: Path,
    facts: RunFacts,
    *,
    measure: Measure | None = None,
    measure_every: int = 0,
    save_seconds: float = SAVE_SECONDS,
    on_progress: OnProgress | None = None,
) -> None:
    """Train until the recipe's last step.

    When Ctrl-C stops it, the step at hand is finished and the state is written: :func:`resume` goes on from it.

    Args:
        run: The run.
        batches: Its batches.
        folder: Where ``state.safetensors`` and ``log.jsonl`` are kept; the log's lines after the run's step are
            dropped.
        facts: What the state belongs to.
        measure: Measures the run.
        measure_every: Steps between two measurements; 0 for none.
        save_seconds: Seconds between two states.
        on_progress: Receives every step.

    Raises:
        TrainingError: The loss is no number any more.
        OutputWriteError: State or log cannot be written.
    """
    steps, path = run.recipe.steps, folder / STATE_FILE
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    _cut_log(folder / LOG_FILE, run.step)
    saved = started = time.monotonic()
    window: list[list[Round]] = []
    detail = ""
    # Steps run in a thread, so that a signal interrupts the waiting and never a step.
    with (
        ThreadPoolExecutor(1, "mmms-steps", torch.set_num_threads, (1,)) as worker,
        append_to(folder / LOG_FILE) as log,
    ):
        first, doing = run.step, None
        try:
            for batch in stream(batches, run.step, steps):
                doing = worker.submit(run.train_step, batch)
                window.append(doing.result())
                if run.step % LOG_EVERY == 0 or run.step == steps:
                    line = _line(run, window) | {"seconds": round(time.monotonic() - started, 2), "from": first}
                    _write(log, line)
                    detail = f"loss {line['loss']:.3f}  IoU {line['first']:.2f} > {line['last']:.2f}"
                    window = []
                if measure is not None and measure_every and (run.step % measure_every == 0 and run.step < steps):
                    _write(log, {"step": run.step, "measured": measure(run)})
                if on_progress is not None:
                    on_progress(Progress("training", run.step, steps, finished=run.step == steps, detail=detail))
                if time.monotonic() - saved > save_seconds:
                    save_state(path, run.state(), facts)
                    saved = time.monotonic()
        except KeyboardInterrupt:
            if doing is not None:
                wait([doing])
            if doing is None or doing.exception() is None:
                save_state(path, run.state(), facts)
            raise
    save_state(path, run.state(), facts)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log; one that was cut off is left out."""
    try:
        text = read_text(folder / LOG_FILE, _LOG_LIMIT)
    except FileReadError:
        return []
    lines = []
    for line in text.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int)]


def _cut_log(path: Path, step: int) -> None:
    """Drop what a run logged after the state that it goes on from."""
    lines = [line for line in read_log(path.parent) if line["step"] <= step]
    write_file(path, "".join(json.dumps(line) + "\n" for line in lines).encode())


def _line(run: TrainingRun, window: list[list[Round]]) -> dict[str, Any]:
    return {
        "step": run.step,
        "rate": run.recipe.rate(run.step - 1),
        "loss": round(float(np.mean([one.loss for rounds in window for one in rounds])), 5),
        "first": round(float(np.mean([rounds[0].iou for rounds in window])), 4),
        "last": round(float(np.mean([rounds[-1].iou for rounds in window])), 4),
    }


def _write(log: Any, line: dict[str, Any]) -> None:
    log.write(json.dumps(line).encode() + b"\n")
    log.flush()
