"""Backbone features that a provider computes: the tensor format, its file, and its checks (paper appendix B).

The frozen backbone is a black box. It takes the image prepared as the bundle's ``image`` says, at the bundle's network
size, and returns F^(1..4): the raw patch tokens after four of its blocks, as maps. They are exchanged as four arrays
named ``backbone_1`` .. ``backbone_4``, each (1, d, H/P, W/P) or (d, H/P, W/P), float32 or float16, channels first, rows
downwards. A file is an uncompressed or compressed ``.npz`` with these names and, optionally, ``image_size``, two
integers (H0, W0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle import TensorSpec
from mmms_deploy.errors import FeatureError, FileReadError
from mmms_deploy.files import PathLike, as_path, replacing
from mmms_deploy.files.arrays import load_arrays
from mmms_deploy.imaging.arrays import hidden
from mmms_deploy.imaging.resize import FloatArray

IMAGE_SIZE = "image_size"


def checked_features(features: Mapping[str, npt.NDArray[Any]], specs: Sequence[TensorSpec]) -> dict[str, FloatArray]:
    """Check a backbone's features against the inputs of a bundle.

    Args:
        features: Arrays by name.
        specs: The inputs of the bundle that take them.

    Returns:
        (1, d, h, w) float32 arrays by name.

    Raises:
        FeatureError: A name is missing or surplus, or an array has another shape or type, is not finite, or is a
            masked one that hides a number.
    """
    wanted = ", ".join(f"{spec.name} {spec.shape}" for spec in specs)
    names = {spec.name for spec in specs}
    if set(features) != names:
        raise FeatureError(
            f"features given: {', '.join(features) or 'none'}",
            expected=f"float32 or float16 arrays {wanted}",
            fix="name them as the bundle does",
        )
    checked = {}
    for spec in specs:
        covered = hidden(features[spec.name])
        if covered is not None:
            raise FeatureError(
                f"{spec.name} is a masked array that hides {np.count_nonzero(covered)} of its numbers",
                expected="a number everywhere",
                fix="ask the provider for whole features: nothing takes the place of a missing one",
            )
        array = np.asarray(features[spec.name])
        given = f"{spec.name} has shape {array.shape} and dtype {array.dtype}"
        if array.shape not in (spec.shape, spec.shape[1:]) or array.dtype not in (np.float16, np.float32):
            raise FeatureError(
                given,
                expected=f"{spec.shape} float32 or float16",
                fix="take the raw block outputs as maps, channels first, at the bundle's network size",
            )
        value: FloatArray = array.reshape(spec.shape).astype(np.float32, copy=False)
        if not np.isfinite(value).all():
            raise FeatureError(
                f"{given}, and values that are not finite",
                expected="finite numbers",
                fix="check the provider's precision: raw block outputs of large ViTs can overflow float16",
            )
        checked[spec.name] = value
    return checked


def load_features(path: PathLike) -> tuple[dict[str, npt.NDArray[Any]], tuple[int, int] | None]:
    """Read features from a ``.npz`` file, such as :func:`save_features` writes; nothing in the file is executed.

    Args:
        path: The ``.npz`` file.

    Returns:
        The arrays by name, and the image's size (H0, W0); None for the size when the file does not have it.

    Raises:
        FeatureError: The file is missing, or is no such file.
    """
    try:
        arrays = load_arrays(as_path(path, "the file of features"))
    except FileReadError as error:
        raise FeatureError(
            error.given,
            expected="an .npz file of backbone features, no pickled objects",
            fix="write it with numpy.savez(path, backbone_1=..., backbone_2=..., backbone_3=..., backbone_4=...)",
            command_fix="write it with numpy.savez, with arrays named backbone_1 to backbone_4",
        ) from error
    size = arrays.pop(IMAGE_SIZE, None)
    if size is None:
        return arrays, None
    if size.shape != (2,) or size.dtype.kind not in "ui":
        raise FeatureError(f"{path}: image_size is {size}", expected="two integers (H0, W0)", fix="write it again")
    return arrays, (int(size[0]), int(size[1]))


def save_features(
    path: PathLike, features: Mapping[str, npt.NDArray[Any]], image_size: tuple[int, int] | None = None
) -> None:
    """Write features to a ``.npz`` file.

    Args:
        path: The file; overwritten.
        features: Arrays by name, in the format of this module.
        image_size: (H0, W0) of their image; None leaves it out.

    Raises:
        FeatureError: The path is none.
        OutputWriteError: The file cannot be written.
    """
    try:
        place = as_path(path, "the file of features")
    except FileReadError as error:
        raise FeatureError(error.given, expected=error.expected, fix="pass the path of an .npz file") from error
    sizes = {} if image_size is None else {IMAGE_SIZE: np.array(image_size, dtype=np.int64)}
    with replacing(place) as stream:
        np.savez(stream, allow_pickle=False, **features, **sizes)
