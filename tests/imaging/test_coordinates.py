from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmms_deploy.bundle.contract import Coordinates
from mmms_deploy.imaging.coordinates import to_network

SIDES = st.integers(1, 20000)
SIZES = st.tuples(SIDES, SIDES)


@given(
    image=SIZES,
    network=SIZES,
    rule=st.sampled_from(list(Coordinates)),
    at=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
@settings(deadline=None)
def test_invertible(
    image: tuple[int, int], network: tuple[int, int], rule: Coordinates, at: tuple[float, float]
) -> None:
    """At every size, the network pixels of two places give the scale, and the scale leads back to the image pixel."""
    x, y = at[0] * image[1] - 0.5, at[1] * image[0] - 0.5
    origin, unit, there = (
        to_network(*place, image=image, network=network, rule=rule) for place in ((0, 0), (1, 1), (x, y))
    )
    back = tuple((t - o) / (u - o) for t, o, u in zip(there, origin, unit, strict=True))
    assert back == pytest.approx((x, y), abs=1e-6)


@pytest.mark.parametrize(
    ("rule", "first", "centre", "last"),
    [
        (Coordinates.HALF_PIXEL, 0.5 * 448 / 1920 - 0.5, 223.5, 447.5 - 0.5 * 448 / 1920),
        (Coordinates.ALIGN_CORNERS, 0.0, 223.5, 447.0),
        (Coordinates.SCALE, 0.0, 959.5 * 448 / 1920, 1919 * 448 / 1920),
    ],
)
def test_values(rule: Coordinates, first: float, centre: float, last: float) -> None:
    def column(x: float) -> float:
        return to_network(x, 0, image=(1080, 1920), network=(448, 448), rule=rule)[0]

    assert column(0) == pytest.approx(first)
    assert column(959.5) == pytest.approx(centre)
    assert column(1919) == pytest.approx(last)


def test_rows_and_columns_are_not_mixed_up() -> None:
    x, y = to_network(10, 20, image=(100, 50), network=(200, 200), rule=Coordinates.SCALE)
    assert (x, y) == (40.0, 40.0)


def test_one_pixel_is_its_own_corner() -> None:
    assert to_network(0, 0, image=(1, 1), network=(448, 448), rule=Coordinates.ALIGN_CORNERS) == (0.0, 0.0)
    assert to_network(0, 0, image=(1, 1), network=(448, 448), rule=Coordinates.HALF_PIXEL) == (223.5, 223.5)
