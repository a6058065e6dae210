"""What one worker of a test run makes, and all workers of the same run read."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest


def shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that is made once a run, by the worker that needs it first.

    It lies in the run's temporary folder, so the next run makes it anew. Its files are for reading only. Two workers
    that need it at the same time both make it, and the second one's is dropped.

    Args:
        factory: The fixture ``tmp_path_factory``.
        name: Name of the folder, one a run.
        make: Takes an empty folder and fills it.
    """
    top = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        top = top.parent  # every worker has a folder of its own in the run's
    place = top / "shared" / name
    place.parent.mkdir(exist_ok=True)
    if place.exists():
        return place
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        made = Path(folder) / name
        made.mkdir()
        make(made)
        for file in made.rglob("*"):
            if file.is_file():
                file.chmod(0o444)
        try:
            made.rename(place)
        except OSError:
            if not place.exists():
                raise
    return place
