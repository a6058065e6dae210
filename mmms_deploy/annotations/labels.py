"""Label maps with the names of their labels, as PNG files.

Up to 255 labels are a palette picture in the colours of PASCAL VOC, which every viewer shows; more are 16-bit grey. The
names are in the file, as JSON in a text chunk.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mmms_deploy.annotations.record import check_new, checked_suffix
from mmms_deploy.arguments import items, shown, whole
from mmms_deploy.errors import AnnotationError, FileReadError
from mmms_deploy.files import PathLike, as_path, decode_json, replacing
from mmms_deploy.imaging.picture import Picture, open_picture
from mmms_deploy.imaging.refusal import Refusal
from mmms_deploy.imaging.samples import to_numbers
from mmms_deploy.imaging.sources import FileObject

KEY = "mmms_labels"
"""The keyword of the text chunk with the names: a JSON object of names and labels."""
GREATEST = 65535
"""The greatest label that a PNG file holds."""
_EXPECTED = "a picture of labels, one number a pixel: PNG with a palette, or grey with 8 or 16 bits"
_LABELS = f"(H, W) whole numbers from 0 to {GREATEST}; 0 is background"

Labels = npt.NDArray[np.int32]


def write_labels(
    path: PathLike, labels: npt.NDArray[Any], names: Mapping[str, int] | None = None, *, overwrite: bool = False
) -> None:
    """Write a label map as a PNG file, whole or not at all.

    Args:
        path: The file; its name ends in ``.png``.
        labels: (H, W) whole numbers from 0 to 65535; 0 is background.
        names: The label of every name, as ``session.surfaces``; None for numbers without names.
        overwrite: Whether an existing file may be replaced.

    Raises:
        AnnotationError: They are no labels, or two names have the same label.
        OutputFormatError: The path ends in another suffix.
        OutputExistsError: The file exists, and may not be replaced.
        OutputWriteError: It cannot be written.
    """
    place = as_path(path)
    checked_suffix(place, (".png",), "labels are numbers, which other formats change or cannot hold with their names")
    checked = checked_labels(labels)
    named = {} if names is None else checked_names(names)
    check_new(place, overwrite=overwrite)
    if max(int(checked.max()), *named.values(), 0) <= 255:
        picture = Image.fromarray(checked.astype(np.uint8))
        picture.putpalette(palette())
    else:
        picture = Image.fromarray(checked.astype(np.uint16))
    text = PngInfo()
    if names is not None:
        text.add_itxt(KEY, json.dumps(named, ensure_ascii=False))
    with replacing(place, overwrite=overwrite, sync=True) as stream:
        picture.save(stream, format="PNG", pnginfo=text)


def read_labels(
    path: PathLike | Image.Image | bytes | bytearray | memoryview | FileObject,
    names: Mapping[str, int] | None = None,
    *,
    void: int | Iterable[int] | None = None,
) -> tuple[Labels, dict[str, int]]:
    """Read a label map from a picture.

    Args:
        path: A PNG file with a palette, or grey with 8 or 16 bits; such a picture in another lossless format; its
            bytes, a file object or an opened PIL image of it.
        names: The label of every name; None takes those in the file.
        void: A label, or several, that say of a pixel that it was left out, such as 255 in PASCAL VOC's files; it
            becomes background. None for none.

    Returns:
        (H, W) int32 as stored; and the label of every name, smallest label first. A label without a name is called by
        its number: ``"1"``, ``"2"``, ...

    Raises:
        AnnotationError: The file cannot be read, or its numbers are no labels.
    """
    refuse = Refusal(AnnotationError, "the labels", _EXPECTED)
    picture = open_picture(path, refuse)
    if picture.image.mode not in ("P", "L", "I", "1") and not picture.image.mode.startswith("I;16"):
        raise refuse(
            f"{picture.where} has {len(picture.image.getbands())} channels: its colours are no labels",
            "give the number of every pixel's object instead of a colour",
        )
    stored = names if names is not None else _stored_names(picture)
    return named_labels(to_numbers(picture, refuse), stored, void=void)


def named_labels(
    labels: object, names: Mapping[str, int], *, void: int | Iterable[int] | None = None
) -> tuple[Labels, dict[str, int]]:
    """Return a label map that comes from elsewhere, and a name for every label.

    Args:
        labels: (H, W) whole numbers from 0 to 65535, or bool.
        names: The label of every name.
        void: Labels that become background; see :func:`read_labels`.

    Returns:
        (H, W) int32, the caller's own; and the label of every name, smallest label first.

    Raises:
        AnnotationError: They are no labels, or two names have the same label.
    """
    checked = checked_labels(labels)
    left_out = _checked_void(void)
    if left_out:
        checked = np.where(np.isin(checked, left_out), np.int32(0), checked)
    named = {name: label for name, label in checked_names(names).items() if label not in left_out}
    known = set(named.values())
    present = np.zeros(GREATEST + 1, dtype=np.bool_)
    present[checked] = True
    for label in np.flatnonzero(present).tolist():
        if label and label not in known:
            name = str(label)
            while name in named:
                name += "'"
            named[name] = label
    return checked, dict(sorted(named.items(), key=lambda item: item[1]))


def checked_labels(labels: object) -> Labels:
    """Return a copy of a label map as int32.

    Args:
        labels: (H, W) whole numbers from 0 to 65535, or bool.

    Raises:
        AnnotationError: It is something else.
    """
    if isinstance(labels, np.ma.MaskedArray):
        raise AnnotationError("the labels are a masked array", expected=_LABELS, fix="fill it: labels.filled(0)")
    try:
        array = np.asarray(labels)
    except (ValueError, TypeError) as error:
        raise AnnotationError(f"the labels are no array: {error}", expected=_LABELS, fix="pass an array") from error
    given = f"the labels have shape {array.shape} and dtype {array.dtype}"
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 or array.size == 0:
        raise AnnotationError(given, expected=_LABELS, fix="pass one number for every pixel")
    if array.dtype.kind not in "bui":
        raise AnnotationError(given, expected=_LABELS, fix="convert them: labels.astype(int)")
    if array.min() < 0 or array.max() > GREATEST:
        raise AnnotationError(
            f"{given}, and numbers from {array.min()} to {array.max()}",
            expected=_LABELS,
            fix="number the objects from 1, and leave nothing negative: labels[labels < 0] = 0",
        )
    return array.astype(np.int32)


def _checked_void(void: object) -> list[int]:
    """Return the labels that become background.

    Raises:
        AnnotationError: They are no whole numbers.
    """
    if void is None:
        return []
    expected = "a label, or several: whole numbers"
    given = [void] if whole(void) is not None else items("void is", void, AnnotationError, expected=expected)
    labels = [number for number in map(whole, given) if number is not None]
    if len(labels) < len(given):
        raise AnnotationError(
            f"void is {shown(void, 80)}",
            expected=expected,
            fix="pass void=255, or void=(254, 255)",
            command_fix="name one label, such as 255",
        )
    return labels


def checked_names(names: object) -> dict[str, int]:
    """Return the label of every name, checked.

    Raises:
        AnnotationError: A name is no text or empty, a label is no whole number from 1 to 65535, or there twice.
    """
    expected = f"the label of every name, such as {{'dog': 1, 'cat': 2}}; labels from 1 to {GREATEST}, each once"
    if not isinstance(names, Mapping):
        raise AnnotationError(f"the names are a {type(names).__qualname__}", expected=expected, fix="pass a dict")
    checked: dict[str, int] = {}
    for name, label in names.items():
        number = whole(label)
        if not isinstance(name, str) or not name or number is None or not 1 <= number <= GREATEST:
            swapped = isinstance(label, str)
            raise AnnotationError(
                f"the name {shown(name, 80)} has the label {shown(label, 80)}",
                expected=expected,
                fix="turn it around: {name: label for label, name in names.items()}" if swapped else "correct it",
            )
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise AnnotationError(
                f"the name {name!r} is no Unicode", expected=expected, fix="choose another name"
            ) from error
        checked[str.__str__(name)] = number
    if len(set(checked.values())) < len(checked):
        raise AnnotationError(f"the names {checked} share labels", expected=expected, fix="give each its own")
    return checked


def palette() -> list[int]:
    """Return the 256 colours of PASCAL VOC: R, G, B of every label."""
    labels = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((labels >> (3 * bit + channel)) & 1) << (7 - bit)
    return [int(value) for value in colours.reshape(-1)]


def _stored_names(picture: Picture) -> dict[str, int]:
    text = getattr(picture.image, "text", {}).get(KEY)
    if text is None:
        return {}
    try:
        return checked_names(decode_json(str(text), picture.where))
    except (FileReadError, AnnotationError) as error:
        raise AnnotationError(
            f"the names of the labels in {picture.where} are damaged: {error.given}",
            expected="names as write_labels stores them",
            fix="pass names={...}, or {} to go by numbers",
            command_fix="write the file again",
        ) from error
