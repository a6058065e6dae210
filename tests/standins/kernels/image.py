"""A model of ``image.cu``: the same bits."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tests.standins.kernels.launch import Launch


def narrow(
    dtype: str,
    memory: Any,
    launch: Launch,
    pixels: int,
    narrowed: int,
    first: int,
    weights: int,
    rows: int,
    width: int,
    channels: int,
    columns: int,
    taps: int,
) -> None:
    across, down, deep = launch.threads
    starts = memory.array(first, (columns,), np.int32)
    table = memory.array(weights, (taps, columns), np.float32)
    source = memory.array(pixels, (rows, width, channels), dtype)
    total = np.zeros((rows, columns, channels), np.float32)
    for tap in range(taps):
        there = starts + tap < width
        picked = source[:, starts[there] + tap].astype(np.float32)
        total[:, there] += table[tap, there, None] * picked
    target = memory.array(narrowed, (rows, channels, columns), np.float32)
    done = (slice(down), slice(deep), slice(across))
    target[done] = total.transpose(0, 2, 1)[done]


def lines(
    memory: Any,
    launch: Launch,
    narrowed: int,
    image: int,
    first: int,
    weights: int,
    norm: int,
    begin: int,
    top: int,
    rows: int,
    all_rows: int,
    channels: int,
    height: int,
    columns: int,
    taps: int,
) -> None:
    across, count, deep = launch.threads
    assert begin + count <= height, "a line beyond the result"
    starts = memory.array(first, (height,), np.int32)
    table = memory.array(weights, (height, taps), np.float32)
    source = memory.array(narrowed, (rows, channels, columns), np.float32)[:, :deep, :across]
    factor, mean, std = (row[:deep, None] for row in memory.array(norm, (3, channels), np.float32))
    result = memory.array(image, (channels, height, columns), np.float32)[:deep, :, :across]
    for line in range(begin, begin + count):
        start, end = int(starts[line]), min(int(starts[line]) + taps, all_rows)
        low, high = max(start, top), min(end, top + rows)
        if low >= high:
            continue
        total = np.zeros(result.shape[::2], np.float32) if low == start else result[:, line].copy()
        for row in range(low, high):
            total += table[line, row - start] * source[row - top]
        if high == end:
            total *= factor
            total -= mean
            total /= std
        result[:, line] = total


MODELS = {
    "image_columns_uint8": partial(narrow, "uint8"),
    "image_columns_float32": partial(narrow, "float32"),
    "image_lines": lines,
}
