"""The formats of pictures that are opened, and what a file of another format is.

Pillow knows some forty formats. Some of them start another program (PostScript: Ghostscript), most are old and little
tested, and all of them are reached by the first bytes of a file, whatever its name says. So pictures are opened in the
formats below and no others. What a file is instead is told by its first bytes, for the message alone.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# The plugins register the formats below; the other ones of Pillow are never imported here.
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

FORMATS = tuple(
    plugin.format
    for plugin in (
        PngImagePlugin.PngImageFile,
        JpegImagePlugin.JpegImageFile,
        MpoImagePlugin.MpoImageFile,
        TiffImagePlugin.TiffImageFile,
        BmpImagePlugin.BmpImageFile,
        WebPImagePlugin.WebPImageFile,
        GifImagePlugin.GifImageFile,
        PpmImagePlugin.PpmImageFile,
    )
)
"""Names of the formats, as Pillow has them; MPO is the JPEG of cameras that store a preview behind the photograph."""

OPENED = tuple(name for name in FORMATS if name != MpoImagePlugin.MpoImageFile.format)
"""The formats that ``Image.open`` is called with; it opens MPO as JPEG."""

READ = "PNG, JPEG, TIFF, BMP, WebP, GIF, or PPM and its kin (PGM, PBM, PFM)"
"""The formats as messages and documents name them."""

HEAD = 4096
"""How many of a file's first bytes tell what it is."""

_CONVERT = "convert it to PNG or JPEG"


class Kind(NamedTuple):
    """What a file is.

    Attributes:
        name: With its article, e.g. ``a PostScript file``.
        fix: What to do, for a caller in Python; None for the usual conversion.
        command_fix: The same for a user of the command line; None for ``fix``.
        known: Whether it has one of :data:`FORMATS`.
    """

    name: str
    fix: str | None = None
    command_fix: str | None = None
    known: bool = False


_HEIC = Kind(
    "a HEIC photo, as phones take them",
    "convert it to JPEG; or pip install pillow-heif and pass pillow_heif.open_heif(path).to_pillow()",
    "convert it to JPEG, e.g. with ImageMagick: magick photo.heic photo.jpg",
)
_NUMPY_FIX = "pass the array itself: numpy.load(path)", "convert it to PNG or JPEG; a modality may be .npy"
_POINTER = Kind(
    "a pointer of Git LFS, not the picture itself", "fetch the picture: git lfs pull", "fetch the picture: git lfs pull"
)
_RAW = "develop it to TIFF, PNG or JPEG"
_DICOM = "convert it to 8 bits with the window you want to see, and save it as PNG"

