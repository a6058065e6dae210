"""Polygons: exact along the pixel edges, valid, drawn again by us and by COCO's own library."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely
from pycocotools import mask as coco_mask

from mmms_deploy.annotations import Polygon, mask_of_polygons, polygons_of
from mmms_deploy.annotations.outlines import rings_of
from mmms_deploy.errors import AnnotationError
from tests.support.masks import AWKWARD, whole

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
# pycocotools reads its arrays the way of NumPy 1.


def by_the_library(polygons: tuple[Polygon, ...], size: tuple[int, int]) -> np.ndarray:
    def draw(ring: np.ndarray) -> np.ndarray:
        return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([ring.reshape(-1).tolist()], *size))) > 0

    mask = np.zeros(size, np.bool_)
    for polygon in polygons:
        piece = draw(polygon.outer)
        for hole in polygon.holes:
            piece &= ~draw(hole)
        mask |= piece
    return mask


def test_drawn_again_exactly() -> None:
    for mask in whole():
        polygons = polygons_of(mask)
        np.testing.assert_array_equal(mask_of_polygons(polygons, mask.shape), mask)
        np.testing.assert_array_equal(by_the_library(polygons, mask.shape), mask)


def test_valid_and_equal_to_the_union_of_the_pixels() -> None:
    for mask in whole():
        polygons = polygons_of(mask)
        whole_shape = shapely.MultiPolygon([polygon.to_shapely() for polygon in polygons])
        assert shapely.is_valid(whole_shape), shapely.is_valid_reason(whole_shape)
        pixels = [shapely.box(x, y, x + 1, y + 1) for y, x in zip(*np.nonzero(mask), strict=True)]
        union = shapely.union_all(pixels)
        assert whole_shape.equals(union) or (union.is_empty and whole_shape.is_empty)
        assert len(polygons) == shapely.get_num_geometries(union) * (not union.is_empty)
        areas = [polygon.area for polygon in polygons]
        assert sum(areas) == mask.sum()
        assert areas == sorted(areas, reverse=True)


def test_corners_and_nothing_else() -> None:
    """Two corners after each other never share both coordinates' directions; outlines are clockwise on the screen."""
    for mask in whole():
        for polygon in polygons_of(mask):
            for ring, sign in ((polygon.outer, 1), *((hole, -1) for hole in polygon.holes)):
                sides = np.roll(ring, -1, axis=0) - ring
                assert ((sides == 0).sum(1) == 1).all()
                assert ((sides == 0)[:, 0] != np.roll((sides == 0)[:, 0], 1)).all()
                assert np.sign((sides[:, 1] * ring[:, 0]).sum()) == sign


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("empty", []),
        ("touching at corners", [0] * 5),
        ("a hole", [1]),
        ("an island in a hole", [1, 1]),
        ("holes that touch", [2]),
        ("a ring closed at a corner", [2]),
        ("an island behind corners", [1, 0]),
    ],
)
def test_pieces_and_their_holes(name: str, pieces: list[int]) -> None:
    assert [len(polygon.holes) for polygon in polygons_of(AWKWARD[name])] == pieces


def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for mask in whole():
        expected = rings_of(mask)
        monkeypatch.setattr("mmms_deploy.annotations.outlines._STRIP", 20)
        for ours, theirs in zip(rings_of(mask), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        monkeypatch.undo()


@pytest.mark.parametrize("tolerance", [0.7, 2, np.float32(5)])
def test_simpler_outlines_stay_valid_and_near(tolerance: float) -> None:
    y, x = np.mgrid[:120, :160]
    for mask in (*whole(30), (np.hypot(y - 60, x - 80) < 50) & (np.hypot(y - 50, x - 80) > 15)):
        exact, simple = polygons_of(mask), polygons_of(mask, tolerance)
        assert [len(polygon.holes) for polygon in exact] == [len(polygon.holes) for polygon in simple]
        corners = [sum(map(len, (one.outer, *one.holes))) for one in simple]
        assert all(polygon.to_shapely().is_valid for polygon in simple)
        for before, after, count in zip(exact, simple, corners, strict=True):
            assert count <= sum(map(len, (before.outer, *before.holes)))
            assert before.to_shapely().hausdorff_distance(after.to_shapely()) <= tolerance + 1e-6
    assert corners[0] < 0.6 * (len(exact[0].outer) + len(exact[0].holes[0]))


def test_a_pixel_belongs_where_its_centre_is() -> None:
    triangle = Polygon(np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]))
    y, x = np.mgrid[:12, :12]
    np.testing.assert_array_equal(mask_of_polygons([triangle], (12, 12)), (x + 0.5) + (y + 0.5) < 10)


def test_polygons_beyond_the_image_and_over_each_other() -> None:
    large = Polygon(np.array([[-5.0, -5.0], [100.0, -5.0], [100.0, 3.0], [-5.0, 3.0]]))
    outside = Polygon(np.array([[20.0, 20.0], [30.0, 20.0], [30.0, 30.0]]))
    hole = Polygon(np.array([[0, 0], [4, 0], [4, 4], [0, 4]]), (np.array([[1, 1], [3, 1], [3, 2], [1, 2]]),))
    drawn = mask_of_polygons([large, outside, hole], (6, 8))
    expected = np.zeros((6, 8), np.bool_)
    expected[:3] = expected[:4, :4] = True
    np.testing.assert_array_equal(drawn, expected)  # what one leaves out, the other one covers
    assert mask_of_polygons([], (2, 3)).sum() == 0


def test_json() -> None:
    (polygon,) = polygons_of(AWKWARD["a hole"])
    written = json.loads(json.dumps(polygon.to_dict()))
    assert sorted(written["outer"]) == [[0, 0], [0, 4], [5, 0], [5, 4]]
    assert [sorted(hole) for hole in written["holes"]] == [[[1, 1], [1, 3], [4, 1], [4, 3]]]


@pytest.mark.parametrize("tolerance", [-1, float("nan"), float("inf"), "1", None, True])
def test_wrong_tolerances(tolerance: float) -> None:
    with pytest.raises(AnnotationError, match="the tolerance is"):
        polygons_of(AWKWARD["a hole"], tolerance)


@pytest.mark.parametrize(
    "wrong",
    [
        "polygon",
        [[0, 0]],
        Polygon(np.zeros((2, 2))),
        Polygon(np.zeros((3, 3))),
        Polygon(np.full((3, 2), np.nan)),
        Polygon("ring"),  # type: ignore[arg-type]
        Polygon(np.full((3, 2), 1e300)),
    ],
)
def test_wrong_polygons(wrong: object) -> None:
    with pytest.raises(AnnotationError):
        mask_of_polygons([wrong], (4, 4))  # type: ignore[list-item]


@pytest.mark.parametrize("size", [(0, 4), (4,), 4, ("4", "4"), (4, 2.5), (True, 4)])
def test_wrong_sizes(size: tuple[int, int]) -> None:
    with pytest.raises(AnnotationError, match="the size is"):
        mask_of_polygons([], size)
