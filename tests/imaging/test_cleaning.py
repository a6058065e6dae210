"""Cleaned masks, against SciPy's labelling on drawn and random masks, and by hand."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mmms_deploy import Click, MaskCleaning
from mmms_deploy.errors import SessionError
from mmms_deploy.imaging.cleaning import Cleaner, checked_cleaning, clean_labels

Mask = npt.NDArray[np.bool_]
EIGHT = np.ones((3, 3), dtype=int)


def drawn(*rows: str) -> Mask:
    return np.array([[letter == "#" for letter in row] for row in rows])


def holes_of(mask: Mask) -> list[Mask]:
    numbers, count = ndimage.label(~mask)
    border = {*numbers[0], *numbers[-1], *numbers[:, 0], *numbers[:, -1]}
    return [numbers == number for number in range(1, count + 1) if number not in border]


def parts_of(mask: Mask) -> list[Mask]:
    numbers, count = ndimage.label(mask, EIGHT)
    return [numbers == number for number in range(1, count + 1)]


def expected(mask: Mask, cleaning: MaskCleaning, clicks: list[tuple[int, int, bool]]) -> Mask:
    """The first three steps, as their rules say it."""
    filled = mask.copy()
    for hole in holes_of(mask):
        if hole.sum() <= cleaning.fill_holes and not any(hole[y, x] for x, y, positive in clicks if not positive):
            filled |= hole
    parts = parts_of(filled)
    held = [any(part[y, x] and mask[y, x] for x, y, positive in clicks if positive) for part in parts]
    left = [place for place, part in enumerate(parts) if part.sum() > cleaning.drop_specks or held[place]]
    if cleaning.keep_largest:
        left.sort(key=lambda place: (not held[place], -parts[place].sum(), tuple(np.argwhere(parts[place])[0])))
        left = left[: max(cleaning.keep_largest, sum(held))]
    return np.logical_or.reduce([parts[place] for place in left], axis=0) if left else np.zeros_like(mask)


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    height, width = draw(st.integers(1, 26)), draw(st.integers(1, 26))
    random = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    noise = random.random((height, width))
    blur = draw(st.sampled_from([0.0, 0.6, 1.2]))
    smooth = ndimage.gaussian_filter(noise, blur) if blur else noise
    return np.asarray(smooth > np.quantile(smooth, draw(st.sampled_from([0.2, 0.5, 0.8]))))


@st.composite
def clicked(draw: st.DrawFn) -> tuple[Mask, list[tuple[int, int, bool]]]:
    mask = draw(masks())
    one = st.tuples(st.integers(0, mask.shape[1] - 1), st.integers(0, mask.shape[0] - 1), st.booleans())
    return mask, draw(st.lists(one, max_size=4))


@settings(max_examples=300, deadline=None)
@given(clicked(), st.integers(0, 12), st.integers(0, 12), st.integers(0, 3))
def test_it_is_what_the_rules_say(
    given_: tuple[Mask, list[tuple[int, int, bool]]], holes: int, specks: int, largest: int
) -> None:
    mask, clicks = given_
    before = mask.copy()
    cleaning = MaskCleaning(fill_holes=holes, drop_specks=specks, keep_largest=largest)
    assert np.array_equal(cleaning.clean(mask, clicks), expected(mask, cleaning, clicks))
    assert np.array_equal(mask, before)


@settings(max_examples=300, deadline=None)
@given(clicked(), st.floats(0.1, 5), st.integers(0, 6))
def test_outlines_move_by_no_more_than_asked_and_leave_clicked_pixels(
    given_: tuple[Mask, list[tuple[int, int, bool]]], simplify: float, few: int
) -> None:
    mask, clicks = given_
    before = expected(mask, MaskCleaning(fill_holes=few, drop_specks=few), clicks)
    after = MaskCleaning(fill_holes=few, drop_specks=few, simplify=simplify).clean(mask, clicks)
    for x, y, positive in clicks:
        if mask[y, x] == positive:
            assert after[y, x] == positive
    moved = before != after
    if moved.any():
        edge = before & ~ndimage.binary_erosion(np.pad(before, 1))[1:-1, 1:-1]
        # Drawn lines cover pixels whose centres are up to half a pixel beside them, along an axis.
        assert ndimage.distance_transform_edt(~edge)[moved].max() <= simplify + 0.75


@settings(max_examples=100, deadline=None)
@given(masks())
def test_outlines_that_hardly_move_are_drawn_as_they_were(mask: Mask) -> None:
    assert np.array_equal(MaskCleaning(simplify=1e-6).clean(mask), mask)


def test_holes_and_parts_by_hand() -> None:
    mask = drawn(
        "........#.",
        ".####..#..",
        ".#..#.....",
        ".#.##...##",
        ".####...##",
        "..........",
        "#.........",
    )
    assert MaskCleaning(fill_holes=2).clean(mask) is mask  # the hole has three pixels
    filled = MaskCleaning(fill_holes=3).clean(mask)
    assert filled[2, 2:4].all()
    assert filled[3, 2]
    assert (filled != mask).sum() == 3
    # Two pixels that touch at a corner are one part.
    assert np.array_equal(MaskCleaning(drop_specks=1).clean(mask), mask & ~(np.arange(7)[:, None] == 6))
    assert len(parts_of(MaskCleaning(drop_specks=2).clean(mask))) == 2
    largest = MaskCleaning(keep_largest=1).clean(mask)
    assert largest.sum() == 13
    assert largest[1, 1]


def test_what_reaches_the_border_is_no_hole() -> None:
    mask = drawn("#.#", "#.#", "###")
    assert MaskCleaning(fill_holes=100).clean(mask) is mask
    assert MaskCleaning(fill_holes=1).clean(drawn("###", "#.#", "###")).all()
    # A gap at a corner alone is closed: what is not the object is connected along edges.
    assert MaskCleaning(fill_holes=1).clean(drawn(".##", "#.#", "###"))[1, 1]


def test_clicks_keep_their_parts_and_holes() -> None:
    mask = drawn(
        "#####....#",
        "#.#.#.....",
        "#####.....",
        ".........#",
    )
    cleaning = MaskCleaning(fill_holes=5, drop_specks=5, keep_largest=1)
    assert np.array_equal(np.argwhere(~cleaning.clean(mask, [(1, 1, False)])[:3, :5]), [[1, 1]])
    kept = cleaning.clean(mask, [(9, 0, True)])
    assert np.array_equal(np.argwhere(kept), [[0, 9]])  # it counts first, and there is room for one
    both = cleaning.clean(mask, [(9, 0, True), (9, 3, True)])
    assert np.array_equal(np.argwhere(both), [[0, 9], [3, 9]])  # all clicked parts stay
    assert cleaning.clean(mask, [(9.4, 0.3, True)])[0, 9]  # centres of pixels are at whole numbers
    assert not cleaning.clean(mask, [(8.4, 0, True)])[0, 9]


def test_what_lies_in_a_filled_hole_becomes_a_piece_of_its_part() -> None:
    mask = drawn("#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######")
    assert MaskCleaning(fill_holes=16).clean(mask).all()  # the hole has 16 pixels, and there is one of 1 within
    assert MaskCleaning(fill_holes=15).clean(mask).sum() == 33  # only the inner one is small
    held = MaskCleaning(fill_holes=16, keep_largest=1).clean(mask, [(3, 3, False), (2, 2, True)])
    assert held.sum() == 48
    assert not held[3, 3]
    assert MaskCleaning(fill_holes=1, drop_specks=9).clean(mask).sum() == 24


def test_a_click_in_the_way_lets_an_outline_move_less() -> None:
    mask = np.zeros((60, 60), dtype=np.bool_)
    mask[20:40, 10:50] = True
    mask[17:20, 28:32] = True  # a bump
    simple = MaskCleaning(simplify=4)
    assert not simple.clean(mask)[17, 29]
    assert simple.clean(mask, [(29, 17, True)])[17, 29]
    notched = mask.copy()
    notched[17:23, 28:32] = False
    assert simple.clean(notched)[21, 29]
    assert not simple.clean(notched, [(29, 21, False)])[21, 29]


def test_thin_things_and_small_ones_survive_simplification() -> None:
    mask = np.zeros((50, 80), dtype=np.bool_)
    mask[25, 5:75] = True
    mask[5, 5] = mask[6, 6] = True
    mask[10:13, 40:43] = True
    after = MaskCleaning(simplify=3).clean(mask)
    assert len(parts_of(after)) == 3
    assert after[25, 5:75].all()
    ring = np.zeros((40, 40), dtype=np.bool_)
    ring[5:35, 5:35] = True
    ring[20, 20] = False
    assert not MaskCleaning(simplify=3).clean(ring)[20, 20]


def test_fewer_corners() -> None:
    from mmms_deploy.annotations.polygons import polygons_of

    y, x = np.mgrid[:300, :300]
    disk = (x - 150) ** 2 + (y - 150) ** 2 < 120**2
    after = MaskCleaning(simplify=3).clean(disk)
    assert len(polygons_of(after, 1.0)[0].outer) < len(polygons_of(disk, 1.0)[0].outer)
    assert (after & disk).sum() / (after | disk).sum() > 0.96


@pytest.mark.parametrize("mask", [np.zeros((5, 7), bool), np.ones((5, 7), bool), np.ones((1, 1), bool)])
def test_empty_and_full_masks_stay(mask: Mask) -> None:
    assert MaskCleaning(fill_holes=9, drop_specks=0, keep_largest=1, simplify=2).clean(mask) is mask


def test_a_wide_picture() -> None:
    mask = np.zeros((3, 70_000), dtype=np.bool_)
    mask[:, 40_000:69_990] = True
    mask[1, 50_000] = False
    mask[1, 3] = True
    after = MaskCleaning(fill_holes=1, drop_specks=1).clean(mask)
    assert after.sum() == 3 * 29_990
    assert MaskCleaning(simplify=1e-3).clean(mask) is mask


def test_label_maps_leave_pixels_to_their_objects() -> None:
    labels = np.zeros((9, 9), dtype=np.int32)
    labels[1:8, 1:8] = 1
    labels[3:6, 3:6] = 2  # in a hole of 1
    labels[4, 4] = 0
    labels[8, 8] = 2  # a speck, at the corner of 1
    labels[0, 0] = 3
    cleaning = MaskCleaning(fill_holes=9, drop_specks=1)
    after = clean_labels(cleaning, labels, [])
    # The middle is in a hole of both: it is filled, and the lower label has it.
    assert after[4, 4] == 1
    assert (after[3:6, 3:6] == 2).sum() == 8
    assert after[0, 0] == after[8, 8] == 0
    assert clean_labels(cleaning, labels, [(0, 0, 3)])[0, 0] == 3
    assert clean_labels(cleaning, labels, [(4, 4, 0)])[4, 4] == 0  # a negative click on all
    assert clean_labels(cleaning, labels, [(4, 4, 2)])[4, 4] == 2  # on 2, and so not on 1


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("fill_holes", -1),
        ("fill_holes", 1.5),
        ("drop_specks", True),
        ("drop_specks", "8"),
        ("keep_largest", -2),
        ("keep_largest", 1 << 40),
        ("simplify", -0.5),
        ("simplify", float("nan")),
        ("simplify", float("inf")),
        ("simplify", None),
    ],
)
def test_odd_values_are_refused_by_name(setting: str, value: Any) -> None:
    with pytest.raises(SessionError, match=f"^{setting} is") as raised:
        MaskCleaning(**{setting: value})
    assert f"--{setting.replace('_', '-')}" in (raised.value.command_fix or "")


def test_numbers_of_numpy_are_plain_numbers_afterwards() -> None:
    cleaning = MaskCleaning(fill_holes=np.int64(3), simplify=np.float32(1.5))
    assert type(cleaning.fill_holes) is int
    assert msgspec.json.decode(msgspec.json.encode(cleaning), type=MaskCleaning) == cleaning
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"fill_holes":-1}', type=MaskCleaning)


@pytest.mark.parametrize("mask", [np.zeros((3, 3), np.uint8), np.zeros(3, bool), [[True]], np.zeros((3, 3, 1), bool)])
def test_what_is_no_mask_is_refused(mask: Any) -> None:
    with pytest.raises(SessionError, match="a mask: "):
        MaskCleaning(drop_specks=1).clean(mask)


@pytest.mark.parametrize("click", [(1, 2), 3, (1, "a", 1), (np.nan, 1, 1), (np.inf, 1, 1)])
def test_what_is_no_click_is_refused(click: Any) -> None:
    with pytest.raises(SessionError, match="the click "):
        MaskCleaning(drop_specks=1).clean(np.ones((3, 3), bool), [click])


def test_arrays_of_every_layout() -> None:
    mask = np.zeros((40, 60), dtype=np.bool_)
    mask[5:30, 5:30] = True
    mask[10:12, 10:12] = False
    mask[35, 50] = True
    cleaning = MaskCleaning(fill_holes=4, drop_specks=1)
    wanted = cleaning.clean(mask, [Click(50, 35)])
    assert wanted[35, 50]
    for layout in (np.asfortranarray(mask), np.repeat(mask, 2, axis=1)[:, ::2], mask[::-1].copy()[::-1]):
        layout.setflags(write=False)
        np.testing.assert_array_equal(cleaning.clean(layout, [Click(50, 35)]), wanted)
    assert cleaning.clean(np.zeros((0, 5), bool)).shape == (0, 5)


def test_what_a_session_takes() -> None:
    assert checked_cleaning(None) is None
    assert checked_cleaning(MaskCleaning()) is None
    cleaning = MaskCleaning(drop_specks=2)
    assert checked_cleaning(cleaning) is cleaning
    with pytest.raises(SessionError, match=r"cleaning is \{'fill_holes': 3\}"):
        checked_cleaning({"fill_holes": 3})


def test_without_opencv_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SessionError, match="OpenCV") as raised:
        checked_cleaning(MaskCleaning(simplify=1))
    assert "clean" in raised.value.fix
    checked_cleaning(MaskCleaning())  # what does nothing needs nothing


def test_a_cleaner_can_go_to_another_process() -> None:
    cleaner = Cleaner(MaskCleaning(drop_specks=2), ((1.0, 1.0, True),))
    mask = drawn("...", ".#.", "...")
    assert pickle.loads(pickle.dumps(cleaner))(mask) is mask
    assert not MaskCleaning(drop_specks=2).clean(mask).any()
