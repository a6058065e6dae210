"""A click comes back at the pixel where it was placed, whatever the image's size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmms_deploy import Bundle, Session
from mmms_deploy.bundle.contract import Coordinates, ResizeRule
from tests.support.toy import write_toy

NETWORK = (64, 96)
RADIUS = 5.0
SIZES = {
    "network": NETWORK,
    "landscape": (480, 854),
    "portrait": (640, 427),
    "square": (300, 300),
    "odd": (97, 61),
    "small": (31, 17),
    "pixel": (1, 1),
    "tiny": (2, 3),
    "row": (1, 500),
    "column": (700, 1),
    "wide": (3, 2000),
    "tall": (2000, 4),
    "photograph": (2000, 3000),
}


@pytest.fixture(scope="module")
def session(echo: Bundle) -> Iterator[Session]:
    with Session(echo, threads=1) as session:
        yield session


# Below this many pixels a side, a pixel of the image is wider than the disk. A mask holds the values at the centres of
# pixels, so there a click comes back when it is placed near the centre of a pixel, not when it is placed at its rim.
FINE = 14


def spots(size: tuple[int, int]) -> Iterator[tuple[float, float]]:
    """Yield corners, edges and the centre: whole pixels, their outer edges, and places in between."""

    def places(side: int) -> tuple[float, ...]:
        whole = (0, (side - 1) // 2, side - 1)
        return (*whole, -0.5, (side - 1) / 2, side / 3 - 0.5, side - 0.5 - 1e-6) if side >= FINE else whole

    for y in places(size[0]):
        for x in places(size[1]):
            yield x, y


def pixel(x: float, y: float) -> tuple[int, int]:
    """Return (row, column) of the pixel that a click falls on."""
    return math.floor(y + 0.5), math.floor(x + 0.5)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_click_comes_back_where_it_was_placed(session: Session, size: tuple[int, int]) -> None:
    session.set_image(np.zeros((*size, 3), dtype=np.uint8))
    for x, y in spots(size):
        mask = session.click(x, y).mask
        assert mask.shape == size
        assert mask[pixel(x, y)], (x, y)
        session.undo()


@pytest.mark.parametrize(
    "size", [SIZES[name] for name in ("network", "landscape", "portrait", "odd", "photograph")], ids=str
)
def test_the_disk_is_centred_on_the_click(session: Session, size: tuple[int, int]) -> None:
    """To within half a network pixel: a disk of whole network pixels cannot be placed more precisely."""
    session.set_image(np.zeros((*size, 3), dtype=np.uint8))
    scale = size[0] / NETWORK[0], size[1] / NETWORK[1]
    for down, right in ((0.5, 0.5), (0.25, 0.7), (0.8, 0.13)):
        x, y = right * size[1], down * size[0]
        rows, columns = np.nonzero(session.click(x, y).mask)
        assert abs(columns.mean() - x) <= 0.5 * scale[1] + 0.5
        assert abs(rows.mean() - y) <= 0.5 * scale[0] + 0.5
        # The area is that of the disk, so neither axis was stretched by the factor of the other.
        assert len(rows) == pytest.approx(math.pi * RADIUS**2 * scale[0] * scale[1], rel=0.15)


@given(size=st.tuples(st.integers(1, 400), st.integers(1, 400)), at=st.tuples(st.floats(0, 1), st.floats(0, 1)))
@settings(max_examples=80, deadline=None)
def test_any_size_and_place(session: Session, size: tuple[int, int], at: tuple[float, float]) -> None:
    session.set_image(np.zeros((*size, 3), dtype=np.uint8))
    x, y = (min(share * side - 0.5, math.nextafter(side - 0.5, -1)) for share, side in zip(at, size[::-1], strict=True))
    # The double before 0.5, plus 0.5, rounds to 1.0: the far edge of an image of one pixel.
    x, y = (
        place if side >= FINE else min(math.floor(place + 0.5), side - 1)
        for place, side in ((x, size[1]), (y, size[0]))
    )
    assert session.click(x, y).mask[pixel(x, y)]


def test_only_the_clicked_pixel_of_a_tiny_image(session: Session) -> None:
    """Each of the 2 x 3 pixels is 32 network pixels wide, so the disk reaches none of its neighbours' centres."""
    session.set_image(np.zeros((2, 3, 3), dtype=np.uint8))
    for y in range(2):
        for x in range(3):
            expected = np.zeros((2, 3), dtype=bool)
            expected[y, x] = True
            np.testing.assert_array_equal(session.click(x, y).mask, expected)


@pytest.mark.parametrize(
    ("coordinates", "align_corners"), [(Coordinates.ALIGN_CORNERS, True), (Coordinates.SCALE, False)], ids=str
)
def test_other_rules(tmp_path: Path, coordinates: Coordinates, align_corners: bool) -> None:
    bundle = write_toy(
        tmp_path / "toy", echo=True, coordinates=coordinates, mask_resize=ResizeRule(align_corners=align_corners)
    )
    # RITM's scale rule is off by half a network pixel minus half an image pixel, which is small against the disk only
    # when the image is not much smaller than the network's input.
    small = {"pixel", "tiny", "row", "column", "wide", "tall", "small"}
    skipped = small if coordinates is Coordinates.SCALE else set()
    with Session(bundle, threads=1) as session:
        for name, size in SIZES.items():
            if name in skipped:
                continue
            session.set_image(np.zeros((*size, 3), dtype=np.uint8))
            for x, y in spots(size):
                assert session.click(x, y).mask[pixel(x, y)], (name, x, y)
