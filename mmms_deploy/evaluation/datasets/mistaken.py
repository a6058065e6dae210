"""Masks that are no label maps: smoothed ones, trimaps, and numbers beside a void value.

Every reader gives a value of a mask a meaning, and another kind of mask would be counted by the wrong one without an
error. What the values and their places show is checked here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.errors import MMMSDeployWarning
from mmms_deploy.evaluation.datasets.listed import Labels
from mmms_deploy.evaluation.errors import DatasetFileError

UNDECIDED, OBJECT = 128, 255
"""Values of a trimap: the band along the border, and the object."""
_FEW = 64
"""Numbers of objects are small; a smoothed mask has greater values between 0 and 255 as well."""
_RAMP = 0.8
"""Share of the pixels of thin values that lie on a slope, from which a mask counts as smoothed."""
_LEAST = 2

SMOOTHED_FIX = (
    "for a smoothed mask of one object use the option threshold of the kind 'folder', e.g. threshold=127; for several"
    " objects save the label map without smoothing"
)


def check_no_trimap(values: list[int], file: Path, fix: str) -> None:
    """Refuse a trimap where nothing says that its band does not count.

    Args:
        values: The values of the mask that mean something.
        file: The mask, for messages.
        fix: What to do.

    Raises:
        DatasetFileError: The values are those of a trimap.
    """
    if _is_trimap(values):
        raise DatasetFileError(
            f"the mask {file} has the values 0, {UNDECIDED} and {OBJECT}: it looks like a trimap, with an undecided"
            f" band of {UNDECIDED} around the object",
            expected="a mask without an undecided band",
            fix=fix,
        )


def warn_of_trimap(values: list[int], file: Path) -> None:
    """Warn where every value is a surface and the values are those of a trimap.

    Warns:
        MMMSDeployWarning: The band would count as an object.
    """
    if _is_trimap(values):
        warnings.warn(
            f"masks in {file.parent} have the values 0, {UNDECIDED} and {OBJECT}, as trimaps do: {UNDECIDED} counts as"
            f" an object; with the option void={UNDECIDED} it is left out",
            MMMSDeployWarning,
            stacklevel=2,
        )


def _is_trimap(values: list[int]) -> bool:
    return {value for value in values if value != 0} == {UNDECIDED, OBJECT}


def check_no_numbers_beside_255(values: list[int], file: Path) -> None:
    """Refuse numbers of objects beside 255, which is void in the label maps that have both.

    Raises:
        DatasetFileError: The values are such.
    """
    others = [value for value in values if value not in (0, OBJECT)]
    if OBJECT in values and others and max(others) <= _FEW:
        raise DatasetFileError(
            f"the mask {file} has the value {OBJECT} beside numbers of objects ({', '.join(map(str, others[:5]))})",
            expected=f"0 and {OBJECT}, or numbers of objects alone",
            fix=f"give void={OBJECT} if it is the band along the borders, as in Pascal VOC and in some versions of"
            " DAVIS 2017; the kind 'voc' reads the layout of Pascal VOC",
        )


def check_has_trimap_values(values: list[int], file: Path) -> None:
    """Refuse a mask that a trimap's rule would find no object in.

    Raises:
        DatasetFileError: It marks something, and nothing as much as undecided.
    """
    if 0 < max(values, default=0) < UNDECIDED:
        raise DatasetFileError(
            f"the mask {file} has the values {', '.join(map(str, values[:6]))}{', ...' if len(values) > 6 else ''}",
            expected=f"a trimap: 0 background, {UNDECIDED} undecided, {OBJECT} object",
            fix="read label maps and masks of 0 and 1 with the kind 'folder' or 'davis'",
        )


def check_not_smoothed(labels: Labels, values: list[int], file: Path) -> None:
    """Refuse a smoothed mask: each of its grey values would be an object.

    A value is *thin* when no pixel of it has only equal neighbours, and a pixel lies on a *slope* when it has a smaller
    and a greater neighbour. On the edge of a smoothed mask nearly all pixels of thin values lie on a slope; small or
    thin objects on a background do not.

    Args:
        labels: (H, W) integers.
        values: Its values.
        file: The mask, for messages.

    Raises:
        DatasetFileError: It looks smoothed.
    """
    if len([value for value in values if value != 0]) <= _LEAST:
        return
    least, greatest = _along_both(labels, np.minimum), _along_both(labels, np.maximum)
    solid = set(np.unique(labels[least == greatest]).tolist())
    thin = [value for value in values if value != 0 and value not in solid]
    if len(thin) < _LEAST:
        return
    edge = np.isin(labels, thin)
    slope = np.count_nonzero(edge & (least < labels) & (labels < greatest)) / np.count_nonzero(edge)
    if slope >= _RAMP:
        raise DatasetFileError(
            f"the mask {file} has {len(values)} different values, {len(thin)} of them only on its edges: it looks like"
            " a smoothed mask",
            expected="one value an object",
            fix=SMOOTHED_FIX,
        )


def _along_both(
    labels: Labels, choose: Callable[[npt.NDArray[Any], npt.NDArray[Any]], npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    """Return the least or greatest label among a pixel and its 8 neighbours."""
    padded = np.pad(labels, 1, mode="edge")
    rows = choose(choose(padded[:-2], padded[1:-1]), padded[2:])
    return choose(choose(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
