"""The disks of the clicks are exact on every engine and in every precision, wherever the click is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.protocol import Engine, Runner, Value
from mmms_deploy.engines.registry import BACKENDS
from mmms_deploy.engines.request import EngineRequest
from tests.support.toy import write_toy

SIDE = 448
RADIUS = 5.0


@pytest.fixture(scope="module")
def echo448(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_toy(tmp_path_factory.mktemp("bundles") / "echo448", size=(SIDE, SIDE), echo=True, radius=RADIUS)


def opened(bundle: Bundle, name: str, precision: Precision) -> Engine:
    (backend,) = (backend for backend in BACKENDS if backend.name == name)
    return backend.open(bundle, precision, EngineRequest(threads=1))


def disk(x: float, y: float) -> np.ndarray:
    """The disk in integers where the click is at one, and in float32 as the network's formula has it."""
    axis = np.arange(SIDE, dtype=np.float32)
    square = (axis[None] - np.float32(x)) ** 2 + (axis[:, None] - np.float32(y)) ** 2
    return square <= np.float32(RADIUS**2)


def test_the_reference_is_exact() -> None:
    """At integer and half positions float32 has no error, so that integers say the same."""
    axis = np.arange(SIDE, dtype=np.int64)
    for x, y in ((0, 0), (447.5, 0.5), (200.5, 447), (3, 128.5)):
        square = (2 * axis[None] - int(2 * x)) ** 2 + (2 * axis[:, None] - int(2 * y)) ** 2
        np.testing.assert_array_equal(disk(x, y), square <= 4 * int(RADIUS) ** 2)


def positions() -> Iterator[tuple[float, float]]:
    """Corners and what is just inside of the image's edge, every column and every row, and anywhere in between."""
    edges = (-0.5, 0.0, 0.5, SIDE - 1.0, SIDE - 0.5000001, SIDE / 2)
    yield from itertools.product(edges, edges)
    for i in range(SIDE):
        yield float(i), float((i * 37 + 11) % SIDE)
    yield from np.random.default_rng(0).uniform(-0.5, SIDE - 0.5, (250, 2)).tolist()
    # Where a rim goes through the centres of pixels: 3, 4, 5 is a right triangle.
    yield from ((i + 0.0, i + 0.0) for i in range(7, SIDE, 64))


def click_values(engine: Engine, runner: Runner, rng: np.random.Generator) -> dict[str, Value]:
    values = {}
    for spec in engine.graphs["click"].inputs:
        if spec.name in ("maps", "prev", "click"):
            values[spec.name] = runner.zeros(spec)
        else:
            values[spec.name] = runner.upload(spec, rng.standard_normal(spec.shape, dtype=np.float32))
    return values


def check_disks(bundle: Bundle, cpu_engine: tuple[str, Precision], clicks: list[tuple[float, float]]) -> None:
    """Every position as a first click, alternating in sign, and the sum of them all as a sequence."""
    engine = opened(bundle, *cpu_engine)
    runner = engine.open()
    given = {spec.name: spec for spec in engine.graphs["click"].inputs}
    values = click_values(engine, runner, np.random.default_rng(1))
    first = values["maps"]
    drawn = np.zeros((2, SIDE, SIDE), dtype=np.bool_)
    state = {"maps": first, "prev": values["prev"]}
    wrong = []
    for number, (x, y) in enumerate(clicks):
        sign = number % 2
        click = runner.upload(given["click"], np.array([[x, y, 1 - sign, 1]]))
        outputs = runner.run("click", {**values, "click": click, "maps": first})
        maps = runner.download(outputs["maps_next"])[0]
        expected = np.zeros((2, SIDE, SIDE), dtype=np.bool_)
        expected[sign] = disk(x, y)
        wrong += [(x, y)] if not np.array_equal(maps, expected) else []
        if number % 8 == 0:
            outputs = runner.run("click", {**values, **state, "click": click})
            state = {"maps": outputs["maps_next"], "prev": outputs["prob"]}
            drawn |= expected
            prob, mask = runner.download(outputs["prob"]), runner.download(outputs["mask"])
            assert np.isfinite(prob).all()
            assert prob.min() >= 0
            assert prob.max() <= 1
            np.testing.assert_array_equal(mask, prob > bundle.manifest.clicks.threshold)
    np.testing.assert_array_equal(runner.download(state["maps"])[0], drawn)
    none = runner.upload(given["click"], np.array([[10, 10, 1, 0]]))
    assert not runner.download(runner.run("click", {**values, "click": none})["maps_next"]).any()
    engine.close()
    assert not wrong, f"{len(wrong)} of {len(clicks)} disks differ, such as those at {wrong[:5]}"


def test_disks_of_the_toy(echo448: Bundle, cpu_engine: tuple[str, Precision]) -> None:
    check_disks(echo448, cpu_engine, list(positions()))


def test_disks_of_an_exported_cell(cell448: Bundle, cpu_engine: tuple[str, Precision]) -> None:
    check_disks(cell448, cpu_engine, list(positions())[::12])


@pytest.mark.slow
def test_all_disks(echo448: Bundle, cpu_engine: tuple[str, Precision]) -> None:
    """Every pixel of the image, and every one with a fraction."""
    shift = np.random.default_rng(2).uniform(-0.5, 0.5, (SIDE * SIDE, 2))
    grid = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2)
    check_disks(echo448, cpu_engine, [*map(tuple, grid[::7].tolist()), *map(tuple, (grid + shift)[::11].tolist())])
