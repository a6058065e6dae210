from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Click
from mmms_deploy.errors import ImageError
from mmms_deploy.session import overlay
from mmms_deploy.session.overlay import COLOURS, NEGATIVE, POSITIVE, draw_objects, draw_overlay

GREY = np.full((240, 360, 3), 128, dtype=np.uint8)


def square() -> np.ndarray:
    mask = np.zeros(GREY.shape[:2], dtype=bool)
    mask[60:180, 100:260] = True
    return mask


def test_nothing_to_draw_changes_nothing() -> None:
    picture = draw_overlay(GREY, np.zeros(GREY.shape[:2], dtype=bool))
    np.testing.assert_array_equal(np.asarray(picture), GREY)


def test_tint_and_outline() -> None:
    picture = np.asarray(draw_overlay(GREY, square())).astype(int)
    assert picture.shape == GREY.shape
    inside, outside = picture[120, 180], picture[20, 20]
    assert inside[2] > inside[0] + 40, "the mask is tinted blue"
    np.testing.assert_array_equal(outside, [128] * 3)
    assert np.abs(picture[120, 100] - inside).sum() > 60, "the outline stands out from the tint"


@pytest.mark.parametrize(("positive", "colour"), [(True, POSITIVE), (False, NEGATIVE)])
def test_markers_are_where_the_clicks_are(positive: bool, colour: tuple[int, int, int]) -> None:
    picture = np.asarray(draw_overlay(GREY, np.zeros(GREY.shape[:2], dtype=bool), [Click(200, 50, positive)]))
    rows, columns = np.nonzero((np.abs(picture.astype(int) - colour) < 12).all(axis=2))
    assert abs(rows.mean() - 50) < 1.5
    assert abs(columns.mean() - 200) < 1.5


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (3, 900), (700, 2), (97, 61)], ids=str)
def test_any_size_with_clicks_at_the_rim(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), dtype=np.uint8)
    clicks = [Click(-0.5, -0.5), Click(size[1] - 0.51, size[0] - 0.51, False)] * 60
    assert draw_overlay(image, np.ones(size, dtype=bool), clicks).size == (size[1], size[0])


def test_inputs_stay_as_they_are() -> None:
    mask = square()
    mask.setflags(write=False)
    image = GREY.copy()
    image.setflags(write=False)
    draw_overlay(image, mask, [Click(5, 5)])
    np.testing.assert_array_equal(image, GREY)


def test_a_large_picture_is_drawn_in_strips_and_looks_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1100, 90, 3), dtype=np.uint8)
    mask = np.hypot(*np.mgrid[-550:550, -45:45]) < 300
    mask[100:103] = True
    clicks = [Click(40, 500), Click(3, 99, False)]
    whole = np.asarray(draw_overlay(image, mask, clicks))
    for strip in (90, 90 * 7, 90 * 400):
        monkeypatch.setattr(overlay, "_STRIP", strip)
        np.testing.assert_array_equal(np.asarray(draw_overlay(image, mask, clicks)), whole)
    assert image.shape == (1100, 90, 3)
    np.testing.assert_array_equal(np.asarray(draw_overlay(image.copy(), mask, clicks, consume=True)), whole)
    given = image.copy()
    draw_overlay(given, mask, consume=True)
    assert given.size == 0
    view = image[:, :80]
    draw_overlay(view, np.ascontiguousarray(mask[:, :80]), consume=True)  # it belongs to another array
    assert view.size


def test_every_object_has_a_colour_of_its_own() -> None:
    masks = np.zeros((2, 60, 90), np.bool_)
    masks[0, 10:50, 10:40] = True
    masks[1, 10:50, 50:80] = True
    image = np.full((60, 90, 3), 100, np.uint8)
    objects = [(masks[0], [Click(25, 30)]), (masks[1], [])]
    both = np.asarray(draw_objects(image, objects))
    alone = np.asarray(draw_overlay(image, masks[0], [Click(25, 30)]))
    np.testing.assert_array_equal(both[:, :45], alone[:, :45])
    first, second = both[20, 20], both[20, 60]
    assert (first != second).any()
    assert (both[5, 5] == 100).all()
    many = draw_objects(image, [(masks[0], [])] * (len(COLOURS) + 1))
    assert many.size == (90, 60), "colours begin again where there are more objects"


def test_what_is_drawn_is_near_the_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the box of every object is drawn; a picture that is drawn as a whole is the same."""
    random = np.random.default_rng(3)
    for _ in range(12):
        height, width = random.integers(1, 300, 2)
        image = random.integers(0, 255, (height, width, 3), dtype=np.uint8)
        objects = []
        for _ in range(3):
            mask = np.zeros((height, width), np.bool_)
            y, x = random.integers(0, height), random.integers(0, width)
            mask[y : y + random.integers(0, 40), x : x + random.integers(0, 40)] = True
            objects.append((mask, [Click(int(x), int(y))]))
        before = image.copy()
        near = np.asarray(draw_objects(image, objects))
        with monkeypatch.context() as whole:
            whole.setattr("mmms_deploy.session.overlay._drawn_box", lambda mask, _: (0, 0, *mask.shape[::-1]))
            np.testing.assert_array_equal(near, draw_objects(image, objects))
        np.testing.assert_array_equal(image, before)


def test_the_image_in_any_form(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*GREY.shape[:2], 3), dtype=np.uint8)
    file = tmp_path / "photo.png"
    Image.fromarray(image).save(file)
    expected = np.asarray(draw_overlay(image, square(), [Click(5, 5)]))
    for given in (file, str(file), file.read_bytes(), Image.fromarray(image)):
        np.testing.assert_array_equal(np.asarray(draw_overlay(given, square(), [Click(5, 5)])), expected)
    frame = image[:, :, ::-1].copy()
    drawn = draw_overlay(frame, square(), [Click(5, 5)], channel_order="bgr")
    np.testing.assert_array_equal(np.asarray(drawn), expected)


def test_an_image_of_another_size() -> None:
    with pytest.raises(ImageError, match="240 rows and 360 columns, like the mask"):
        draw_overlay(GREY[1:], square())
