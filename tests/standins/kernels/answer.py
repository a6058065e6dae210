"""A model of ``answer.cu``."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tests.standins.kernels.launch import Launch

ROWS = 4
"""Rows that a thread computes."""


def _fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return a * b + c, rounded once: the product of two float32 is exact in float64."""
    wide: np.ndarray = a.astype(np.float64) * b + c
    return wide.astype(np.float32)


def taken(map_: np.ndarray, first: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """Return the sums of the taps along an axis."""
    shape = [1, 1]
    shape[axis] = len(first)
    total: np.ndarray = np.zeros((), np.float32)
    for tap in range(weights.shape[1]):
        place = np.minimum(first + tap, map_.shape[axis] - 1)
        total = _fma(weights[:, tap].reshape(shape), np.take(map_, place, axis), total)
    return total


def table(
    memory: Any, first: int, weights: int, count: int, taps: int, start: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first input pixels (N,) of an axis and the weights (N, taps) from there on, from a place on."""
    firsts = memory.array(first, (count,), np.int32)
    return firsts[start:], memory.array(weights, (count, taps), np.float32)[start:]


def finish(
    dtype: str,
    memory: Any,
    launch: Launch,
    source: int,
    height: int,
    width: int,
    row_first: int,
    row_weights: int,
    row_taps: int,
    column_first: int,
    column_weights: int,
    column_taps: int,
    rows: int,
    columns: int,
    limit: float,
    bits: int,
    words: int,
) -> None:
    x, y, _ = launch.threads
    assert launch.block[0] % 32 == 0, "the threads of a warp lie in one row"
    assert words == -(-columns // 32)
    stored = memory.array(source, (height, width), np.uint16 if dtype == "bfloat16" else dtype)
    map_ = (stored.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else stored.astype(np.float32)
    across = taken(map_, *table(memory, column_first, column_weights, columns, column_taps), 1)
    enlarged = taken(across, *table(memory, row_first, row_weights, rows, row_taps), 0)
    above = np.zeros((rows, 32 * words), bool)
    above[:, :columns] = enlarged > np.float32(limit)
    written = np.packbits(above, axis=1, bitorder="little").view("<u4")
    done, reach = min(rows, y * ROWS), min(words, x // 32)
    memory.array(bits, (rows, words), np.uint32)[:done, :reach] = written[:done, :reach]


MODELS = {f"answer_{dtype}": partial(finish, dtype) for dtype in ("float32", "float16", "bfloat16")}
