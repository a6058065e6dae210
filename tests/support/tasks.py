"""Tasks for pools of workers: some end their process, once or every time."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmms_deploy.errors import FileReadError, SessionError


@dataclass(frozen=True)
class Doubling:
    """Opens work that doubles numbers.

    Attributes:
        folder: Where it notes what it began.
        deadly: Numbers that end the process every time.
        once: Numbers that end the process the first time.
        refused: Numbers that are refused by name.
        broken: Whether the work cannot be opened.
    """

    folder: Path
    deadly: tuple[int, ...] = ()
    once: tuple[int, ...] = ()
    refused: tuple[int, ...] = ()
    broken: bool = False

    @contextmanager
    def __call__(self) -> Iterator[Callable[[int], int]]:
        if self.broken:
            raise FileReadError("no bundle here", reason="there is no such file", expected="a bundle")
        yield self.double

    def double(self, number: int) -> int:
        before = self.folder / f"{number}"
        began = before.exists()
        before.touch()
        if number in self.deadly or (number in self.once and not began):
            os.kill(os.getpid(), signal.SIGKILL)
        if number in self.refused:
            raise SessionError(f"{number} is refused", expected="another", fix="pass another")
        return 2 * number
