"""What an evaluation does; a run continues only results with the same settings."""

from __future__ import annotations

from enum import StrEnum

from mmms_deploy.bundle.contract import Struct
from mmms_deploy.evaluation.errors import EvaluationSettingsError
from mmms_deploy.evaluation.measures import MAX_CLICKS

TARGETS = (0.80, 0.85, 0.90)
"""The t of NoC@t that papers report."""


class Protocol(StrEnum):
    """When to stop clicking on an object; NoC and failures are the same in both."""

    CURVE = "curve"
    """At the limit, or when no error is left: curves, AuC and boundary IoU are complete."""
    NOC = "noc"
    """As soon as the highest target is reached, which is faster but gives NoC alone."""
    PUBLISHED = "published"
    """The same, with answers made as those behind the published figures of the bundle's family."""


class Settings(Struct, frozen=True, kw_only=True):
    """What is done with every scene.

    Attributes:
        protocol: When to stop clicking on an object.
        max_clicks: The limit.
        targets: The t of NoC@t, as fractions, ascending.
        multi_surface: The (t, a) of NoCMS and FRMS, as fractions.
        multi_instance: The targets of the multi-instance task, as fractions.
        instance_clicks: The clicks per object in its budget.
    """

    protocol: Protocol = Protocol.CURVE
    max_clicks: int = MAX_CLICKS
    targets: tuple[float, ...] = TARGETS
    multi_surface: tuple[tuple[float, float], ...] = ()
    multi_instance: tuple[float, ...] = ()
    instance_clicks: int = 10

    def __post_init__(self) -> None:
        try:
            valid = self._is_valid()
        except TypeError:  # something that is no number, or no sequence of numbers
            valid = False
        if not valid:
            raise EvaluationSettingsError(
                f"targets {self.targets!r}, multi-surface {self.multi_surface!r}, multi-instance"
                f" {self.multi_instance!r}, {self.max_clicks!r} clicks, {self.instance_clicks!r} clicks per object",
                expected="fractions above 0 and at most 1, targets ascending, a at most t, one click or more",
                fix="divide percent by 100",
            )

    def _is_valid(self) -> bool:
        fractions = (*self.targets, *self.multi_instance, *(value for pair in self.multi_surface for value in pair))
        rising = all(first < second for first, second in zip(self.targets, self.targets[1:], strict=False))
        sensible = all(len(pair) == 2 and pair[1] <= pair[0] for pair in self.multi_surface)
        return (
            bool(self.targets)
            and rising
            and sensible
            and all(0 < value <= 1 and not isinstance(value, bool) for value in fractions)
            and all(type(value) is int and value >= 1 for value in (self.max_clicks, self.instance_clicks))
        )

    @property
    def stop_at(self) -> float | None:
        """IoU at which clicking stops; None to go on to the limit."""
        return None if self.protocol is Protocol.CURVE else self.targets[-1]