_STARTS: tuple[tuple[bytes, Kind], ...] = (
    (b"\x89PNG\r\n\x1a\n", Kind("a PNG file", known=True)),
    (b"\xff\xd8\xff", Kind("a JPEG file", known=True)),
    (b"GIF87a", Kind("a GIF file", known=True)),
    (b"GIF89a", Kind("a GIF file", known=True)),
    (b"II*\0", Kind("a TIFF file", known=True)),
    (b"MM\0*", Kind("a TIFF file", known=True)),
    (b"II+\0", Kind("a BigTIFF file", known=True)),
    (b"MM\0+", Kind("a BigTIFF file", known=True)),
    (b"%!PS", Kind("a PostScript file")),
    (b"\xc5\xd0\xd3\xc6", Kind("a PostScript file")),
    (b"%PDF", Kind("a PDF document", "save the page as PNG or JPEG")),
    (b"8BPS", Kind("a Photoshop file")),
    (b"gimp xcf", Kind("a GIMP file")),
    (b"\0\0\0\x0cjP  ", Kind("a JPEG 2000 picture")),
    (b"\xff\x4f\xff\x51", Kind("a JPEG 2000 picture")),
    (b"\0\0\0\x0cJXL ", Kind("a JPEG XL picture")),
    (b"\xff\x0a", Kind("a JPEG XL picture")),
    (b"\x93NUMPY", Kind("a NumPy array", *_NUMPY_FIX)),
    (b"PK\x03\x04", Kind("a ZIP archive, or an .npz file", "unpack it")),
    (b"\x1f\x8b", Kind("a gzip archive", "unpack it")),
    (b"\x89HDF", Kind("an HDF5 file", "save the picture in it as PNG, or its numbers as .npy")),
    (b"SIMPLE  =", Kind("a FITS file", "save the picture in it as PNG, or its numbers as .npy")),
    (b"v/1\x01", Kind("an OpenEXR picture", "save it with 8 bits a channel, or its numbers as .npy")),
    (b"#?RADIANCE", Kind("a Radiance HDR picture", "save it with 8 bits a channel")),
    (b"FUJIFILMCCD-RAW", Kind("a camera's raw file", _RAW)),
    (b"\0\0\1\0", Kind("a Windows icon")),
    (b"icns", Kind("an icon of macOS")),
    (b"DDS ", Kind("a DDS texture")),
    (b"\xd7\xcd\xc6\x9a", Kind("a Windows metafile")),
    (b"version https://git-lfs", _POINTER),
    (b"\x01\xda\x00", Kind("an SGI picture")),
    (b"\x01\xda\x01", Kind("an SGI picture")),
)
_FORMS = (
    *((re.compile(re.escape(start)), kind) for start, kind in _STARTS),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), Kind("a WebP file", known=True)),
    (re.compile(rb"P[1-6Ff]\s"), Kind("a PPM file", known=True)),
    (re.compile(rb".{128}DICM", re.DOTALL), Kind("a DICOM file", _DICOM)),
    (re.compile(rb"BM"), Kind("a BMP file", known=True)),
)
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), Kind("an AVIF picture")),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), _HEIC),
    b"crx ": Kind("a camera's raw file", _RAW),
    **dict.fromkeys((b"mif1", b"msf1"), _HEIC),  # what HEIC and AVIF have in common, so the last to look for
}
"""By the brands of an ISO media file."""


def kind_of(head: bytes) -> Kind | None:
    """Tell what a file is.

    Args:
        head: Its first :data:`HEAD` bytes, or all of it.

    Returns:
        What it is; None when that is not known.
    """
    if not head:
        return Kind("empty", "check how it was copied or downloaded")
    for form, kind in _FORMS:
        if form.match(head):
            return kind
    return _media(head) if head[4:8] == b"ftyp" else _text(head)


def _media(head: bytes) -> Kind:
    """Tell what an ISO media file is: the brand says it, or the compatible ones after it."""
    length = min(int.from_bytes(head[:4]), 256)
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, length, 4))}
    return next((kind for brand, kind in _BRANDS.items() if brand in brands), Kind("a video", "save one frame as PNG"))


def _text(head: bytes) -> Kind | None:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:400].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return Kind("an HTML page, not a picture", "download the picture itself")
    if start.startswith((b"<svg", b"<?xml")) and b"<svg" in head.lower():
        return Kind("an SVG drawing", "draw it as PNG")
    if b"\0" not in head and _is_text(head):
        return Kind("a text file", "give the picture")
    return None


def _is_text(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4 and len(head) == HEAD  # cut off inside of a character
    return True


def refusal(head: bytes) -> tuple[str, str, str]:
    """Say why a file is not opened.

    Args:
        head: Its first :data:`HEAD` bytes, or all of it.

    Returns:
        What it is, as the end of a sentence that begins with its name; what to do, for a caller in Python, and for a
        user of the command line.
    """
    kind = kind_of(head)
    if kind is None:
        return "is no picture in a format that is read here", _CONVERT, _CONVERT
    if kind.known:
        said = f"is {kind.name}, but damaged, or of a form that Pillow cannot read"
        fix = "check whether it is complete, or save it again as an ordinary PNG"
        return said, fix, fix
    fix = kind.fix or _CONVERT
    return f"is {kind.name}", fix, kind.command_fix or fix
