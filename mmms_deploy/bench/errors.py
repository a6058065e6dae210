"""The named errors of measuring, in the package's form."""

from __future__ import annotations

from mmms_deploy.errors import MMMSDeployError


class BenchError(MMMSDeployError):
    """A measurement could not be made, or its results cannot be used."""


class RecipeError(BenchError):
    """A recipe is unknown, or its bundle cannot be made on this machine."""


class ReportError(BenchError):
    """A file of results is missing, was written in another schema, or is none."""


class IncomparableError(BenchError):
    """Two results come from different machines, networks or workloads, and it was not said that this is wanted."""


class NotMeasuredError(BenchError):
    """One number cannot be measured here; its text is the reason that the report gives instead."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
