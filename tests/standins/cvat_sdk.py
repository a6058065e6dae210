"""A stand-in of ``cvat_sdk`` for tests of the agent's function where it is not installed.

It takes what the real one takes (``tests/doors/cvat/test_real_agent.py`` compares them): the spec with its checks, the
shape, the error whose text annotators see, and the encoded mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np


class BadFunctionError(Exception):
    """The error whose text CVAT's agent passes on."""


@dataclass(frozen=True, kw_only=True)
class InteractionFunctionSpec:
    """What a function takes."""

    min_pos_points: int
    min_neg_points: int | None = None
    min_bounding_boxes: int | None = None

    def __post_init__(self) -> None:
        if self.min_pos_points < 0 or self.min_bounding_boxes not in (None, 0, 1):
            raise ValueError(self)


@dataclass(frozen=True, kw_only=True)
class InteractionResultShape:
    """A shape."""

    type: str
    points: list[float]
    attributes: list[Any] = field(default_factory=list)


def encode_mask(bitmap: Any, bbox: Sequence[float]) -> list[float]:
    """Run lengths of the box, zeros first, and the box with its last column and row."""
    x0, y0, x1, y1 = (int(side) for side in bbox)
    assert bitmap.dtype == np.bool_
    assert 0 <= x0 < x1 <= bitmap.shape[1]
    assert 0 <= y0 < y1 <= bitmap.shape[0]
    lengths, value = [0], False
    for pixel in bitmap[y0:y1, x0:x1].ravel().tolist():
        if pixel != value:
            lengths.append(0)
            value = pixel
        lengths[-1] += 1
    return [*lengths, x0, y0, x1 - 1, y1 - 1]


def decode_mask(encoded: Sequence[float], *, image_width: int, image_height: int) -> Any:
    """The mask (H, W) bool."""
    *lengths, x0, y0, x1, y1 = (int(number) for number in encoded)
    values = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    mask = np.zeros((image_height, image_width), dtype=np.bool_)
    mask[y0 : y1 + 1, x0 : x1 + 1] = values.reshape(y1 - y0 + 1, x1 - x0 + 1)
    return mask


def modules() -> dict[str, ModuleType]:
    """The modules, as ``sys.modules`` has them."""
    top, automatic, masks = (ModuleType(f"cvat_sdk{name}") for name in ("", ".auto_annotation", ".masks"))
    for name in (BadFunctionError, InteractionFunctionSpec, InteractionResultShape):
        setattr(automatic, name.__name__, name)
    masks.encode_mask, masks.decode_mask = encode_mask, decode_mask  # type: ignore[attr-defined]
    top.auto_annotation, top.masks = automatic, masks  # type: ignore[attr-defined]
    return {module.__name__: module for module in (top, automatic, masks)}
