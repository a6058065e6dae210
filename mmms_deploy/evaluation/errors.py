"""The named errors of evaluations.

    EvaluationError
        AnnotatorUnavailableError
        MeasureError
        DatasetError
            DatasetLayoutError
            DatasetFileError
            DatasetOptionError
            DatasetLibraryError
        PredictorError
        EvaluationModalityError
        EvaluationSettingsError
        ResultsInUseError
        CaseError
        EvaluationLibraryError

Their form is that of :mod:`mmms_deploy.errors`. A mask of the wrong shape or type is a
:class:`~mmms_deploy.errors.MaskError`.
"""

from __future__ import annotations

from mmms_deploy.errors import MMMSDeployError


class EvaluationError(MMMSDeployError):
    """An evaluation cannot be done."""


class AnnotatorUnavailableError(EvaluationError):
    """The simulated annotator's library (OpenCV) is not installed."""


class MeasureError(EvaluationError):
    """A measure is not defined for the given values."""


class DatasetError(EvaluationError):
    """A data set cannot be read."""


class DatasetLayoutError(DatasetError):
    """A folder does not have the layout of the requested kind of data set."""


class DatasetFileError(DatasetError):
    """A file of a data set is missing, unreadable, or does not fit its image."""


class DatasetOptionError(DatasetError):
    """A kind of data set or one of its options is unknown, or an option has a wrong value."""


class DatasetLibraryError(DatasetError):
    """The library that reads a data set's files (SciPy, pycocotools, OpenCV) is not installed."""


class PredictorError(EvaluationError):
    """A predictor was used in a way it cannot serve."""


class EvaluationModalityError(EvaluationError):
    """A bundle and a data set do not have the same modalities."""


class EvaluationSettingsError(EvaluationError):
    """An evaluation has other settings than the results it would continue, or impossible ones."""


class ResultsInUseError(EvaluationError):
    """Another evaluation writes into the folder of results."""


class CaseError(EvaluationError):
    """An evaluation's results hold no such case."""


class EvaluationLibraryError(EvaluationError):
    """A library for a requested output (pyarrow) is not installed."""
