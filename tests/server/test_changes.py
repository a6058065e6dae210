"""Where label maps changed, compared with the plain way to find it."""

from __future__ import annotations

import numpy as np
import pytest

from mmms_deploy.server.changes import Changed, Extents, Seen, bounds, runs
from tests.support.server import labels_of_runs


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (13, 17)])
def test_runs(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    for most in (1, 2, 5, 70_000):
        labels = random.integers(0, most, shape).astype(np.int32)
        assert (labels_of_runs(runs(labels), *shape) == labels).all()
    flat = np.full(shape, 3, np.int32)
    assert runs(flat) == np.array([3, flat.size], "<u4").tobytes()
    assert runs(flat[:0]) == b""


def test_bounds() -> None:
    mask = np.zeros((20, 30), bool)
    assert bounds(mask) is None
    mask[4, 7] = mask[9, 3] = True
    assert bounds(mask) == Changed(x=3, y=4, width=5, height=6)


def test_a_client_sees_every_change() -> None:
    random = np.random.default_rng(1)
    seen, shown = Seen(), np.full((40, 50), -1, np.int32)
    labels = np.zeros((40, 50), np.int32)
    for number in range(60):
        before, labels = labels, labels.copy()
        y, x = random.integers(0, 40), random.integers(0, 50)
        labels[y : y + random.integers(0, 9), x : x + random.integers(0, 9)] = random.integers(0, 4)
        changed = seen.update(labels)
        if number:
            assert changed == bounds(before != labels)
        if changed is not None:
            part = labels_of_runs(runs(changed.of(labels)), changed.height, changed.width)
            shown[changed.y : changed.y + changed.height, changed.x : changed.x + changed.width] = part
        assert (shown == labels).all()
    assert seen.update(labels) is None
    assert seen.update(labels, whole=True) == (0, 0, 50, 40)
    seen.forget()
    assert seen.update(labels) == (0, 0, 50, 40)
    assert seen.update(np.zeros((5, 6), np.int32)) == (0, 0, 6, 5), "another image"


def test_extents_are_those_of_the_whole_map() -> None:
    random = np.random.default_rng(2)
    extents = Extents()
    labels = np.zeros((40, 50), np.int32)
    for number in range(200):
        labels = labels.copy() if number % 50 else np.zeros((40 + number // 50, 50), np.int32)
        y, x = random.integers(0, 40), random.integers(0, 50)
        labels[y : y + random.integers(0, 25), x : x + random.integers(0, 25)] = random.integers(0, 5)
        expected = {
            int(label): (int((labels == label).sum()), bounds(labels == label)) for label in np.unique(labels) if label
        }
        assert extents.of(labels) == expected
    assert extents.of(labels) is extents.of(labels)
    extents.forget()
    assert extents.of(labels) == expected
