"""The plane of an image layer that is on display: which axes it has, where it lies, and its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mmms_deploy.errors import DoorError
from mmms_deploy.session.surfaces import Labels

Layer: TypeAlias = Any
"""A layer of napari, which is not imported here."""
Viewer: TypeAlias = Any
"""A viewer of napari, or its model."""


@dataclass(frozen=True)
class Plane:
    """Two axes of a layer, and where the plane that they span lies on all others.

    Attributes:
        axes: The axis of the rows and the axis of the columns, as they are displayed.
        at: (n,) index on every axis of the layer, 0 on the two axes of the plane; channels of RGB are no axis.
    """

    axes: tuple[int, int]
    at: tuple[int, ...]

    @property
    def index(self) -> tuple[int | slice, ...]:
        """What an array of the layer is indexed with: its plane, with the axes in the array's order."""
        return tuple(slice(None) if axis in self.axes else place for axis, place in enumerate(self.at))

    @property
    def transposed(self) -> bool:
        """Whether rows come after columns in the array."""
        return self.axes[0] > self.axes[1]

    def point(self, row: float, column: float) -> tuple[float, ...]:
        """Return the layer's coordinates of a pixel of the plane.

        Args:
            row: Its row in the plane.
            column: Its column.
        """
        found = [float(place) for place in self.at]
        found[self.axes[0]], found[self.axes[1]] = row, column
        return tuple(found)

    def pixel(self, point: Sequence[float]) -> tuple[float, float]:
        """Return row and column of a point of the layer.

        Args:
            point: (n,) coordinates of the layer.

        Raises:
            DoorError: The point is not on this plane.
        """
        others = [axis for axis in range(len(self.at)) if axis not in self.axes]
        off = {axis: float(point[axis]) for axis in others if np.round(point[axis]) != self.at[axis]}
        if off:
            stood = ", ".join(f"{place:g} on axis {axis}" for axis, place in off.items())
            wanted = ", ".join(f"{self.at[axis]} on axis {axis}" for axis in off)
            raise DoorError(
                f"a click at {stood}, and the objects are on another slice",
                expected=f"clicks at {wanted}",
                fix="move the slider back, or press Start to work on the slice that is shown",
            )
        return float(point[self.axes[0]]), float(point[self.axes[1]])

    def of(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the plane of an array, rows first; channels stay last. It is no copy.

        Args:
            array: With the layer's axes, and channels behind them or not.
        """
        plane = array[self.index]
        return plane.swapaxes(0, 1) if self.transposed else plane

    def blank(self, size: tuple[int, int]) -> Labels:
        """Return an empty label map with as many axes as the layer has, one pixel thick on all that are not displayed.

        Args:
            size: (H, W) of the plane.
        """
        shape = [1] * len(self.at)
        shape[self.axes[0]], shape[self.axes[1]] = size
        return np.zeros(shape, dtype=np.int32)

    def thin(self) -> Plane:
        """Return the same plane in what :meth:`blank` gives."""
        return Plane(self.axes, (0,) * len(self.at))


@dataclass(frozen=True, eq=False)
class Picture:
    """What a layer shows, not read yet: its array may lie on a disk.

    Attributes:
        name: The layer's name.
        data: Its array, of the finest level where it has several.
        plane: The plane that is displayed.
    """

    name: str
    data: Any
    plane: Plane

    def read(self) -> npt.NDArray[Any]:
        """Return the pixels as stored, (H, W) or (H, W, C); colour maps and contrast limits do not count."""
        plane = np.asarray(self.data[self.plane.index])
        return np.ascontiguousarray(plane.swapaxes(0, 1) if self.plane.transposed else plane)


def picture_of(layer: Layer, viewer: Viewer) -> Picture:
    """Return what a layer shows in a viewer.

    Args:
        layer: An image or labels layer.
        viewer: The viewer that it is in.

    Raises:
        DoorError: The viewer shows three dimensions, or an axis that the layer does not have; or the slider is beside
            the layer.
    """
    data = layer.data[0] if layer.multiscale else layer.data
    return Picture(layer.name, data, plane_of(layer, viewer, data.shape))


def plane_of(layer: Layer, viewer: Viewer, shape: Sequence[int]) -> Plane:
    """Return the plane of a layer that a viewer displays.

    Args:
        layer: The layer.
        viewer: The viewer that it is in.
        shape: Of the layer's array; channels may come last.

    Raises:
        DoorError: As for :func:`picture_of`.
    """
    dims, beyond = viewer.dims, viewer.dims.ndim - layer.ndim
    displayed = [axis - beyond for axis in dims.displayed]
    if dims.ndisplay != 2:
        raise DoorError(
            "the viewer shows three dimensions", expected="two: clicks are on a plane", fix="switch to 2D (Ctrl+Y)"
        )
    if layer.ndim < 2 or min(displayed) < 0:
        raise DoorError(
            f"layer {layer.name!r} has {layer.ndim} dimensions, and the viewer displays the axes"
            f" {', '.join(map(str, dims.displayed))} of {dims.ndim}",
            expected="two axes of the layer on display",
            fix="roll the axes (Ctrl+E) until the layer's rows and columns are shown",
        )
    place = layer.world_to_data(dims.point)
    at = []
    for axis, length in zip(range(layer.ndim), shape, strict=False):
        index = 0 if axis in displayed else int(np.round(place[axis]))
        if not 0 <= index < length:
            raise DoorError(
                f"the slider of axis {axis + beyond} is at {dims.point[axis + beyond]:g}, which is beside layer"
                f" {layer.name!r}",
                expected=f"a slice of the layer, which has {length} there",
                fix="move the slider until the layer is seen",
            )
        at.append(index)
    return Plane((displayed[0], displayed[1]), tuple(at))


def placement(layer: Layer, offset: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return the matrix that puts an array where a part of a layer is in the world.

    Args:
        layer: A layer with n axes, scaled, moved, turned or sheared in any way.
        offset: (n,) index in the layer at which the array begins.

    Returns:
        (n + 1, n + 1): from the array's coordinates to the world's, homogeneous.
    """
    origin = np.asarray(layer.data_to_world([0.0] * layer.ndim), dtype=np.float64)
    matrix = np.eye(layer.ndim + 1)
    for axis in range(layer.ndim):
        unit = [1.0 if other == axis else 0.0 for other in range(layer.ndim)]
        matrix[:-1, axis] = np.asarray(layer.data_to_world(unit)) - origin
    matrix[:-1, -1] = layer.data_to_world([float(place) for place in offset])
    return matrix
