"""The crop's rules: the published code's boxes, coordinates and maps, and the cases between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from mmms_deploy import Click
from mmms_deploy.bundle.contract import Coordinates, ResizeRule
from mmms_deploy.bundle.protocol import Outside, ZoomRule
from mmms_deploy.imaging.resize import resize, resize_image
from mmms_deploy.session.canvas import Answered, Canvas
from mmms_deploy.session.zoom import Box, bounds, click_in, draw_disks, iou, next_box, wanted_box, whole
from tests.support.families import GoldenFile, probe

ALIGNED = ResizeRule(align_corners=True)
SIZE = (300, 400)


def analytic(
    network: npt.NDArray[np.float32], clicks: Sequence[tuple[float, ...]], radius: float
) -> npt.NDArray[np.float32]:
    """The golden files' stand-in: logits (H, W) of an input (4, H, W) and clicks in network pixels."""
    rows, columns = np.mgrid[: network.shape[1], : network.shape[2]].astype(np.float64)
    nearest = {True: np.full(network.shape[1:], 1e12), False: np.full(network.shape[1:], 1e12)}
    for x, y, positive, counts in clicks:
        if counts:
            kind = bool(positive)
            squared = (rows - np.float32(y)) ** 2 + (columns - np.float32(x)) ** 2
            nearest[kind] = np.minimum(nearest[kind], squared)
    a, b, square = nearest[True], nearest[False], radius**2
    logits = 4 - 8 * a / (a + square) - 6 * square / (square + 4 * b) + network[3] - 0.5 * network[1]
    found: npt.NDArray[np.float32] = logits.astype(np.float32)
    return found


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("zoomin-zeros", ZoomRule(threshold=0.49)),
        ("zoomin-keep", ZoomRule(threshold=0.5, outside=Outside.KEPT)),
    ],
)
def test_the_published_loop_click_by_click(name: str, rule: ZoomRule) -> None:
    golden = GoldenFile(name)
    meta, tensors, picture = golden.meta, golden.arrays, golden.image()
    size, network = picture.shape[:2], tuple(meta["target"])
    canvas, box, clicks = Canvas(size, ALIGNED), None, []
    assert rule.threshold is not None
    for number, (row, column, positive) in enumerate(meta["clicks"]):
        clicks.append(Click(column, row, bool(positive)))
        box = next_box(box, canvas.bounds(rule.threshold), clicks, size, rule)
        assert list(box) == meta["roi"][number]
        previous = resize(canvas.part(box), network, ALIGNED)
        image = resize_image(picture[box.slices], network, ALIGNED) / 255
        seen = np.concatenate([image, previous[None]])
        batch = np.stack([seen, seen[..., ::-1]])
        np.testing.assert_allclose(probe(batch, 4096), tensors[f"input.probe{number}"], atol=5e-6)
        views = [[click_in(c, box, network, Coordinates.SCALE, mirrored=m) for c in clicks] for m in (False, True)]
        for view, points in zip(views, tensors[f"points{number}"], strict=True):
            expected = {order: (y, x) for y, x, order in points if order >= 0}
            assert len(expected) == len(view)
            for order, (x, y, *_) in enumerate(view):
                np.testing.assert_allclose((y, x), expected[order], rtol=2e-6)
        logits = [analytic(one, view, meta["R"]) for one, view in zip(batch, views, strict=True)]
        probability = 1 / (1 + np.exp(-(logits[0] + logits[1][:, ::-1]) / 2))
        canvas = canvas.cover(Answered(box, probability.astype(np.float32)), keep=rule.outside is Outside.KEPT)
        found = canvas.probability()
        np.testing.assert_allclose(probe(found, 4096), tensors[f"prob.probe{number}"], atol=5e-6)
        mask = np.unpackbits(tensors[f"mask{number}"], count=found.size).reshape(size).astype(bool)
        assert (canvas.mask(0.5) != mask).sum() == 0  # the files keep masks at 0.5


def test_an_empty_mask_asks_for_the_whole_picture() -> None:
    assert wanted_box(None, [Click(5, 5)], SIZE, ZoomRule()) == whole(SIZE) == Box(0, 299, 0, 399)


def test_the_box_is_expanded_and_has_a_least_side() -> None:
    assert wanted_box(Box(100, 199, 100, 299), [], SIZE, ZoomRule()) == Box(50, 250, 60, 340)
    assert wanted_box(Box(100, 109, 150, 159), [], SIZE, ZoomRule(smallest=40)) == Box(84, 124, 134, 174)
    assert wanted_box(Box(100, 109, 150, 159), [], SIZE, ZoomRule(smallest=1)) == Box(98, 112, 148, 162)


def test_halves_are_rounded_to_even_numbers_as_python_does() -> None:
    # Centre 2 and 4 with sides of 1: 1.5 and 2.5, 3.5 and 4.5.
    assert wanted_box(Box(2, 2, 4, 4), [], SIZE, ZoomRule(expansion=1, smallest=1)) == Box(2, 2, 4, 4)
    assert wanted_box(Box(3, 3, 5, 5), [], SIZE, ZoomRule(expansion=1, smallest=1)) == Box(2, 4, 4, 6)


def test_the_box_ends_with_the_picture() -> None:
    assert wanted_box(Box(0, 10, 390, 399), [], SIZE, ZoomRule()) == Box(0, 105, 294, 399)
    assert wanted_box(Box(0, 299, 0, 399), [], SIZE, ZoomRule()) == whole(SIZE)
    assert wanted_box(Box(0, 0, 0, 0), [], (1, 1), ZoomRule()) == Box(0, 0, 0, 0)


