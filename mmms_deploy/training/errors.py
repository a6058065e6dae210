"""The named errors of training.

    TrainingError
        TrainingDataError
        TrainingSettingsError
        TrainingStateError
        TrainingInUseError
        FeatureCacheError

Their form is that of :mod:`mmms_deploy.errors`.
"""

from __future__ import annotations

from mmms_deploy.errors import MMMSDeployError


class TrainingError(MMMSDeployError):
    """A network cannot be trained."""


class TrainingDataError(TrainingError):
    """The data hold nothing to train on, or do not have what the network takes."""


class TrainingSettingsError(TrainingError):
    """Settings of a training run contradict each other or are out of range."""


class TrainingStateError(TrainingError):
    """A folder holds the state of a run with other settings, a damaged state, or other files."""


class TrainingInUseError(TrainingError):
    """Another run trains in this folder."""


class FeatureCacheError(TrainingError):
    """Features do not fit the room for them, or a stored one cannot be read."""
