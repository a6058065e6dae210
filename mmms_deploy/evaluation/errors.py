"""The named errors of the evaluation."""

from __future__ import annotations

from mmms_deploy.errors import MMMSDeployError


class EvaluationError(MMMSDeployError):
    """An evaluation cannot be done."""


class AnnotatorUnavailableError(EvaluationError):
    """The simulated annotator's library (OpenCV) is not installed."""


class MaskError(EvaluationError):
    """A mask has the wrong shape or type."""


class MeasureError(EvaluationError):
    """A measure was asked for with values that it is not defined for."""
