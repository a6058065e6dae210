"""What a session takes as a mask: arrays, pictures, files, run lengths, polygons, and earlier results."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmms_deploy.annotations.coco import mask_of_segmentation
from mmms_deploy.annotations.labels import Labels, named_labels, read_labels
from mmms_deploy.annotations.masks import bool_of, checked_array
from mmms_deploy.annotations.polygons import Polygon, mask_of_polygons
from mmms_deploy.annotations.record import Annotation, read_annotation
from mmms_deploy.annotations.rle import Rle, mask_of_rle
from mmms_deploy.errors import AnnotationError, FileReadError, MaskInputError
from mmms_deploy.files.arrays import load_array
from mmms_deploy.imaging.picture import PictureLike, open_picture
from mmms_deploy.imaging.refusal import Refusal
from mmms_deploy.imaging.resize import BoolArray
from mmms_deploy.imaging.samples import to_numbers
from mmms_deploy.imaging.sources import FileObject
from mmms_deploy.session.result import ClickResult

MaskLike: TypeAlias = (
    "npt.NDArray[Any] | PictureLike | Rle | Mapping[str, Any] | Polygon | Sequence[Polygon] | Annotation | ClickResult"
)
"""An array, a picture, its path or its contents, run lengths, polygons, or an earlier answer."""

_PICTURES = (Image.Image, str, os.PathLike, bytes, bytearray, memoryview, FileObject)
"""What is no array: a picture, or a file."""

MOST = 1000
"""The most objects of a label map: each is kept at the network's size."""


def mask_of(source: object, size: tuple[int, int]) -> npt.NDArray[Any]:
    """Return a mask that a caller gives as an array of the image's size.

    Args:
        source: See ``Session.set_mask``.
        size: (H0, W0) of the image.

    Returns:
        (H0, W0) bool, or a float dtype whose values are not checked.

    Raises:
        MaskInputError: It is none of these, has another size, or numbers that do not say what belongs to the object.
    """
    expected = (
        f"{size[0]} rows and {size[1]} columns like the image: bool, whole numbers 0 and 1 or 0 and 255, or"
        " probabilities from 0 to 1 in a float dtype"
    )
    array = _array_of(source, size, expected)
    given = f"the mask has shape {array.shape} and dtype {array.dtype}"
    if array.shape != size:
        raise MaskInputError(given, expected=expected, fix=_fix_of_shape(array.shape, size))
    if array.dtype.kind == "f":
        return array
    if array.dtype.kind not in "bui":
        raise MaskInputError(given, expected=expected, fix="convert it: mask > 0")
    return bool_of(array, expected, MaskInputError)


def labels_of(
    source: object, names: Mapping[str, int] | None, void: int | Iterable[int] | None, size: tuple[int, int]
) -> tuple[Labels, dict[str, int]]:
    """Return a label map that a caller gives, read-only, and the label of every name.

    Args:
        source: See ``Session.load_labels``.
        names: As there.
        void: As there.
        size: (H0, W0) of the image.

    Raises:
        AnnotationError: It is no label map.
        MaskInputError: It has another size than the image, or more than :data:`MOST` labels.
    """
    if isinstance(source, _PICTURES):
        labels, named = read_labels(source, names, void=void)
    else:
        labels, named = named_labels(source, {} if names is None else names, void=void)
    if labels.shape != size:
        raise MaskInputError(
            f"the labels have {labels.shape[0]} rows and {labels.shape[1]} columns",
            expected=f"{size[0]} rows and {size[1]} columns, like the image",
            fix="pass the labels of this image, at its own size",
        )
    if len(named) > MOST:
        raise MaskInputError(
            f"there are {len(named)} labels",
            expected=f"at most {MOST} objects; measurements such as depth are no labels",
            fix="check that these are labels, one number for every object",
        )
    labels.setflags(write=False)
    return labels, named


def _array_of(source: object, size: tuple[int, int], expected: str) -> npt.NDArray[Any]:
    try:
        array = _drawn(source, size)
        if array is None and isinstance(source, str | os.PathLike):
            array = _stored(source)
    except (AnnotationError, FileReadError) as error:
        raise MaskInputError(
            f"the mask: {error.given}", expected=error.expected or expected, fix=error.fix or "check the file"
        ) from error
    if array is not None:
        return array
    if isinstance(source, _PICTURES):
        return _picture(source, expected)
    return checked_array(source, expected, MaskInputError)


def _drawn(source: object, size: tuple[int, int]) -> npt.NDArray[Any] | None:
    """Return the mask of an annotation in memory; None where it is none."""
    if isinstance(source, Annotation | ClickResult):
        return source.mask
    if isinstance(source, Mapping):
        return _listed(source, size)
    if isinstance(source, Polygon):
        return mask_of_polygons([source], size)
    # An empty mask has no polygons.
    if isinstance(source, list | tuple) and (not source or any(isinstance(one, Polygon) for one in source)):
        return mask_of_polygons(source, size)
    return None


def _listed(source: Mapping[str, Any], size: tuple[int, int]) -> BoolArray:
    """Return the mask of run lengths, or of a dict that holds them."""
    if "segmentation" in source:
        return mask_of_segmentation(source["segmentation"], size)
    if "rle" in source:
        return mask_of_rle(source["rle"])
    if "size" in source and "clicks" in source:
        raise AnnotationError(
            "the dict holds no 'rle'",
            expected="the dict of a result with its run lengths",
            fix='call to_dict(mask="rle")',
        )
    return mask_of_rle(source)


def _stored(path: str | os.PathLike[str]) -> npt.NDArray[Any] | None:
    """Return the mask in a file that is no picture; None where it is one."""
    name = str(os.fspath(path)).lower()
    if name.endswith(".npy"):
        return load_array(path)
    return read_annotation(path).mask if name.endswith(".json") else None


def _picture(source: PictureLike, expected: str) -> npt.NDArray[Any]:
    """Return the numbers of a grey picture, of a palette, or of a picture in colour that is grey."""
    refuse = Refusal(MaskInputError, "the mask", expected)
    picture = open_picture(source, refuse)
    image = picture.image
    array = to_numbers(picture, refuse)
    if array.ndim == 2:
        return array
    if image.mode not in ("LA", "RGB", "RGBA", "RGBX"):
        raise refuse(f"{picture.where} has the colour mode {image.mode!r}", "pass an array of 0 and 255")
    if image.mode in ("LA", "RGBA"):
        if (array[:, :, -1] != 255).any():
            raise refuse(
                f"{picture.where} is transparent in places: the object may be its colour or its alpha channel",
                "pass the one that is meant, such as np.asarray(image)[:, :, -1] > 0",
            )
        array = array[:, :, :-1]
    elif image.mode == "RGBX":
        array = array[:, :, :3]
    if (array != array[:, :, :1]).any():
        raise refuse(
            f"{picture.where} has colours, and nothing says which one is the object",
            "pass it by its colour, such as (np.asarray(image) == (255, 0, 0)).all(axis=-1)",
        )
    return np.ascontiguousarray(array[:, :, 0])


def _fix_of_shape(shape: tuple[int, ...], size: tuple[int, int]) -> str:
    if len(shape) == 3 and 1 in (shape[0], shape[2]) and sorted(shape) == sorted((*size, 1)):
        return f"drop the axis of length 1: mask{'[0]' if shape[0] == 1 else '[:, :, 0]'}"
    if len(shape) == 3 and shape[1:] == size:
        return "pass one of the masks: masks[0]"
    if shape == size[::-1]:
        return "turn it around, if its first axis is x: mask.T"
    return "bring it to the image's own size"
