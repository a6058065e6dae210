"""The plane of a layer that is on display."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mmms_deploy.doors.napari.plane import Picture, Plane, picture_of, placement
from mmms_deploy.errors import DoorError


@dataclass
class Layer:
    """A layer as napari has it, of an array, with scale and offset."""

    data: Any
    ndim: int
    multiscale: bool = False
    scale: float = 1.0
    translate: tuple[float, ...] = ()
    name: str = field(default="photo")

    def _moved(self) -> Any:
        return np.array(self.translate or (0.0,) * self.ndim)

    def data_to_world(self, point: Any) -> Any:
        return np.asarray(point) * self.scale + self._moved()

    def world_to_data(self, point: Any) -> Any:
        return (np.asarray(point)[-self.ndim :] - self._moved()) / self.scale


def viewer(point: tuple[float, ...], displayed: tuple[int, ...]) -> Any:
    dims = SimpleNamespace(ndim=len(point), ndisplay=len(displayed), point=point, displayed=displayed)
    return SimpleNamespace(dims=dims)


STACK = np.arange(4 * 5 * 6).reshape(4, 5, 6)


def test_a_flat_image_is_its_plane() -> None:
    pixels = picture_of(Layer(STACK[0], 2), viewer((0, 0), (0, 1))).read()
    np.testing.assert_array_equal(pixels, STACK[0])


def test_channels_of_rgb_are_no_axis() -> None:
    image = np.zeros((5, 6, 3), dtype=np.uint8)
    assert picture_of(Layer(image, 2), viewer((9, 0, 0), (1, 2))).read().shape == (5, 6, 3)


def test_the_slice_at_the_slider_is_taken() -> None:
    layer = Layer(STACK, 3, scale=0.5, translate=(10, 0, 0))
    picture = picture_of(layer, viewer((11.0, 0, 0), (1, 2)))
    assert picture.plane == Plane((1, 2), (2, 0, 0))
    np.testing.assert_array_equal(picture.read(), STACK[2])


def test_axes_are_in_the_order_of_the_display() -> None:
    picture = picture_of(Layer(STACK, 3), viewer((0, 3, 0), (2, 0)))
    np.testing.assert_array_equal(picture.read(), STACK[:, 3, :].T)
    assert picture.plane.point(1, 2) == (2.0, 3.0, 1.0)
    assert picture.plane.pixel((2.0, 3.0, 1.0)) == (1.0, 2.0)


def test_the_finest_level_is_taken() -> None:
    layer = Layer([STACK, STACK[:, ::2, ::2]], 3, multiscale=True)
    np.testing.assert_array_equal(picture_of(layer, viewer((1, 0, 0), (1, 2))).read(), STACK[1])


def test_only_the_plane_of_a_lazy_array_is_read() -> None:
    asked: list[object] = []

    class Lazy:
        shape = STACK.shape

        def __getitem__(self, index: Any) -> Any:
            asked.append(index)
            return STACK[index]

    lazy = Lazy()
    picture = picture_of(Layer(lazy, 3), viewer((2, 0, 0), (1, 2)))
    assert not asked, "an array was read in the interface's thread"
    picture.read()
    assert asked == [(2, slice(None), slice(None))]


def test_three_dimensions_are_refused() -> None:
    with pytest.raises(DoorError, match="three dimensions"):
        picture_of(Layer(STACK, 3), viewer((0, 0, 0), (0, 1, 2)))


def test_an_axis_that_the_layer_lacks_is_refused() -> None:
    with pytest.raises(DoorError, match="layer 'photo' has 2 dimensions, and the viewer displays the axes 0, 2 of 3"):
        picture_of(Layer(STACK[0], 2), viewer((0, 0, 0), (0, 2)))


@pytest.mark.parametrize("place", [-1.0, 4.0])
def test_a_slider_beside_the_layer_is_refused(place: float) -> None:
    with pytest.raises(DoorError, match="beside layer 'photo'") as error:
        picture_of(Layer(STACK, 3), viewer((place, 0, 0), (1, 2)))
    assert "which has 4 there" in str(error.value)


@pytest.mark.parametrize("axes", [(0, 1), (1, 2), (2, 0), (0, 2)])
def test_labels_have_the_axes_of_the_layer_and_one_slice(axes: tuple[int, int]) -> None:
    plane = Plane(axes, (1, 1, 1))
    blank = plane.blank((5, 7))
    assert blank.ndim == 3
    shown = plane.thin().of(blank)
    assert shown.shape == (5, 7)
    shown[2, 3] = 9
    assert blank.sum() == 9, "the plane is a copy"


def test_an_array_is_put_where_a_part_of_the_layer_is() -> None:
    layer = Layer(STACK, 3, scale=0.5, translate=(10, 20, 30))
    matrix = placement(layer, (2, 0, 0))
    np.testing.assert_allclose(matrix @ [0, 3, 4, 1], [*layer.data_to_world((2, 3, 4)), 1])


def test_pixels_are_those_that_are_stored() -> None:
    deep = np.full((4, 4), 40_000, dtype=np.uint16)
    assert Picture("photo", deep, Plane((0, 1), (0, 0))).read().dtype == np.uint16
