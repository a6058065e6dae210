"""Weights as arrays of NumPy, and their types in files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
"""Weights: float16, float32 or float64."""

WIDE_TYPES: dict[str, np.dtype[Any]] = {
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
}
"""In which type NumPy reads the floating-point types of files, by torch's name; bfloat16 as its bits."""


@dataclass(frozen=True)
class WeightArrays:
    """The weights in a file.

    Attributes:
        arrays: Weights by the names that they have in the file, or had in PyTorch; float16, float32 or float64.
        positions: (1, C, H, W), what a Hiera adds to its first tokens at its grid, where the file has that in place of
            the two tables that it is made of; None where it has the tables, or there are none.
    """

    arrays: dict[str, Array]
    positions: Array | None = None


def widened(name: str, array: Array) -> Array:
    """Return what was read as :data:`WIDE_TYPES` says: bfloat16 as float32, and everything else as it is.

    Args:
        name: torch's name of the type in the file.
        array: What was read.
    """
    if name != "bfloat16":
        return array
    return (array.astype("<u4") << 16).view("<f4")
