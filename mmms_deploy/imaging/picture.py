"""Opens pictures: the one place where a file becomes an image of Pillow.

* A file is opened in the documented formats alone (:mod:`mmms_deploy.imaging.formats`), whatever its name says.
* A PIL image that a caller passes was opened by the caller. Pillow decodes lazily, so it may still be a file of any
  format; then only the documented ones are decoded. What is decoded already is taken as it is.
* A picture has at most :data:`PIXELS` pixels, as many as Pillow allows; there is no warning below this number.
* Of a file with several pictures (animations, pages) the first one is taken, with a warning. The previews in a camera's
  MPO file and the reduced copies in a TIFF file do not count.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from mmms_deploy.arguments import shown
from mmms_deploy.errors import FileReadError, MMMSDeployError, MMMSDeployWarning
from mmms_deploy.files import as_path, open_regular, unreadable
from mmms_deploy.imaging.formats import FORMATS, HEAD, OPENED, READ, refusal
from mmms_deploy.imaging.refusal import Refusal
from mmms_deploy.imaging.sources import Contents, FileObject, check_text, contents

PictureLike: TypeAlias = "Image.Image | str | os.PathLike[str] | bytes | bytearray | memoryview | FileObject"
"""A PIL image, the path of a file, or a file's contents: bytes, or a file object."""

_ORIENTATION = 0x0112
_SUBFILE = 254
_PNG = b"\x89PNG\r\n\x1a\n"
_REDUCED_OR_MASK = 0b101
_PAGES = 32
"""How many pages of a TIFF file are looked at: many copies of one picture are no pages."""
_FILTERS = threading.Lock()
"""Filters of warnings belong to the whole process; threads that change them take turns."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture as it is stored.

    Attributes:
        image: The picture; it may belong to the caller.
        where: Its path, or what it is, for messages.
        format: Its format as Pillow names it; empty for one that was made in memory.
        rawmode: How its samples are stored, as Pillow names it, e.g. ``I;16S``; empty where nothing is known.
        greatest: The number that stands for white, where the format says one: 4095 for 12 bits; None elsewhere.
        orientation: Its EXIF orientation, 1 to 8; None when it says none.
        turns: The orientation that is still to be applied: 1 where Pillow has done it.
        inverted: Whether 0 is white in its numbers.
        sample_format: SampleFormat of a TIFF file: 1 unsigned, 2 signed, 3 floating point; 1 elsewhere.
    """

    image: Image.Image
    where: str
    format: str
    rawmode: str
    greatest: int | None
    orientation: int | None
    turns: int
    inverted: bool = False
    sample_format: int = 1


def open_picture(source: PictureLike | Contents, refuse: Refusal) -> Picture:
    """Open and decode a picture.

    Args:
        source: A path, a PIL image, or a file's contents as bytes or as a file object.
        refuse: Makes the error.

    Raises:
        MMMSDeployError: ``refuse``'s error: the file is missing, is no picture in a documented format, is damaged, or
            is too large.
    """
    if isinstance(source, Image.Image):
        _check_lazy(source, refuse)
        return _decoded(source, "the PIL image", refuse, damaged=False)
    given = source if isinstance(source, Contents) else contents(source, refuse)
    if given is not None:
        return _read(given.stream, given.where, refuse)
    check_text(source, refuse)
    try:
        path = as_path(source)
        with open_regular(path) as stream:
            return _read(stream, str(path), refuse)
    except FileReadError as error:
        raise _unreadable(source, error, refuse) from error
    except OSError as error:
        raise _unreadable(source, unreadable(source, error), refuse) from error


def _read(stream: BinaryIO, where: str, refuse: Refusal) -> Picture:
    """Open and decode the picture in an open file."""
    head = stream.read(HEAD)
    try:
        image, damaged = _opened(stream)
    except Image.DecompressionBombError:
        raise _too_large(where, refuse) from None
    except Exception as error:  # decoders of broken files raise nearly everything
        problem, fix, command_fix = refusal(head)
        raise refuse(f"{where} {problem}", fix, command_fix) from error
    with image:
        _warn_of_pages(image, where)
        return _decoded(image, where, refuse, damaged=damaged)


def _unreadable(source: object, error: FileReadError, refuse: Refusal) -> MMMSDeployError:
    name = str(source) if isinstance(source, str | os.PathLike) else shown(source, 80)
    given = f"there is no file {name}" if error.missing else f"{name} cannot be read: {error.reason}"
    return refuse(given, "check the path" if error.missing else "check the file")


