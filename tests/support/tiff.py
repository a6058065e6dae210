"""Writes small uncompressed TIFF files whose samples are of any kind; Pillow writes the usual ones alone."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT, BITS, PHOTOMETRIC, SAMPLES, FORMAT, MAX_SAMPLE, ORIENTATION = 256, 257, 258, 262, 277, 339, 281, 274
_SHORT, _LONG = 3, 4


def write_tiff(file: Path, array: npt.NDArray, tags: Mapping[int, int] | None = None) -> Path:
    """Write an array (H, W) or (H, W, C) with its own sample type and byte order.

    Args:
        file: The file.
        array: Integers or floats.
        tags: Further tags, or other values than those that follow from the array.
    """
    order = ">" if array.dtype.str[0] == ">" else "<"
    samples = 1 if array.ndim == 2 else array.shape[2]
    kind = {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
    body = np.ascontiguousarray(array).tobytes()
    values = {
        WIDTH: array.shape[1], HEIGHT: array.shape[0], BITS: 8 * array.itemsize, 259: 1,
        PHOTOMETRIC: 1 if samples == 1 else 2, 273: 8, SAMPLES: samples, 278: array.shape[0], 279: len(body),
        FORMAT: kind, **(tags or {}),
    }  # fmt: skip
    end = 8 + len(body)
    directory, extra = b"", b""
    place = end + 2 + 12 * len(values) + 4
    for tag, value in sorted(values.items()):
        if tag in (BITS, FORMAT) and samples > 2:
            directory += struct.pack(f"{order}HHII", tag, _SHORT, samples, place + len(extra))
            extra += struct.pack(f"{order}{samples}H", *[value] * samples)
        else:
            directory += struct.pack(f"{order}HHII", tag, _LONG, 1, value)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, end)
    file.write_bytes(head + body + struct.pack(f"{order}H", len(values)) + directory + bytes(4) + extra)
    return file
