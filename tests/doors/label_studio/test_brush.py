"""Run lengths of a brush: the bytes of Label Studio's own encoder, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmms_deploy.doors.label_studio import brush
from mmms_deploy.doors.label_studio.brush import brush_rle
from mmms_deploy.doors.label_studio.brush_decoding import mask_of_brush
from mmms_deploy.errors import AnnotationError

GOLDEN: list[tuple[list[str], list[int]]] = [
    (["#"], [0, 0, 0, 4, 57, 27, 252, 127, 224]),
    (["."], [0, 0, 0, 4, 57, 27, 252, 96, 0]),
    (["#."], [0, 0, 0, 8, 57, 27, 252, 127, 241, 128, 0]),
    (["##.#", "....", "####"], [0, 0, 0, 48, 57, 27, 252, 255, 241, 128, 71, 255, 124, 2, 255, 248]),
    (
        [
            "........................................",
            "########################################",
            "................####....................",
        ],
        [0, 0, 1, 224, 57, 27, 254, 159, 0, 211, 255, 248, 252, 2, 255, 254, 79, 0, 0],
    ),
    (
        ["#.#.#.#.", "........"],
        [0, 0, 0, 64, 57, 27, 252, 127, 241, 128, 71, 255, 24, 4, 127, 241, 128, 71, 255, 136, 192, 0],
    ),
]
"""Masks, row by row, and what ``mask2rle`` of label_studio_sdk 2.1.2 makes of them."""


@pytest.mark.parametrize(("rows", "expected"), GOLDEN)
def test_the_bytes_are_those_of_label_studio(rows: list[str], expected: list[int]) -> None:
    mask = np.array([[one == "#" for one in row] for row in rows])
    assert brush_rle(mask) == expected
    np.testing.assert_array_equal(mask_of_brush(expected, mask.shape), mask)


def test_long_runs_are_the_bytes_of_label_studio() -> None:
    """A run of more than 65536 bytes is split; its rest keeps the largest size."""
    mask = np.zeros((150, 150), bool)
    mask[141:] = True
    assert brush_rle(mask) == [0, 1, 95, 144, 57, 27, 255, 255, 255, 0, 233, 78, 224, 28, 84, 95, 252]


@settings(max_examples=150, deadline=None)
@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)), st.integers(1, 40))
def test_what_is_written_is_read(mask: np.ndarray, scale: int) -> None:
    """Also where runs end on a byte, and where they are as long as a size can say."""
    large = np.repeat(mask, scale, axis=1)
    rle = brush_rle(large)
    assert all(type(one) is int and 0 <= one < 256 for one in rle)
    np.testing.assert_array_equal(mask_of_brush(rle, large.shape), large)


@pytest.mark.parametrize("pixels", [1, 2, 3, 4, 63, 64, 65, 16383, 16384, 16385, 32768, 32769])
def test_runs_of_every_size(pixels: int) -> None:
    mask = np.arange(2 * pixels).reshape(1, -1) < pixels
    np.testing.assert_array_equal(mask_of_brush(brush_rle(mask), mask.shape), mask)


def test_singles_are_read_too() -> None:
    """Label Studio's page writes runs of single values, which our encoder has no need of."""
    bits = f"{8:032b}" + "00111" + "0010001101111111" + "0" + "00" + "111" + ("11111111" * 4 + "00000000" * 4)
    content = [int(bits[place : place + 8].ljust(8, "0"), 2) for place in range(0, len(bits), 8)]
    np.testing.assert_array_equal(mask_of_brush(content, (1, 2)), [[True, False]])


@pytest.mark.parametrize(
    ("rle", "size", "said"),
    [
        ([], (1, 1), "end in the middle"),
        ([0, 0, 0, 4], (1, 1), "end in the middle"),
        (brush_rle(np.ones((2, 3), bool)), (3, 3), "of 24 bytes, not of 36"),
        (brush_rle(np.ones((300, 300), bool))[:8], (300, 300), "end in the middle"),
        ([300], (1, 1), "bytes must be in range"),
        (["x"], (1, 1), "cannot be interpreted"),
        ([0, 0, 0, 4, 0x3A, 0x3B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], (1, 1), "reaches beyond"),
        ([0, 0, 0, 4, 0x00] + [0] * 20, (1, 1), "values have 1 bits"),
    ],
)
def test_damage_is_refused_by_name(rle: list[int], size: tuple[int, int], said: str) -> None:
    with pytest.raises(AnnotationError, match=said):
        mask_of_brush(rle, size)


def test_what_cannot_be_counted_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brush, "_PIXELS", 12)
    brush_rle(np.ones((1, 11), bool))
    with pytest.raises(AnnotationError, match="12 pixels"):
        brush_rle(np.ones((3, 4), bool))
    with pytest.raises(AnnotationError, match="shape"):
        brush_rle(np.ones((3, 4, 4), bool))
