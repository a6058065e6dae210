"""One mask with its clicks, and its files: a picture of 0 and 255, or JSON that is read back exactly."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.annotations.boxes import bbox_of
from mmms_deploy.annotations.clicks import ClickLike, Point, clicks_to_json, points_of
from mmms_deploy.annotations.masks import checked_bool
from mmms_deploy.annotations.polygons import polygons_of
from mmms_deploy.annotations.rle import mask_of_rle, rle_of
from mmms_deploy.arguments import flag
from mmms_deploy.errors import AnnotationError, FileReadError, OutputExistsError, OutputFormatError, OutputWriteError
from mmms_deploy.files import MIB, PathLike, as_path, read_json, replacing, write_file
from mmms_deploy.files.output import check_replaceable
from mmms_deploy.imaging.resize import BoolArray

FORMAT = "mmms-annotation"
VERSION = 1
PICTURES = {".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}
"""Lossless formats by suffix."""
SUFFIXES = (*PICTURES, ".json")
_LIMIT = 512 * MIB
_EXPECTED = "a JSON file that ClickResult.save wrote: format, version, size, rle and clicks"


@dataclass(frozen=True, eq=False)
class Annotation:
    """A mask and the clicks that led to it.

    Attributes:
        mask: (H, W) bool.
        clicks: (x, y, positive) of every click, oldest first, in image pixels with pixel centres at integers;
            ``session.click(x, y, positive)`` makes it again.
    """

    mask: BoolArray
    clicks: tuple[Point, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it with everything that other tools may want of it, JSON-able.

        Returns:
            ``format``, ``version``; ``size`` [H, W]; ``area`` in pixels; ``bbox`` [x, y, width, height]; ``rle``,
            COCO's compressed run lengths; ``polygons`` [{"outer": [[x, y], ...], "holes": [...]}, ...] in pixel edges;
            and ``clicks`` [[x, y, 1 or 0], ...]. Only size, rle and clicks are read back.
        """
        return {
            "format": FORMAT,
            "version": VERSION,
            "size": list(self.mask.shape),
            "area": int(np.count_nonzero(self.mask)),
            "bbox": list(bbox_of(self.mask)),
            "clicks": clicks_to_json(self.clicks),
            "rle": rle_of(self.mask),
            "polygons": [polygon.to_dict() for polygon in polygons_of(self.mask)],
        }


def write_mask(
    path: PathLike, mask: npt.NDArray[Any], clicks: Iterable[ClickLike] = (), *, overwrite: bool = False
) -> None:
    """Write a mask, whole or not at all.

    Args:
        path: The file. ``.png``, ``.bmp``, ``.tif`` or ``.tiff``: a grey picture, 255 on the object and 0 off it.
            ``.json``: what :meth:`Annotation.to_dict` returns.
        mask: (H, W) bool, or whole numbers 0 and 1 or 0 and 255.
        clicks: The clicks that led to it, as (x, y, positive) or ``Click``; only JSON keeps them.
        overwrite: Whether an existing file may be replaced.

    Raises:
        AnnotationError: It is no mask, or a click is none.
        OutputFormatError: The path ends in another suffix.
        OutputExistsError: The file exists, and may not be replaced.
        OutputWriteError: It cannot be written.
    """
    place = as_path(path)
    suffix = checked_suffix(place, SUFFIXES, "a mask must be lossless")
    checked = checked_bool(mask)
    check_new(place, overwrite=overwrite)
    if suffix == ".json":
        write_json(place, Annotation(checked, points_of(clicks)).to_dict(), overwrite=overwrite)
        return
    from PIL import Image

    picture = Image.fromarray(checked.view(np.uint8) * np.uint8(255))
    with replacing(place, overwrite=overwrite, sync=True) as stream:
        picture.save(stream, format=PICTURES[suffix])


def read_annotation(path: PathLike) -> Annotation:
    """Read a mask and its clicks from a JSON file that :func:`write_mask` or ``ClickResult.save`` wrote.

    Args:
        path: The file.

    Returns:
        Both, exactly as they were.

    Raises:
        AnnotationError: The file cannot be read, or is something else.
    """
    try:
        found = read_json(path, _LIMIT)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ValueError(f"it has no 'format' of {FORMAT!r}")
        if found.get("version") != VERSION:
            raise ValueError(f"its version is {str(found.get('version'))[:40]}; this package reads {VERSION}")
        mask = mask_of_rle(found.get("rle", {}))
        if found.get("size") != list(mask.shape):
            raise ValueError("its size is not that of its run lengths")
        clicks = found.get("clicks", [])
        if not isinstance(clicks, list):
            raise ValueError("its clicks are no list")
        return Annotation(mask, points_of(clicks))
    except FileReadError as error:
        raise AnnotationError(error.given, expected=_EXPECTED, fix=error.fix or "check the file") from error
    except (ValueError, OverflowError, AnnotationError) as error:
        reason = error.given if isinstance(error, AnnotationError) else error
        raise AnnotationError(
            f"{path} is no annotation: {reason}", expected=_EXPECTED, fix="check where the file comes from"
        ) from error


def checked_suffix(path: Path, suffixes: Iterable[str], why: str = "the suffix chooses the format") -> str:
    """Return the suffix of an output in small letters.

    Args:
        path: The output.
        suffixes: Those that are written.
        why: Why no other one is.

    Raises:
        OutputFormatError: It is none of them.
    """
    suffix = path.suffix.lower()
    names = tuple(suffixes)
    if suffix not in names:
        raise OutputFormatError(
            f"{path} ends in {path.suffix!r}" if path.suffix else f"{path} has no suffix",
            expected=f"a name that ends in {', '.join(names)}; {why}",
            fix="choose another name",
        )
    return suffix


def check_new(path: Path, *, overwrite: bool) -> None:
    """Check early that an output replaces nothing, or may; whoever writes it checks again.

    Raises:
        OutputExistsError: It exists, and may not be replaced.
        OutputWriteError: It is a folder, a link or something else that is never replaced.
    """
    replaced = flag("overwrite", overwrite, OutputWriteError)
    if not check_replaceable(path) and not replaced and path.exists():
        raise OutputExistsError(
            f"{path} exists",
            expected="a new file",
            fix="choose another name, or pass overwrite=True",
            command_fix="choose another name, or pass --overwrite",
        )


def write_json(path: Path, document: object, *, overwrite: bool) -> None:
    """Write a JSON file, whole or not at all.

    Raises:
        AnnotationError: A text in it cannot be written in UTF-8.
        OutputExistsError: It exists, and may not be replaced.
        OutputWriteError: It cannot be written.
    """
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        content = text.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, as in the name of a file that is no UTF-8
        raise AnnotationError(
            f"a name holds the character {error.object[error.start]!r}, which no file in UTF-8 can hold",
            expected="names in Unicode",
            fix="choose another name",
        ) from error
    write_file(path, content + b"\n", overwrite=overwrite, sync=True)
