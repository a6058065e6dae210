"""A session whose stages wait until a test lets them run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping

from mmms_deploy import Session
from mmms_deploy.engines.protocol import Value

LIMIT = 30.0
"""Seconds after which a test that waits for ever fails."""


class Held:
    """Lets the stages of sessions wait.

    Attributes:
        ran: The stages that have begun to run, in order.
        most: The most stages that ran at once.
    """

    def __init__(self, *sessions: Session) -> None:
        self._free = threading.Event()
        self._free.set()
        self._lock = threading.Lock()
        self.ran: list[str] = []
        self._now = self.most = 0
        for session in sessions:
            self.add(session)

    def add(self, session: Session) -> None:
        """Hold a session's stages, too."""
        run = session._runner.run

        def held(stage: str, inputs: Mapping[str, Value]) -> dict[str, Value]:
            with self._lock:
                self.ran.append(stage)
                self._now += 1
                self.most = max(self.most, self._now)
            try:
                assert self._free.wait(LIMIT), "the test let no stage run"
                return run(stage, inputs)
            finally:
                with self._lock:
                    self._now -= 1

        session._runner.run = held  # type: ignore[method-assign]

    def hold(self) -> None:
        """Let every stage wait from now on."""
        self._free.clear()

    def free(self) -> None:
        """Let them run."""
        self._free.set()

    async def begun(self, count: int) -> None:
        """Wait until so many stages have begun to run."""
        async with asyncio.timeout(LIMIT):
            while len(self.ran) < count:
                await asyncio.sleep(0.001)
