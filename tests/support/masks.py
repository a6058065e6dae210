"""Masks that are awkward to write down: holes, islands, pixels that touch at corners, borders, nothing, all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def drawn(text: str) -> np.ndarray:
    """A mask from rows of ``#`` and ``.``, separated by spaces."""
    return np.array([[character == "#" for character in row] for row in text.split()])


AWKWARD: dict[str, np.ndarray] = {
    "empty": np.zeros((4, 6), np.bool_),
    "full": np.ones((4, 6), np.bool_),
    "one pixel, empty": np.zeros((1, 1), np.bool_),
    "one pixel, full": np.ones((1, 1), np.bool_),
    "a row": drawn("#.##."),
    "a column": drawn("# . # #"),
    "a corner": drawn("#... .... ...."),
    "touching at corners": np.eye(5, dtype=np.bool_),
    "touching the other way": np.eye(5, dtype=np.bool_)[::-1],
    "chess": np.indices((6, 7)).sum(0) % 2 == 0,
    "a hole": drawn("##### #...# #...# #####"),
    "an island in a hole": drawn("####### #.....# #.###.# #.#.#.# #.###.# #.....# #######"),
    "holes that touch": drawn("##### #.### ##.## #####"),
    "a ring closed at a corner": drawn("###. #.#. ##.# ####"),
    "an island behind corners": drawn("##### ##.## #.#.# ##.## #####"),
    "two pieces": drawn("##..## ##..## ......"),
}


def noisy(count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Random masks of all densities and small sizes."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        height, width = random.integers(1, 13, 2)
        yield random.random((height, width)) < random.choice([0.1, 0.3, 0.5, 0.7, 0.9])


def whole(count: int = 60) -> Iterator[np.ndarray]:
    """All of them."""
    yield from AWKWARD.values()
    yield from noisy(count)
