"""Outlines are where the labels of neighbours differ: every piece once for each of both labels, in every tile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RANDOM = np.random.default_rng(3)
FOUND = """async ([values, width, height, parts]) => {
  const { findEdges } = await import("/painting.js");
  const found = [];
  for (const part of parts) {
    findEdges(new Uint16Array(values), width, height, ...part, (...edge) => found.push(edge));
  }
  return found;
}"""


def _wanted(labels: np.ndarray) -> set[tuple[int, int, int, str]]:
    """Pieces of one pixel: label, x, y, and whether they go across or down."""
    framed = np.pad(labels, 1)
    pieces = set()
    for name, one, other in (
        ("across", framed[:-1, 1:-1], framed[1:, 1:-1]),
        ("down", framed[1:-1, :-1], framed[1:-1, 1:]),
    ):
        for y, x in np.argwhere(one != other):
            pieces |= {(int(label), int(x), int(y), name) for label in (one[y, x], other[y, x]) if label}
    return pieces


@pytest.mark.parametrize("cuts", [[(0, 0, 13, 9)], [(0, 0, 5, 4), (5, 0, 13, 4), (0, 4, 5, 9), (5, 4, 13, 9)]])
def test_edges_of_random_labels(chromium: Browser, modules: Page, cuts: list[tuple[int, int, int, int]]) -> None:
    for values in (2, 5):
        labels = RANDOM.integers(0, values, (9, 13))
        found: list[tuple[int, int, int, str]] = []
        for label, x0, y0, x1, y1 in modules.evaluate(FOUND, [labels.ravel().tolist(), 13, 9, cuts]):
            assert (x0 == x1) != (y0 == y1)
            found += [(label, x, y0, "across") for x in range(x0, x1)] + [(label, x0, y, "down") for y in range(y0, y1)]
        assert len(found) == len(set(found))
        assert set(found) == _wanted(labels)


def test_colours_are_apart(chromium: Browser, modules: Page) -> None:
    colours = modules.evaluate(
        "async () => { const { colourOf } = await import('/colours.js');"
        " return Array.from({ length: 40 }, (_, place) => colourOf(place + 1)); }"
    )
    table = np.array(colours, float)
    assert table.min() >= 0
    assert table.max() <= 255
    apart = np.linalg.norm(table[:12, None] - table[None, :12], axis=2) + np.eye(12) * 999
    assert apart.min() > 40
    assert len({tuple(one) for one in colours}) == 40
