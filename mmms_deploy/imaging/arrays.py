"""Arrays that callers pass: plain numbers, and what a masked array hides.

Subclasses of ``numpy.ndarray`` (``memmap``, ``matrix``, those that carry units) count by their plain numbers. A masked
array (``numpy.ma``, as rasterio and netCDF4 return them) says of some numbers that they mean nothing. Functions of
NumPy forget this on the way, so it is asked here, once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]


def plain(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array as a plain ``numpy.ndarray``, not copied; a masked one stays as it is.

    Args:
        array: Any array.
    """
    return array if type(array) is np.ndarray or isinstance(array, np.ma.MaskedArray) else np.asarray(array)


def hidden(array: npt.NDArray[Any]) -> BoolArray | None:
    """Return where a masked array hides its numbers; None for nowhere.

    Args:
        array: Any array.

    Returns:
        Bools of the array's shape.
    """
    if not isinstance(array, np.ma.MaskedArray):
        return None
    # The mask of a structured dtype has fields; no such array is a picture.
    mask = np.ma.getmask(array)
    if mask is np.ma.nomask or mask.dtype != np.bool_ or not mask.any():
        return None
    return np.asarray(mask)


def unmasked(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array's numbers without its mask, as a plain ``numpy.ndarray``, not copied."""
    return np.asarray(np.ma.getdata(array, subok=False))