def test_positive_clicks_belong_to_the_box_and_negative_ones_do_not() -> None:
    mask, rule = Box(100, 109, 100, 109), ZoomRule(smallest=10, expansion=1)
    alone = wanted_box(mask, [], SIZE, rule)
    assert wanted_box(mask, [Click(300, 20, False)], SIZE, rule) == alone
    assert wanted_box(mask, [Click(300.9, 20.9)], SIZE, rule) == Box(20, 110, 100, 300)


def test_the_crop_stays_until_it_is_very_different() -> None:
    current = Box(50, 250, 60, 340)
    near, far = Box(110, 199, 100, 299), Box(140, 160, 190, 210)
    rule = ZoomRule()
    assert iou(wanted_box(near, [], SIZE, rule), current) > 0.5
    assert next_box(current, near, [Click(150, 150)], SIZE, rule) == current
    rule = ZoomRule(smallest=50)
    assert next_box(current, far, [Click(200, 150)], SIZE, rule) == wanted_box(far, [Click(200, 150)], SIZE, rule)
    assert next_box(current, far, [Click(200, 150)], SIZE, ZoomRule(smallest=50, iou=0)) == current


def test_a_positive_click_outside_of_the_crop_moves_it() -> None:
    current, mask, rule = Box(50, 250, 60, 340), Box(100, 199, 100, 299), ZoomRule()
    assert next_box(current, mask, [Click(59, 150, False)], SIZE, rule) == current
    assert next_box(current, mask, [Click(59, 150)], SIZE, rule) != current
    # The last row and column count as outside, as in the published code.
    assert next_box(current, Box(120, 199, 100, 299), [Click(340, 150)], SIZE, rule) != current
    assert next_box(current, Box(120, 199, 100, 299), [Click(339, 150)], SIZE, rule) == current


def test_without_a_crop_before_the_wanted_one_is_taken() -> None:
    assert next_box(None, None, [Click(5, 5)], SIZE, ZoomRule()) == whole(SIZE)


def test_the_iou_of_boxes_is_that_of_the_published_code() -> None:
    assert iou(Box(0, 9, 0, 9), Box(0, 9, 0, 9)) == 1
    assert iou(Box(0, 9, 0, 9), Box(5, 14, 0, 9)) == pytest.approx(5 / 15)
    assert iou(Box(0, 9, 0, 9), Box(5, 14, 5, 14)) == pytest.approx(1 / 9)
    assert iou(Box(0, 9, 0, 9), Box(20, 29, 0, 9)) == 0


def test_bounds_of_a_mask() -> None:
    mask = np.zeros(SIZE, bool)
    assert bounds(mask) is None
    mask[7, 9] = mask[30, 2] = True
    assert bounds(mask) == Box(7, 30, 2, 9)


def test_a_box_is_a_part_of_an_array() -> None:
    box = Box(3, 5, 10, 19)
    assert np.zeros((*SIZE, 3))[box.slices].shape == (3, 10, 3)
    x0, y0, x1, y1 = box.xyxy
    assert np.zeros(SIZE)[y0:y1, x0:x1].shape == box.size == (3, 10)


def test_a_click_with_two_negative_coordinates_does_not_count() -> None:
    box = Box(100, 299, 100, 299)
    assert click_in(Click(90, 90), box, (50, 50), Coordinates.SCALE) == (-2.5, -2.5, 1, 0)
    assert click_in(Click(90, 110), box, (50, 50), Coordinates.SCALE) == (-2.5, 2.5, 1, 1)
    assert click_in(Click(310, 90, False), box, (50, 50), Coordinates.SCALE) == (52.5, -2.5, 0, 1)
    # The mirror image has it on the other side.
    assert click_in(Click(310, 90), box, (50, 50), Coordinates.SCALE, mirrored=True) == (-3.5, -2.5, 1, 0)
    # One on the picture's first pixel counts, also where its centre is below zero.
    assert click_in(Click(-0.4, -0.4), whole(SIZE), (50, 50), Coordinates.SCALE)[3] == 1


@pytest.mark.parametrize("rule", list(Coordinates))
def test_a_mirrored_click_is_the_mirror_image(rule: Coordinates) -> None:
    box = Box(10, 209, 20, 319)
    x, y, *_ = click_in(Click(57, 83), box, (64, 96), rule)
    assert click_in(Click(57, 83), box, (64, 96), rule, mirrored=True) == (95 - x, y, 1, 1)


def test_disks_are_those_of_every_pixel_within_the_radius() -> None:
    clicks = [(10.25, 8.5, 1.0, 1.0), (-2.0, 30.0, 1.0, 1.0), (40.0, 63.5, 0.0, 1.0), (20.0, 20.0, 0.0, 0.0)]
    maps = draw_disks(clicks, (64, 48), 5.0)
    rows, columns = np.mgrid[:64, :48].astype(np.float32)
    for plane, kind in zip(maps[0], (1.0, 0.0), strict=True):
        expected = np.zeros((64, 48), bool)
        for x, y, positive, counts in clicks:
            if positive == kind and counts:
                expected |= (columns - np.float32(x)) ** 2 + (rows - np.float32(y)) ** 2 <= 25
        np.testing.assert_array_equal(plane, expected)
    assert maps.shape == (1, 2, 64, 48)
    assert maps.dtype == np.float32


@pytest.mark.parametrize(
    "wrong",
    [
        {"expansion": 0.5},
        {"expansion": float("nan")},
        {"smallest": 0},
        {"iou": 1.5},
        {"threshold": 1.0},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"zoom: {next(iter(wrong))}"):
        ZoomRule(**wrong)  # type: ignore[arg-type]
