"""Converts checked images to the network's input tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle.contract import ImageSpec, ModalitySpec
from mmms_deploy.errors import ModalityError
from mmms_deploy.imaging.io import ImageLike, load_modality
from mmms_deploy.imaging.modality import measure
from mmms_deploy.imaging.resize import FloatArray, resize_image

_SQUARED = float(np.sqrt(np.finfo(np.float32).max))
"""The greatest number whose square float32 can hold."""


def prepare(array: npt.NDArray[Any], spec: ImageSpec | ModalitySpec, size: tuple[int, int]) -> FloatArray:
    """Resize, scale and normalise an image; or resize and normalise a modality that is in the network's unit.

    Args:
        array: (H0, W0, C): an image as stored, or a modality as
            :func:`~mmms_deploy.imaging.modality.measure` returns it.
        spec: The checkpoint's preparation.
        size: The network's (H, W).

    Returns:
        (1, C, H, W) float32: (resized - mean) / std; an image is multiplied by its scale first.

    Raises:
        ModalityError: A normalised number of a modality is so large that its square is none in float32.
    """
    if isinstance(spec, ImageSpec):
        return _normalised(array, spec, size)
    with np.errstate(over="ignore", invalid="ignore"):  # checked below
        out = _normalised(array, spec, size)
    _check_size_of_numbers(out, array, spec)
    return out


def _normalised(array: npt.NDArray[Any], spec: ImageSpec | ModalitySpec, size: tuple[int, int]) -> FloatArray:
    out = resize_image(array, size, spec.resize)
    # The rewrite fold_normalisation moves all of this into the network's first layer; then nothing is left to do here.
    if isinstance(spec, ImageSpec) and spec.scale != 1.0:
        out *= np.float32(spec.scale)
    if any(spec.mean):
        out -= np.asarray(spec.mean, dtype=np.float32)[:, None, None]
    if set(spec.std) != {1.0}:
        out /= np.asarray(spec.std, dtype=np.float32)[:, None, None]
    return out[None]


def within_reach(array: npt.NDArray[Any], spec: ModalitySpec) -> bool:
    """Return whether all normalised numbers of a modality have a square in float32, as its own numbers alone show.

    Args:
        array: (H0, W0, C) float32, finite, in the network's unit.
        spec: The checkpoint's preparation.

    Returns:
        False also where resizing might bring a greater number down to a usable one; :func:`prepare` knows.
    """
    greatest = max(-float(array.min()), float(array.max()), 0.0)
    return (greatest + max(map(abs, spec.mean))) / min(spec.std) <= _SQUARED


def _check_size_of_numbers(out: FloatArray, array: npt.NDArray[Any], spec: ModalitySpec) -> None:
    """Refuse numbers that no layer of a network could take: normalising layers square them."""
    least, greatest = float(out.min()), float(out.max())
    if least >= -_SQUARED and greatest <= _SQUARED:
        return
    raise ModalityError(
        f"modality {spec.name!r} has values from {float(array.min()):g} to {float(array.max()):g} in the network's"
        f" unit, and up to {max(-least, greatest):g} standard deviations from the mean",
        expected=f"at most {_SQUARED:.2g} standard deviations, the square of which float32 can hold",
        fix="check its unit and its holes: values that mean nothing are declared with 'invalid' of the modality, bounds"
        " with 'clip'",
    )


def load_modalities(
    given: Mapping[str, ImageLike], specs: Sequence[ModalitySpec], image_size: tuple[int, int]
) -> dict[str, FloatArray]:
    """Load modalities, check them against the image, and bring them to the network's units.

    Args:
        given: The modalities that the caller passed, by name; each must have a spec.
        specs: The modalities that the bundle takes.
        image_size: (H0, W0) of the image that they are registered to, pixel by pixel.

    Returns:
        (H0, W0, C) float32 by name, for the given ones, in the order of the specs.

    Raises:
        ModalityError: One cannot be read, or has another size, other channels, another dtype or values than its spec
            takes.
    """
    loaded = {}
    for spec in specs:
        if spec.name not in given:
            continue
        stored = load_modality(given[spec.name], spec.name)
        if stored.shape[:2] != image_size:
            raise ModalityError(
                f"modality {spec.name!r} has {stored.shape[0]} rows and {stored.shape[1]} columns",
                expected=f"{image_size[0]} rows and {image_size[1]} columns, like the RGB image",
                fix="register it to the RGB image first",
            )
        loaded[spec.name] = measure(stored, spec)
    return loaded