def _opened(stream: BinaryIO) -> tuple[ImageFile.ImageFile, bool]:
    """Open a file in the documented formats, without Pillow's warning of large ones.

    Returns:
        The image, and whether its EXIF data is damaged.
    """
    stream.seek(0)
    formats = tuple(name for name in OPENED if name in Image.OPEN)
    with _recorded() as said:
        image = Image.open(stream, formats=formats)
    return image, _of_exif(said)


@contextmanager
def _recorded() -> Iterator[list[warnings.WarningMessage]]:
    """Collect the warnings of Pillow instead of showing them."""
    with _FILTERS, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield said
    for one in said:
        if issubclass(one.category, MMMSDeployWarning):  # of another thread, in the meantime
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def _of_exif(said: list[warnings.WarningMessage]) -> bool:
    return any("EXIF" in str(one.message) for one in said)


def _too_large(where: str, refuse: Refusal) -> MMMSDeployError:
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    return refuse(
        f"{where} is refused: it has more than {limit} pixels and could be a decompression bomb; at most {limit} pixels"
        " are read",
        "if you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS",
        "make the image smaller",
    )


def _check_lazy(image: Image.Image, refuse: Refusal) -> None:
    if not isinstance(image, ImageFile.ImageFile) or image.format in FORMATS or _is_decoded(image):
        return
    raise refuse(
        f"the PIL image is a file of the format {image.format} that is not decoded yet",
        f"if you trust the file, call load() of the image first; without that, only {READ} are decoded",
    )


def _is_decoded(image: Image.Image) -> bool:
    # Pillow has no public name for this: the pixels are None, or in newer versions raise, until they are there.
    try:
        return image.im is not None
    except Exception:
        return False


def _decoded(image: Image.Image, where: str, refuse: Refusal, *, damaged: bool) -> Picture:
    """Decode an image; Pillow forgets how it was stored once it is decoded, so this is asked first."""
    try:
        form = image.format or ""
        rawmode, greatest = _storage(image)
        tags: Any = getattr(image, "tag_v2", {}) if form == "TIFF" else {}
        inverted = _first(tags.get(262)) == 0 and rawmode.startswith("I;16")
        if form == "TIFF" and greatest is None:
            greatest = _stated_greatest(tags)
        # Pillow turns TIFF files itself when it decodes them.
        before = _orientation(image)[0] if form == "TIFF" else None
        image.load()
        after, broken = _orientation(image)
    except MemoryError as error:
        raise refuse(f"{where} needs more memory than there is", "make the picture smaller, or free memory") from error
    except Exception as error:  # decoders of broken files raise nearly everything
        problem = str(error) or type(error).__name__
        raise refuse(f"{where} cannot be decoded: {problem}", "check whether the file is complete") from error
    if (before or after) is None and (damaged or broken):
        warnings.warn(f"{where}: its EXIF data is damaged, so it is taken as upright", MMMSDeployWarning, stacklevel=2)
    if min(image.size) == 0:
        raise refuse(f"{where} has no pixels", "check how it was cropped")
    signs = _first(tags.get(339))
    return Picture(image, where, form, rawmode, greatest, before or after, after or 1, inverted, signs or 1)


def _storage(image: Image.Image) -> tuple[str, int | None]:
    """Return how samples are stored, and the number that stands for white where the decoder scales by it."""
    tile = getattr(image, "tile", None)
    args = tile[0][3] if tile else ()
    first = args[0] if isinstance(args, tuple) and args else args
    rawmode = first if isinstance(first, str) else ""
    if image.format == "PPM" and isinstance(args, tuple) and len(args) == 2 and isinstance(args[1], int):
        return rawmode, args[1]
    if image.format == "PPM" and image.mode == "I":
        return rawmode, 65535
    if rawmode == "I;12":
        return rawmode, 4095
    if image.format == "PNG" and image.mode == "I":  # older versions of Pillow read a 16-bit grey PNG as mode I
        return "I;16B", None
    return rawmode, None


def _stated_greatest(tags: Any) -> int | None:
    """Return a TIFF file's MaxSampleValue where it states a number of bits, such as 4095 for 12."""
    value = _first(tags.get(281))
    return value if value is not None and 255 < value < 65535 and (value & (value + 1)) == 0 else None


def _first(value: Any) -> int | None:
    """Return a TIFF tag's number; several samples have one each."""
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else None


def _orientation(image: Image.Image) -> tuple[int | None, bool]:
    """Return the EXIF orientation, None for none, and whether the EXIF data is damaged."""
    with _recorded() as said:
        value = image.getexif().get(_ORIENTATION)
    return value if isinstance(value, int) and 1 <= value <= 8 else None, _of_exif(said)


