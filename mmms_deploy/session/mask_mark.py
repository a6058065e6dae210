"""What is kept of a mask where the mask itself is too large: its hash and its area; and how far two masks differ."""

from __future__ import annotations

import hashlib
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from mmms_deploy.annotations import rle_of
from mmms_deploy.bundle.contract import Struct
from mmms_deploy.imaging.resize import BoolArray

Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
"""A SHA-256, as 64 hexadecimal digits."""


class MaskMark(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of a mask.

    Attributes:
        sha256: Its hash: :func:`mask_hash`.
        area: How many pixels the object has.
        size: [H0, W0] where the mask itself is kept; else there is none.
        counts: The mask itself as COCO's compressed run lengths, where it is kept.
    """

    sha256: Hash
    area: Annotated[int, msgspec.Meta(ge=0)]
    size: tuple[Annotated[int, msgspec.Meta(ge=1)], Annotated[int, msgspec.Meta(ge=1)]] | None = None
    counts: str | None = None


def mask_hash(mask: BoolArray) -> str:
    """Return the hash of a mask.

    Args:
        mask: (H, W) bool.

    Returns:
        SHA-256 over the text ``mask H W`` with a line end, and the pixels row by row, 8 in a byte, the first one in
        the highest bit (``numpy.packbits``), as 64 hexadecimal digits.
    """
    found = hashlib.sha256(f"mask {mask.shape[0]} {mask.shape[1]}\n".encode())
    found.update(np.packbits(mask).data)
    return found.hexdigest()


def labels_hash(labels: npt.NDArray[np.int32]) -> str:
    """Return the hash of a label map.

    Args:
        labels: (H, W) int32, 0 or more.

    Returns:
        SHA-256 over the text ``labels H W N`` with a line end, and the labels row by row, each as N bytes in
        little-endian order: 1 where none is above 255, else 4. As 64 hexadecimal digits.
    """
    small = not labels.size or int(labels.max()) < 256
    found = hashlib.sha256(f"labels {labels.shape[0]} {labels.shape[1]} {1 if small else 4}\n".encode())
    found.update(np.ascontiguousarray(labels, dtype=np.uint8 if small else "<i4").data)
    return found.hexdigest()


def mark_of(mask: BoolArray, area: int, *, whole: bool = False) -> MaskMark:
    """Return what is kept of a mask.

    Args:
        mask: (H, W) bool.
        area: How many pixels of it are True.
        whole: Whether the mask itself is kept, as run lengths.
    """
    if not whole:
        return MaskMark(sha256=mask_hash(mask), area=area)
    counts = rle_of(mask)["counts"]
    assert isinstance(counts, str)
    return MaskMark(sha256=mask_hash(mask), area=area, size=(mask.shape[0], mask.shape[1]), counts=counts)


class Agreement(NamedTuple):
    """How far two masks agree.

    Attributes:
        iou: Their intersection over union, from 0 to 1; 1 where both are empty.
        pixels: How many pixels are in one of them alone.
    """

    iou: float
    pixels: int


def agreement(one: BoolArray, other: BoolArray) -> Agreement:
    """Return how far two masks of one size agree.

    Args:
        one: (H, W) bool.
        other: (H, W) bool.
    """
    pixels = int(np.count_nonzero(one ^ other))
    union = int(np.count_nonzero(one | other))
    return Agreement((union - pixels) / union if union else 1.0, pixels)
