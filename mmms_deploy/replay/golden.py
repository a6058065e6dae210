"""The golden replay: images, clicks, and the masks that the checkpoint itself answered with.

``golden.npz`` of a bundle; plain arrays, no pickled objects. ``mmms-verify`` replays it on the machine that will serve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.errors import BundleCorruptError, FileReadError
from mmms_deploy.files import MIB, replacing
from mmms_deploy.files.arrays import load_arrays
from mmms_deploy.imaging.io import UInt8Array
from mmms_deploy.imaging.resize import BoolArray, FloatArray

_MOST_PACKED = 256 * MIB
"""The most bytes of the packed masks of a case; unpacked they have eight times as many."""


@dataclass(frozen=True, eq=False)
class GoldenCase:
    """One image, a sequence of clicks on it, and the reference masks.

    Attributes:
        image: (H0, W0, 3) uint8, RGB.
        clicks: (N, 3) float32: x, y in image pixels, 1 for positive or 0 for negative; in order, N at least 1.
        masks: (N, H0, W0) bool: the reference mask after every click.
        certain: (N, H0, W0) bool: where the reference probability is not within a hair of the threshold, so that
            another order of the same sums cannot flip a pixel.
        modalities: (H0, W0) or (H0, W0, C) numbers as stored, by name.
        features: The backbone's features, (1, d, h, w) float32 by name, for a bundle without its backbone. Of a click
            bundle, what its stages read of an image, (1, ...) float32, float16 or uint8; its images are black, and have
            the size of the pictures alone.
        surfaces: (N,) uint8, of a network that answers for several objects at once: the object that each click is made
            on, from 1; a negative click is made while it is the current one. The masks are those of these objects.
        labels: (N, H0, W0) uint8, of such a network: the reference's objects after every click, 0 for the background.
        choice: Which proposal for the first click the reference went on from; None for a network without proposals.

    Raises:
        ValueError: The shapes or dtypes do not fit each other.
    """

    image: UInt8Array
    clicks: FloatArray
    masks: BoolArray
    certain: BoolArray
    modalities: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    features: Mapping[str, FloatArray] = field(default_factory=dict)
    surfaces: UInt8Array | None = None
    labels: UInt8Array | None = None
    choice: int | None = None

    def first(self, clicks: int) -> GoldenCase:
        """Return the same case with its first clicks alone."""
        return replace(
            self,
            clicks=self.clicks[:clicks],
            masks=self.masks[:clicks],
            certain=self.certain[:clicks],
            surfaces=None if self.surfaces is None else self.surfaces[:clicks],
            labels=None if self.labels is None else self.labels[:clicks],
        )

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise ValueError(f"image: expected (H0, W0, 3) uint8, got {self.image.shape} {self.image.dtype}")
        size = self.image.shape[:2]
        if self.clicks.ndim != 2 or self.clicks.shape[1] != 3 or not len(self.clicks):
            raise ValueError(f"clicks: expected (N, 3), N at least 1, got {self.clicks.shape}")
        if self.clicks.dtype != np.float32 or not np.all(np.isfinite(self.clicks)):
            raise ValueError(f"clicks: expected finite float32, got {self.clicks.dtype}")
        for name, maps in (("masks", self.masks), ("certain", self.certain)):
            if maps.shape != (len(self.clicks), *size) or maps.dtype != np.bool_:
                raise ValueError(f"{name}: expected {(len(self.clicks), *size)} bool, got {maps.shape} {maps.dtype}")
        for name, array in self.modalities.items():
            if array.shape[:2] != size or array.dtype.kind not in "uif":
                raise ValueError(f"modality {name}: expected {size} numbers, got {array.shape} {array.dtype}")
        for name, array in self.features.items():
            if array.ndim == 0 or array.dtype not in (np.float32, np.float16, np.uint8):
                raise ValueError(f"feature {name}: expected (1, ...) float32, got {array.shape} {array.dtype}")
        if (self.surfaces is None) != (self.labels is None):
            raise ValueError("clicks on several objects have surfaces and labels, both or none of them")
        if self.surfaces is not None and self.labels is not None:
            self._check_objects(self.surfaces, self.labels)

    def _check_objects(self, surfaces: UInt8Array, labels: UInt8Array) -> None:
        if surfaces.shape != (len(self.clicks),) or surfaces.dtype != np.uint8 or not surfaces.all():
            raise ValueError(f"surfaces: expected {(len(self.clicks),)} uint8 from 1, got {surfaces.shape}")
        if labels.shape != self.masks.shape or labels.dtype != np.uint8:
            raise ValueError(f"labels: expected {self.masks.shape} uint8, got {labels.shape} {labels.dtype}")
        if labels.max(initial=0) > surfaces.max(initial=0):
            raise ValueError(f"labels: object {labels.max()} has no click")


def save_golden(path: Path, cases: Sequence[GoldenCase]) -> None:
    """Write cases to a ``.npz`` file, masks as bits. The same cases give the same bytes.

    Args:
        path: The file; overwritten.
        cases: At least one.

    Raises:
        ValueError: There is no case.
        OutputWriteError: The file cannot be written.
    """
    if not cases:
        raise ValueError("a golden replay needs at least one case")
    arrays: dict[str, npt.NDArray[Any]] = {"cases": np.array(len(cases))}
    for index, case in enumerate(cases):
        arrays[f"{index}/image"] = case.image
        arrays[f"{index}/clicks"] = case.clicks
        arrays[f"{index}/masks"] = np.packbits(case.masks, axis=-1)
        arrays[f"{index}/certain"] = np.packbits(case.certain, axis=-1)
        if case.surfaces is not None and case.labels is not None:
            arrays[f"{index}/surfaces"], arrays[f"{index}/labels"] = case.surfaces, case.labels
        if case.choice is not None:
            arrays[f"{index}/choice"] = np.array(case.choice)
        for name, array in case.modalities.items():
            arrays[f"{index}/modality/{name}"] = array
        for name, array in case.features.items():
            arrays[f"{index}/feature/{name}"] = array
    with replacing(path) as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def load_golden(path: Path) -> list[GoldenCase]:
    """Read what :func:`save_golden` wrote.

    Args:
        path: The file.

    Raises:
        BundleCorruptError: It is missing or holds something else.
    """
    try:
        arrays = load_arrays(path)
        cases = [_case(arrays, index) for index in range(int(arrays["cases"]))]
    # ValueError and the others: arrays of other shapes, types and numbers than a replay has.
    except (FileReadError, ValueError, KeyError, TypeError, IndexError, OverflowError, MemoryError) as error:
        raise BundleCorruptError(
            f"{path} is no golden replay: {error.reason if isinstance(error, FileReadError) else error}",
            expected="images, clicks and masks, as mmms-export writes them",
            fix="copy the bundle again, or export the checkpoint again",
        ) from error
    if not cases:
        raise BundleCorruptError(f"{path} holds no case", expected="at least one", fix="export the checkpoint again")
    return cases


def _case(arrays: Mapping[str, npt.NDArray[Any]], index: int) -> GoldenCase:
    image = arrays[f"{index}/image"]
    if image.ndim != 3:
        raise ValueError(f"image {index} has shape {image.shape}")

    def named(kind: str) -> dict[str, npt.NDArray[Any]]:
        prefix = f"{index}/{kind}/"
        return {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}

    return GoldenCase(
        image=image,
        clicks=arrays[f"{index}/clicks"],
        masks=_unpacked(arrays[f"{index}/masks"], image.shape[1]),
        certain=_unpacked(arrays[f"{index}/certain"], image.shape[1]),
        modalities=named("modality"),
        features=named("feature"),
        surfaces=arrays.get(f"{index}/surfaces"),
        labels=arrays.get(f"{index}/labels"),
        choice=int(arrays[f"{index}/choice"]) if f"{index}/choice" in arrays else None,
    )


def _unpacked(bits: npt.NDArray[Any], width: int) -> BoolArray:
    if bits.dtype != np.uint8 or bits.ndim != 3 or bits.shape[2] != -(-width // 8):
        raise ValueError(f"packed masks of shape {bits.shape} and dtype {bits.dtype} do not fit a width of {width}")
    if bits.size > _MOST_PACKED:
        raise ValueError(f"packed masks of shape {bits.shape} are too large")
    return np.unpackbits(bits, axis=-1, count=width).view(np.bool_)
