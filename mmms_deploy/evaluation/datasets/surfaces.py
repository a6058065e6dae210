"""From a label map to the surfaces of a scene."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.evaluation.datasets.kind import Option, min_area_option
from mmms_deploy.evaluation.datasets.listed import Labels
from mmms_deploy.evaluation.datasets.mistaken import (
    SMOOTHED_FIX,
    UNDECIDED,
    check_has_trimap_values,
    check_no_numbers_beside_255,
    check_no_trimap,
    check_not_smoothed,
    warn_of_trimap,
)
from mmms_deploy.evaluation.errors import DatasetFileError, DatasetLibraryError
from mmms_deploy.evaluation.scene import Surface
from mmms_deploy.installed import pip_install

Mask = npt.NDArray[np.bool_]

CLICK_AREA = 81
"""Pixels of the disk that the paper draws for a click (radius 5): a smaller surface is covered by its first click."""
_TRIMAP_FIX = (
    f"read it with the kind 'grabcut' or 'berkeley', or with the option void={UNDECIDED} of 'folder' and 'davis'"
)
_SUSPICIOUS = 128
"""A label map of 8 bits with more values is a smoothed mask: no set has so many objects in an image."""


OBJECT = "object"
"""Name of the surface of a mask that holds one object."""


@dataclass(frozen=True)
class ObjectRule:
    """A mask of one object.

    Attributes:
        threshold: The object is where values are greater.
        void: Values, of any size, that count neither as surface nor as background.
        min_area: An object of fewer pixels is left out.
        trimap: Whether masks have to be trimaps.
        numbered: Whether a mask may hold the numbers of several objects, which count as one.
    """

    threshold: int = 0
    void: frozenset[int] = frozenset()
    min_area: int = 1
    trimap: bool = False
    numbered: bool = False

    def split(self, labels: Labels, file: Path) -> tuple[tuple[Surface, ...], Mask | None]:
        """Return the object, or nothing if there is none, and the void pixels; like :meth:`SurfaceRule.split`.

        Raises:
            DatasetFileError: The values are those of another kind of mask.
        """
        values = [value for value in np.unique(labels).tolist() if value not in self.void]
        if self.trimap:
            check_has_trimap_values(values, file)
        elif self.threshold < UNDECIDED - 1:
            check_no_trimap(values, file, _TRIMAP_FIX)
            if self.numbered:
                check_no_numbers_beside_255(values, file)
        void = np.isin(labels, list(self.void)) if self.void else None
        mask = labels > self.threshold if void is None else (labels > self.threshold) & ~void
        surfaces = (Surface(OBJECT, mask),) if np.count_nonzero(mask) >= self.min_area else ()
        return surfaces, void if void is not None and void.any() else None


@dataclass(frozen=True)
class SurfaceRule:
    """What the values of a label map mean, and what a surface is.

    Attributes:
        names: Names of the values that are classes or objects; None when every value is one, named by its number.
        void: Values that count neither as surface nor as background.
        background: Values that are no surface.
        components: Whether every connected component (8 neighbours) of a value is a surface of its own.
        min_area: Surfaces of fewer pixels are left out; their pixels count as background.
        trimaps: Whether the values 0, 128 and 255 alone are taken for a background and two objects, with a warning.
    """

    names: Mapping[int, str] | None = None
    void: frozenset[int] = frozenset()
    background: frozenset[int] = field(default_factory=lambda: frozenset({0}))
    components: bool = False
    min_area: int = 1
    trimaps: bool = False

    def split(self, labels: Labels, file: Path) -> tuple[tuple[Surface, ...], Mask | None]:
        """Return the surfaces of a label map in the order of their values, and its void pixels.

        Args:
            labels: (H, W) integers.
            file: Where they come from, for messages.

        Returns:
            The surfaces; several of one class are numbered from the top, ``car-1``. And (H, W) bool, true on void
            pixels; None when there are none.

        Raises:
            DatasetFileError: A value has no meaning in this data set, or the map looks smoothed or like a trimap.
            DatasetLibraryError: Components are requested and OpenCV is not installed.
        """
        values = np.unique(labels).tolist()
        self._check(values, labels, file)
        parts: defaultdict[str, list[Mask]] = defaultdict(list)
        for value in values:
            if value in self.void or value in self.background:
                continue
            name = str(value) if self.names is None else self.names[value]
            mask = labels == value
            for part in components(mask) if self.components else (mask,):
                if np.count_nonzero(part) >= self.min_area:
                    parts[name].append(part)
        surfaces = tuple(
            Surface(f"{name}-{number}" if self.components else name, part)
            for name, masks in parts.items()
            for number, part in enumerate(masks, start=1)
        )
        present = self.void.intersection(values)
        return surfaces, np.isin(labels, list(present)) if present else None

    def _check(self, values: list[int], labels: Labels, file: Path) -> None:
        if self.names is not None:
            unknown = [v for v in values if v not in self.names and v not in self.void and v not in self.background]
            if unknown:
                raise DatasetFileError(
                    f"the label map {file} has the value {unknown[0]}",
                    expected=f"values with a meaning: {', '.join(map(str, sorted(self.names)))}, background"
                    f" {_list(self.background)}, void {_list(self.void)}",
                    fix="check whether these are the data set's original labels, not a conversion of them",
                )
        elif labels.dtype.itemsize == 1 and len(values) > _SUSPICIOUS:
            raise DatasetFileError(
                f"the label map {file} has {len(values)} different values",
                expected="one value an object",
                fix=SMOOTHED_FIX,
            )
        surfaces = [value for value in values if value not in self.background]
        if not self.trimaps:
            check_no_trimap(surfaces, file, _TRIMAP_FIX)
        elif UNDECIDED not in self.void:
            warn_of_trimap(surfaces, file)
        check_not_smoothed(labels, values, file)


def _list(values: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(values))) or "none"


def components(mask: Mask) -> Iterator[Mask]:
    """Yield the connected components (8 neighbours) of a mask, each (H, W) bool, by their first pixel in raster order.

    Raises:
        DatasetLibraryError: OpenCV is not installed.
    """
    cv2 = _opencv()
    _, numbers = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    found, first = np.unique(numbers, return_index=True)
    for number in found[np.argsort(first)]:  # OpenCV does not promise an order
        if number != 0:  # outside of the mask
            yield numbers == number


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise DatasetLibraryError(
            "surfaces by connected component need OpenCV, which is not installed",
            expected="the package opencv-python-headless",
            fix=pip_install("eval"),
        ) from error
    return cv2


Rule = ObjectRule | SurfaceRule
CLASSES, COMPONENTS, VALUES = "classes", "components", "values"
VOID, BACKGROUND = "void", "background"


def class_options(unlabelled: str) -> tuple[Option, ...]:
    """The options of a semantic label map.

    Args:
        unlabelled: What pixels without a class count as by default.
    """
    return (
        Option(
            "surfaces", "a surface is all of a class, or a connected component of it", CLASSES,
            choices=(CLASSES, COMPONENTS),
        ),
        min_area_option(CLICK_AREA),
        Option("unlabelled", "what pixels without a class count as", unlabelled, choices=(VOID, BACKGROUND)),
    )  # fmt: skip


def class_rule(
    names: Mapping[int, str], no_class: frozenset[int], *, surfaces: str, min_area: int, unlabelled: str
) -> SurfaceRule:
    """The rule for a semantic label map.

    Args:
        names: Names of the classes by value.
        no_class: Values of pixels without a class.
        surfaces: ``classes`` or ``components``.
        min_area: Least number of pixels of a surface.
        unlabelled: ``void`` or ``background``.
    """
    return SurfaceRule(
        names=names,
        void=no_class if unlabelled == VOID else frozenset(),
        background=no_class if unlabelled == BACKGROUND else frozenset(),
        components=surfaces == COMPONENTS,
        min_area=min_area,
    )
