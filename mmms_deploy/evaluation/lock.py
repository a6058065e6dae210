"""One evaluation at a time writes into a folder of results.

The lock is on the file that scenes are appended to. It belongs to the process: the system takes it away when the
process ends, however it ends. So nothing that a killed evaluation leaves behind keeps the next one out.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmms_deploy.evaluation.errors import ResultsInUseError
from mmms_deploy.files import writing
from mmms_deploy.files.locks import locked

SCENES_FILE = "scenes.jsonl"
_held = threading.local()


@contextmanager
def results_lock(folder: Path) -> Iterator[None]:
    """Keep other evaluations, of this process and of others, out of a folder of results.

    A thread may take a lock that it holds again. Where files cannot be locked (some network drives), a warning says so.

    Args:
        folder: The folder; made when it is not there.

    Raises:
        ResultsInUseError: Another evaluation writes into the folder.
        OutputWriteError: The folder cannot be written.
    """
    mine: set[Path] = _held.__dict__.setdefault("folders", set())
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        place = folder.resolve()
    if place in mine:
        yield
        return
    in_use = ResultsInUseError(
        f"another evaluation writes into {folder}",
        expected="one evaluation at a time in a folder of results",
        fix="wait until it has finished, or pass another folder as out",
        command_fix="wait until it has finished, or name another folder with --out",
    )
    with locked(folder / SCENES_FILE, in_use, "run one evaluation at a time in it"):
        mine.add(place)
        try:
            yield
        finally:
            mine.discard(place)
