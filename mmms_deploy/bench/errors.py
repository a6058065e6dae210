"""The named errors of measuring.

    BenchError
        RecipeError
        ReportError
        IncomparableError
        NotMeasuredError

Their form is that of :mod:`mmms_deploy.errors`.
"""

from __future__ import annotations

from mmms_deploy.errors import MMMSDeployError


class BenchError(MMMSDeployError):
    """A measurement could not be made, or its results cannot be used."""


class RecipeError(BenchError):
    """A recipe is unknown, or its bundle cannot be made on this machine."""


class ReportError(BenchError):
    """A file of results is missing, was written in another schema, or holds something else."""


class IncomparableError(BenchError):
    """Two results come from different machines, networks or workloads."""


class NotMeasuredError(BenchError):
    """One number cannot be measured here; the report gives the error's text as the reason."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