def _warn_of_pages(image: ImageFile.ImageFile, where: str) -> None:
    if image.format == "MPO" or not _is_animated(image) or (image.format == "TIFF" and not _has_pages(image)):
        return
    warnings.warn(f"{where} holds several pictures: the first one is taken", MMMSDeployWarning, stacklevel=2)


def _is_animated(image: ImageFile.ImageFile) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a later picture of a GIF file that is damaged does not matter
        with contextlib.suppress(Exception):
            image.seek(0)
        return True


def _has_pages(image: Any) -> bool:
    """Return whether a TIFF file holds another picture, and not only reduced copies and masks of its first."""
    with _recorded():
        try:
            for page in range(1, _PAGES):
                image.seek(page)
                if not int(image.tag_v2.get(_SUBFILE, 0)) & _REDUCED_OR_MASK:
                    return True
        except EOFError:
            pass
        except Exception:  # a later page that is damaged does not matter
            return True
        finally:
            image.seek(0)
    return False


def turned(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turn an array (H, W, ...) upright, as an EXIF orientation says.

    Args:
        array: As stored.
        orientation: 1 to 8.

    Returns:
        A view.
    """
    if orientation >= 5:
        array = np.swapaxes(array, 0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


# --- the size alone ---------------------------------------------------------------------------------------------------


def upright_size(path: str | os.PathLike[str], refuse: Refusal) -> tuple[int, int]:
    """Return the size (H, W) of a picture in a file, upright, from its header.

    Args:
        path: The file.
        refuse: Makes the error.

    Raises:
        MMMSDeployError: ``refuse``'s error: the file is missing, is no picture in a documented format, or is too large.
            A file that is damaged behind its header is found when it is decoded.
    """
    return _from_header(path, refuse, upright=True)


def stored_size(source: str | os.PathLike[str] | bytes, refuse: Refusal) -> tuple[int, int]:
    """Return the size (H, W) of a picture as it is stored, from the header of its file; no pixel is decoded.

    Args:
        source: The path of the file, or its contents.
        refuse: Makes the error.

    Raises:
        MMMSDeployError: As for :func:`upright_size`.
    """
    if isinstance(source, bytes):
        return _size_in(io.BytesIO(source), "the bytes object", refuse, upright=False)
    return _from_header(source, refuse, upright=False)


def _from_header(path: str | os.PathLike[str], refuse: Refusal, *, upright: bool) -> tuple[int, int]:
    try:
        with open_regular(as_path(path)) as stream:
            return _size_in(stream, str(path), refuse, upright=upright)
    except FileReadError as error:
        raise _unreadable(path, error, refuse) from error
    except OSError as error:
        raise _unreadable(path, unreadable(path, error), refuse) from error


def _size_in(stream: BinaryIO, where: str, refuse: Refusal, *, upright: bool) -> tuple[int, int]:
    head = stream.read(HEAD)
    try:
        image, _ = _opened(stream)
        with image:
            # Of some PNG files the orientation lies behind the pixels, which are decoded to find it.
            turns = upright and _turns(image, stream)
            width, height = _stored_size(image)
    except Image.DecompressionBombError:
        raise _too_large(where, refuse) from None
    except Exception as error:  # headers of broken files raise nearly everything
        problem, fix, command_fix = refusal(head)
        raise refuse(f"{where} {problem}", fix, command_fix) from error
    return (width, height) if turns else (height, width)


def _turns(image: Image.Image, stream: BinaryIO) -> bool:
    """Whether the EXIF orientation exchanges width and height."""
    if image.format == "PNG" and not _has_late_text(stream):
        with _recorded():  # Pillow's own method for PNG decodes the pixels to look behind them
            value = Image.Image.getexif(image).get(_ORIENTATION)
        return isinstance(value, int) and 5 <= value <= 8
    return (_orientation(image)[0] or 1) >= 5


def _has_late_text(stream: BinaryIO) -> bool:
    """Whether a PNG file has chunks behind its pixels that may hold an orientation."""
    before = stream.tell()
    try:
        stream.seek(len(_PNG))
        pixels = False
        while len(start := stream.read(8)) == 8:
            length, kind = int.from_bytes(start[:4], "big"), start[4:]
            if pixels and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            pixels = pixels or kind == b"IDAT"
            stream.seek(length + 4, os.SEEK_CUR)
        return False
    finally:
        stream.seek(before)


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height as stored; Pillow gives those of a TIFF file upright, depending on its version."""
    tags: Any = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    width, height = _first(tags.get(256)), _first(tags.get(257))
    return (width, height) if width and height else image.size
