"""A model of ``labels.cu``."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.standins.kernels.answer import ROWS, table, taken
from tests.standins.kernels.launch import Launch


def decide(
    memory: Any,
    launch: Launch,
    planes: int,
    height: int,
    width: int,
    order: int,
    ends: int,
    numbers: int,
    groups: int,
    row_first: int,
    row_weights: int,
    row_taps: int,
    column_first: int,
    column_weights: int,
    column_taps: int,
    top: int,
    rows: int,
    columns: int,
    found: int,
) -> None:
    x, y, _ = launch.threads
    stops = memory.array(ends, (groups,), np.int32)
    places = memory.array(order, (int(stops[-1]),), np.int32)
    maps = memory.array(planes, (int(places.max()) + 1, height, width), np.float32)
    across = table(memory, column_first, column_weights, columns, column_taps)
    down = table(memory, row_first, row_weights, top + rows, row_taps, top)
    best = np.full((rows, columns), -np.inf, np.float32)
    number = np.zeros((rows, columns), np.uint8)
    for group, start in enumerate((0, *stops[:-1])):
        most = np.full((rows, columns), -np.inf, np.float32)
        for place in places[start : stops[group]]:
            np.maximum(most, taken(taken(maps[place], *across, 1), *down, 0), out=most)
        number[most > best] = memory.array(numbers, (groups,), np.int32)[group]
        np.maximum(best, most, out=best)
    done = (slice(min(rows, y * ROWS)), slice(min(columns, x)))
    memory.array(found, (rows, columns), np.uint8)[done] = number[done]


MODELS = {"labels": decide}
