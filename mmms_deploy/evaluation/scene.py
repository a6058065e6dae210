"""What an evaluation works on: scenes with surfaces to segment, and data sets that give them one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mmms_deploy.errors import MaskError


@dataclass(frozen=True, eq=False)
class Surface:
    """One target of a scene: an object, a part of one, or a material.

    Attributes:
        name: Unique within its scene, e.g. ``car-2``.
        mask: (H, W) bool, true on the surface.
    """

    name: str
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Scene:
    """One image with everything that belongs to it.

    Attributes:
        name: Unique within its data set, e.g. ``bmx-trees/00003``.
        image: (H, W, 3) uint8, RGB.
        surfaces: The targets; they may overlap only where the data set says so. Empty when nothing in the image counts,
            which only reading it shows (docs/datasets.md); an evaluation leaves such a scene out.
        modalities: (H, W) or (H, W, C) numbers as stored, by name; registered to the image pixel by pixel.
        void: (H, W) bool, true where a pixel counts neither as surface nor as background; None for nowhere.

    Raises:
        MaskError: A mask or the void map has another shape than the image, or is not a bool array.
    """

    name: str
    image: npt.NDArray[np.uint8]
    surfaces: tuple[Surface, ...]
    modalities: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    void: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        size = self.image.shape[:2]
        masks = [(f"surface {surface.name!r}", surface.mask) for surface in self.surfaces]
        if self.void is not None:
            masks.append(("the void map", self.void))
        for what, mask in masks:
            if mask.shape != size or mask.dtype != np.bool_:
                raise MaskError(
                    f"{what} of scene {self.name!r} has shape {mask.shape} and dtype {mask.dtype}",
                    expected=f"{size} bool, like the image",
                    fix="check the data set's folder",
                )


class Dataset(Protocol):
    """A data set, read scene by scene, so that its size does not affect memory.

    Attributes:
        name: What results are filed under, e.g. ``davis``.
        modalities: Names of the modalities that its scenes have.
    """

    @property
    def name(self) -> str:
        """What results are filed under."""
        ...

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities that its scenes have."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Scene: ...
