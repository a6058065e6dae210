"""The stages that an engine holds: loaded when it is opened; larger sizes of a stage when they are first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Generic, TypeVar

from mmms_deploy.bundle import Manifest
from mmms_deploy.errors import EngineError

S = TypeVar("S")


class LoadedStages(Generic[S]):
    """Loads stages, and holds them until it is closed. Threads may share it.

    Args:
        manifest: The bundle's manifest; of stages with ``rows``, the larger ones are loaded when they are first needed.
        load: Loads a stage, by its name.

    Raises:
        EngineError: What ``load`` raises.
    """

    def __init__(self, manifest: Manifest, load: Callable[[str], S]) -> None:
        self.names = tuple(stage.name for stage in manifest.stages)
        self._load = load
        self._lock = threading.Lock()
        self._closed = False
        self._stages = {name: load(name) for name in self.names if name not in manifest.larger}

    def __iter__(self) -> Iterator[S]:
        """Go through those that are loaded."""
        return iter(tuple(self._stages.values()))

    def check_open(self) -> None:
        """Check that it is not closed.

        Raises:
            EngineError: It is.
        """
        if self._closed:
            raise EngineError("this engine is closed", expected="an open engine", fix="open the bundle again")

    def __getitem__(self, name: str) -> S:
        """Return a stage, and load it where it is not.

        Raises:
            EngineError: It is closed, there is no such stage, or what ``load`` raises.
        """
        self.prepare(name)
        try:
            return self._stages[name]
        except KeyError:
            self.check_open()  # another thread closed it in between
            raise

    def prepare(self, name: str) -> float:
        """Load a stage where it is not, and return how many seconds that took; a thread that waits for another counts.

        Raises:
            EngineError: It is closed, there is no such stage, or what ``load`` raises.
        """
        self.check_open()
        if name in self._stages:
            return 0.0
        if name not in self.names:
            raise EngineError(
                f"stage {name!r} cannot run", expected=f"one of the stages {', '.join(self.names)}", fix="name one"
            )
        start = perf_counter()
        with self._lock:
            if name not in self._stages:
                loaded = self._load(name)
                self.check_open()
                self._stages[name] = loaded
        return perf_counter() - start

    def close(self) -> None:
        """Release the stages."""
        self._closed = True
        self._stages = {}
