"""The features of a picture's crops: the image stage runs once for a crop, and the newest ones are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from mmms_deploy.session.pipeline import PipelineState
from mmms_deploy.session.zoom import Box

KEPT = 3
"""Crops whose features are kept beside those of the whole picture, which every object begins with."""


class Crops:
    """What the stages before the clicks make of the crops of one picture.

    A cache: what it holds follows from the picture and its modalities alone, so that a call that fails leaves nothing
    wrong behind.

    Args:
        compute: Runs these stages for a crop, or for its mirror image.
        whole: The whole picture.
        features: What they made of the whole picture.
    """

    def __init__(self, compute: Callable[[Box, bool], PipelineState], whole: Box, features: PipelineState) -> None:
        self._compute = compute
        self._whole = whole
        self._kept: OrderedDict[Box, dict[bool, PipelineState]] = OrderedDict({whole: {False: features}})

    def at(self, box: Box, *, mirrored: bool = False) -> PipelineState:
        """Return the features of a crop, or of its mirror image.

        Raises:
            EngineError: A stage failed.
        """
        if box in self._kept and mirrored in self._kept[box]:
            self._kept.move_to_end(box)
            return self._kept[box][mirrored]
        features = self._compute(box, mirrored)
        self._kept.setdefault(box, {})[mirrored] = features
        self._kept.move_to_end(box)
        others = [other for other in self._kept if other != self._whole]
        for other in others[: max(0, len(others) - KEPT)]:
            del self._kept[other]
        return features
