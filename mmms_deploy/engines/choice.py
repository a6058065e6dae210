"""The facts of a choice: which engines could execute a bundle here, what is taken first, and what stood in the way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.registry import Backend
from mmms_deploy.engines.verdicts import Verdict


@dataclass(frozen=True)
class Candidate:
    """An engine and a precision in which it could execute a bundle here.

    Attributes:
        backend: The engine.
        precision: What it would compute in.
        version: Version of its distribution, and for a GPU also which one.
        verdict: How it did in the bundle's golden replay on this machine; None when it was not measured.
        not_compiled: Why opening it would first compile for minutes; None when it opens at once, or this was not
            checked yet.
        may_build: Whether it may compile.
        ordinal: Number of the GPU.
    """

    backend: Backend
    precision: Precision
    version: str
    verdict: Verdict | None = None
    not_compiled: str | None = None
    may_build: bool = True
    ordinal: int = 0

    @property
    def exact(self) -> bool:
        """Whether it computes in float32."""
        return self.precision is Precision.FP32

    @property
    def passed(self) -> bool:
        """Whether it passed the golden replay on this machine."""
        return self.verdict is not None and self.verdict.passed

    @property
    def failed(self) -> bool:
        """Whether a mask differed in the golden replay on this machine.

        Masks that are all empty or all full let no reduced precision pass, and say nothing against it.
        """
        return self.verdict is not None and self.verdict.iou < self.verdict.limit

    @property
    def opens_at_once(self) -> bool:
        """Whether it is on the GPU, opens without compiling, and did not fail the replay."""
        return self.backend.device == "cuda" and self.not_compiled is None and not self.failed

    def checked(self, bundle: Bundle) -> Candidate:
        """Return the same, with what opening it would first have to compile."""
        if self.backend.not_compiled is None:
            return self
        return replace(self, not_compiled=self.backend.not_compiled(bundle, self.precision, self.ordinal))

    def __str__(self) -> str:
        return f"{self.backend.name} in {self.precision}"


class Obstacle(Enum):
    """Why no engine computes in a precision here."""

    ENGINES = auto()
    """The engines in question do not compute in it."""
    GRAPHS = auto()
    """The bundle does not hold the graphs for it."""
    INSTALLATION = auto()
    """The engine that computes in it is not installed."""


@dataclass(frozen=True)
class Impossible:
    """A precision that was wanted and is not possible.

    Attributes:
        wanted: The precision.
        obstacle: What is in the way.
        device: The device in question.
        engines: Names of the engines in question.
        source: Precision of the graphs that are missing; None for another obstacle.
    """

    wanted: Precision
    obstacle: Obstacle
    device: str
    engines: tuple[str, ...]
    source: Precision | None = None


@dataclass(frozen=True)
class Choice:
    """What to open.

    Attributes:
        bundle: What it is for.
        order: What to try, best first; a later one is taken, with a warning, when those before it cannot be opened.
        requested: The precision, when the caller named one; None when it was left open.
        overtaken: The first that would have to compile, when others came before it because they open at once.
        no_gpu: Why no engine on a GPU was considered although this machine was prepared for one; None otherwise.
        impossible: Why the first does not compute in the precision that was wanted; None when it does.
    """

    bundle: Bundle
    order: tuple[Candidate, ...]
    requested: Precision | None = None
    overtaken: Candidate | None = None
    no_gpu: str | None = None
    impossible: Impossible | None = None
