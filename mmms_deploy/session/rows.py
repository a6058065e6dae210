"""The answer of a network that answers for all objects at once: logits of every click, from which objects are decided.

The network gives a map of logits for every click and for some learned rows of the background, on a grid coarser than
its picture, which it fills up with zeros at the right and at the bottom. The decision between the objects is made at
the image's size, in the order of DynaMITe's code (Rana et al., ICCV 2023; ``DynamiteModel`` and its post-processing):
every row is enlarged to the filled-up picture, cut to the network's size and resized to the image's; an object's logit
is the maximum over the clicks on it, the background's that over background clicks and learned rows; and the largest one
has the pixel. An object wins a tie with the background, and of objects the one of the lower label.

:mod:`mmms_deploy.imaging.decision` computes it tile by tile, so that the label map is all that is there of the image's
size, however many clicks there are. A GPU looks at every pixel
(:class:`~mmms_deploy.engines.protocol.DecidesLabels`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle.contract import ClickContract
from mmms_deploy.imaging.decision import Enlargement, LargestMap
from mmms_deploy.imaging.resize import BoolArray, FloatArray
from mmms_deploy.session.answers import NetworkAnswer, as_probability, log_odds, sigmoid
from mmms_deploy.session.surfaces import Labels

BACKGROUND = 0
"""The label of what belongs to no object."""
_FINITE = float(np.finfo(np.float32).max)
_BYTE = 256


def stride_of(network: tuple[int, int], grid: tuple[int, int]) -> int:
    """Return how many network pixels a cell of the logits is wide: the least power of two with which they cover it.

    The grid times this number is the filled-up picture.

    Args:
        network: (H, W) of the network.
        grid: (h, w) of its logits.
    """
    stride = 1
    while grid[0] * stride < network[0] or grid[1] * stride < network[1]:
        stride *= 2
    return stride


def enlargement(
    grid: tuple[int, int], network: tuple[int, int], size: tuple[int, int], rule: ClickContract
) -> Enlargement:
    """Return how logits become as large as the image.

    Args:
        grid: (h, w) of the logits.
        network: (H, W) of the network.
        size: (H0, W0) of the image.
        rule: How maps are resized.
    """
    stride = stride_of(network, grid)
    return Enlargement((grid[0] * stride, grid[1] * stride), network, size, rule.mask_resize)


@dataclass(frozen=True, eq=False)
class Rows:
    """Logits of clicks and of the background, on the host.

    Attributes:
        logits: (R, h, w) float32, read-only, finite, on the network's grid.
        owners: (R,) the label of the object that each row belongs to; 0 for the background.
        network: (H, W) of the network.
        rule: How maps are resized, and the threshold.
    """

    logits: FloatArray
    owners: npt.NDArray[np.int32]
    network: tuple[int, int]
    rule: ClickContract

    @property
    def objects(self) -> tuple[int, ...]:
        """The labels of the objects, rising."""
        return tuple(int(label) for label in np.unique(self.owners) if label != BACKGROUND)

    @property
    def stride(self) -> int:
        """How many network pixels a cell of the grid is wide."""
        return stride_of(self.network, (self.logits.shape[1], self.logits.shape[2]))

    def numbered(self) -> tuple[npt.NDArray[np.uint8], Labels | None]:
        """Return the owners as numbers of one byte, in the same order, and the label of every number.

        Returns:
            (R,) uint8, 0 for the background; and (N,) int32, or None where the numbers are the labels.
        """
        if self.owners.max() < _BYTE:
            return self.owners.astype(np.uint8), None
        labels = np.union1d(self.owners, [BACKGROUND]).astype(np.int32)
        assert len(labels) <= _BYTE, "a network answers for 255 objects at most"
        return np.searchsorted(labels, self.owners).astype(np.uint8), labels

    def enlarged(self, size: tuple[int, int]) -> Enlargement:
        """Return how the logits become as large as the image, (H0, W0)."""
        return enlargement((self.logits.shape[1], self.logits.shape[2]), self.network, size, self.rule)

    def labels(self, size: tuple[int, int]) -> Labels:
        """Return the label of each pixel's object at a size, (H0, W0) int32, read-only."""
        labels = self._at(size).labels()
        labels.setflags(write=False)
        return labels

    def margin(self, label: int, size: tuple[int, int] | None = None) -> FloatArray:
        """Return an object's logit minus the largest of all others, the background's among them.

        Args:
            label: The object; it has a row.
            size: (H0, W0); None for the network's grid, on which nothing is resized.

        Returns:
            (H0, W0) or (h, w) float32, finite, a new array.
        """
        margin: FloatArray
        if size is None:
            others = self.logits[self.owners != label].max(axis=0, initial=-np.inf)
            margin = self.logits[self.owners == label].max(axis=0) - others
        else:
            margin = self._at(size).margin(label)
        np.clip(margin, -_FINITE, _FINITE, out=margin)
        return margin

    def _at(self, size: tuple[int, int]) -> LargestMap:
        return LargestMap(self.logits, self.owners, self.enlarged(size))


@dataclass(frozen=True, eq=False)
class Decision:
    """Which object has each pixel of the image.

    Attributes:
        numbers: (H0, W0) uint8 or int32, read-only: the number of each pixel's object, 0 for the background.
        table: (N,) the label of every number; None where the numbers are the labels.
        device: Where it was decided: ``cpu`` or ``cuda``.
    """

    numbers: npt.NDArray[Any]
    table: Labels | None = None
    device: str = "cpu"

    @cached_property
    def labels(self) -> Labels:
        """(H0, W0) int32, read-only: the label of each pixel's object; computed on first use."""
        labels: Labels
        labels = self.numbers.astype(np.int32, copy=False) if self.table is None else self.table.take(self.numbers)
        labels.setflags(write=False)
        return labels

    def mask(self, label: int) -> BoolArray:
        """Return where an object is, (H0, W0) bool, a new array."""
        number = label
        if self.table is not None:
            number = int(np.searchsorted(self.table, label))
            if number == len(self.table) or self.table[number] != label:
                return np.zeros(self.numbers.shape, dtype=np.bool_)
        mask: BoolArray = self.numbers == number
        return mask


@dataclass(frozen=True, eq=False)
class ObjectAnswer:
    """The answer for one of several objects, in the whole image.

    Attributes:
        rows: The answer for all of them.
        label: The object.
        size: (H0, W0) of the image.
    """

    rows: Rows
    label: int
    size: tuple[int, int]

    def probability(self) -> FloatArray:
        """Return the sigmoid of the margin, (H0, W0) float32."""
        return sigmoid(self.rows.margin(self.label, self.size))

    def mask(self, threshold: float) -> BoolArray:
        """Return where it is above a threshold, (H0, W0) bool."""
        above: BoolArray = self.rows.margin(self.label, self.size) > np.float32(log_odds(threshold))
        return above

    def coarse(self) -> NetworkAnswer:
        """Return the margin on the network's grid, without what fills the picture up."""
        height, width = (-(-side // self.rows.stride) for side in self.rows.network)
        margin = np.ascontiguousarray(self.rows.margin(self.label)[:height, :width])
        margin.setflags(write=False)
        return NetworkAnswer(margin, self.rows.rule)


def no_answer(size: tuple[int, int], rule: ClickContract) -> NetworkAnswer:
    """Return the answer for an object without a click on it: a probability of zero, (h, w)."""
    zeros = np.zeros(size, dtype=np.float32)
    zeros.setflags(write=False)
    return NetworkAnswer(zeros, as_probability(rule))
