"""From checked images to the network's input tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.contract import ImageSpec, ModalitySpec
from mmms_deploy.errors import ModalityError
from mmms_deploy.image_io import ImageLike, UInt8Array, load_modality
from mmms_deploy.resize import FloatArray, resize_image


def prepare(array: npt.NDArray[Any], spec: ImageSpec | ModalitySpec, size: tuple[int, int]) -> FloatArray:
    """Resize, scale and normalise an image or a modality.

    Args:
        array: (H0, W0, C) finite numbers; C as the spec says.
        spec: The checkpoint's preparation.
        size: The network's (H, W).

    Returns:
        (1, C, H, W) float32: (resized * scale - mean) / std.
    """
    out = resize_image(array, size, spec.resize)
    # A network whose first layer does this itself (the rewrite fold_normalisation) leaves nothing to do.
    if spec.scale != 1.0:
        out *= np.float32(spec.scale)
    if any(spec.mean):
        out -= np.asarray(spec.mean, dtype=np.float32)[:, None, None]
    if set(spec.std) != {1.0}:
        out /= np.asarray(spec.std, dtype=np.float32)[:, None, None]
    return out[None]


def load_modalities(
    given: Mapping[str, ImageLike], specs: Sequence[ModalitySpec], image: UInt8Array
) -> dict[str, npt.NDArray[Any]]:
    """Load the modalities that a bundle wants, and check them against the image.

    Args:
        given: What the caller passed, by name.
        specs: What the bundle wants.
        image: (H0, W0, 3), the RGB image that they are aligned with, pixel by pixel.

    Returns:
        (H0, W0, C) numbers for every spec, by name.

    Raises:
        ModalityError: One is missing or surplus, cannot be read, or has another size or other channels.
    """
    wanted = [spec.name for spec in specs]
    missing = [name for name in wanted if name not in given]
    surplus = [name for name in given if name not in wanted]
    if missing or surplus:
        parts = [f"{kind}: {', '.join(found)}" for kind, found in (("missing", missing), ("surplus", surplus)) if found]
        raise ModalityError(
            f"modalities given: {', '.join(given) or 'none'} ({'; '.join(parts)})",
            expected=f"modalities of this bundle: {', '.join(wanted) or 'none, it takes RGB alone'}",
            fix=f"call set_image({', '.join(['rgb', *(f'{name}=...' for name in wanted)])})",
        )
    loaded = {}
    for spec in specs:
        array = load_modality(given[spec.name], spec.name, spec.channels)
        if array.shape[:2] != image.shape[:2]:
            raise ModalityError(
                f"modality {spec.name!r} has {array.shape[0]} rows and {array.shape[1]} columns",
                expected=f"{image.shape[0]} rows and {image.shape[1]} columns, like the RGB image",
                fix="register it to the RGB image first",
            )
        loaded[spec.name] = array
    return loaded
