"""What is trained on: views, each one picture or part of one with its targets.

A view is made once; its backbone's maps are kept (:mod:`mmms_deploy.training.feature_cache`). So whatever a view shows
must be decided when it is made: the part of the picture, a mirror image, what is pasted into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class View:
    """A picture to train on, of any size; it is resized as the network's description says.

    Attributes:
        image: (h, w, 3) uint8, RGB.
        targets: (T, h, w) bool, true on each target; they may overlap. A view without any is kept and never shown.
        weights: (T,) float32, weight of each target's first click in the loss: less than 1 where one click cannot tell
            what is meant.
        modalities: (h, w, C) float32 in the network's unit, by name; those that the view does not have are left out.
        void: (h, w) bool, true where a pixel is neither target nor background; None for nowhere.
    """

    image: NDArray[np.uint8]
    targets: NDArray[np.bool_]
    weights: NDArray[np.float32]
    modalities: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    void: NDArray[np.bool_] | None = None


class Views(Protocol):
    """A series of views, made one by one, each a function of its number alone."""

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """Return what the view of a number depends on, without making it: the same text for the same view, ever."""
        ...

    def __getitem__(self, index: int) -> View: ...


class JoinedViews:
    """Several series of views as one, in order.

    Args:
        parts: The series.
    """

    def __init__(self, *parts: Views) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def key(self, index: int) -> str:
        """Return the key of the part's own view."""
        part, own = self._place(index)
        return part.key(own)

    def __getitem__(self, index: int) -> View:
        part, own = self._place(index)
        return part[own]

    def _place(self, index: int) -> tuple[Views, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._parts[number], index - int(self._starts[number])
