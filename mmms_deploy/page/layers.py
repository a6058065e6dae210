"""Pictures and modalities as files that a browser shows, upright and without what else their files tell."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.errors import ImageError
from mmms_deploy.imaging.io import load_rgb
from mmms_deploy.imaging.samples import UInt8Array

_SHARE = 1.0
"""Percent of a modality's numbers that are drawn black, and white: single wrong measurements make nothing dark."""
_SAMPLE = 1 << 16
"""Numbers of a modality among which these are looked for; all of them take long in large pictures."""
_FAST = 1
"""The fastest compression of PNG: right for a picture that goes to a browser once, mostly on one machine."""
_THOROUGH = 6
_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"
_START_OF_SCAN = 0xDA
_PROFILE = 0xE2
_TELLING_SEGMENTS = frozenset({*range(0xE1, 0xF0), 0xFE}) - {_PROFILE, 0xEE}
"""Segments of JPEG that say something of the photographer; profiles of colour and Adobe's transform stay."""
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Segments of JPEG that say how many colours there are."""
_WITH_ALPHA = frozenset({4, 6})
"""Colour types of PNG with transparency."""
_SHOWN_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT"})
"""Chunks of PNG without which a picture looks different."""


def shown_picture(content: bytes, pixels: UInt8Array) -> tuple[bytes, str]:
    """Return a picture as a browser shows it, pixel by pixel as the network saw it.

    The file's own coding stays where it shows the same pixels without its metadata, such as the place where a
    photograph was taken; anything else becomes a PNG.

    Args:
        content: The file.
        pixels: (H0, W0, 3) what was read of it, upright.

    Returns:
        The content of a file, and ``jpg`` or ``png``.
    """
    for head, suffix, strip in ((_JPEG, "jpg", _plain_jpeg), (_PNG, "png", _plain_png)):
        if content.startswith(head):
            try:
                plain = b"".join(strip(content))
                if np.array_equal(load_rgb(plain), pixels):
                    return plain, suffix
            except (ValueError, IndexError, ImageError):
                break
    return png_of(pixels), "png"


def drawn_modality(stored: npt.NDArray[np.generic], spec: ModalitySpec) -> UInt8Array:
    """Return a modality's numbers as a picture, (H, W) grey or (H, W, 3) colours.

    Args:
        stored: (H, W, C) numbers as stored; with three channels they are colours, else the first one is shown.
        spec: What the bundle says of them. Numbers that mean that nothing was measured are black.
    """
    plane = stored if stored.shape[2] == 3 else stored[:, :, :1]
    if plane.dtype != np.uint8:
        numbers = plane.astype(np.float32)
        invalid = [value for value in spec.invalid if not isinstance(value, str)]
        measured = np.isfinite(numbers) & ~np.isin(plane, invalid)
        shown = np.zeros(numbers.shape, dtype=np.uint8)
        if measured.any():
            known = numbers[measured]
            least, most = np.percentile(known[:: max(1, known.size // _SAMPLE)], (_SHARE, 100 - _SHARE))
            scale = 255 / (most - least) if most > least else 0.0
            shown[measured] = np.clip((known - least) * scale, 0, 255).astype(np.uint8)
        plane = shown
    return np.ascontiguousarray(plane if plane.shape[2] == 3 else plane[:, :, 0])


def png_of(pixels: UInt8Array, *, fast: bool = False) -> bytes:
    """Return a picture as PNG.

    Args:
        pixels: (H, W) or (H, W, 3) uint8.
        fast: Whether time matters more than size.
    """
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=_FAST if fast else _THOROUGH)
    return stream.getvalue()


def _plain_jpeg(content: bytes) -> Iterator[bytes]:
    """Yield the parts of a JPEG file without its metadata.

    Raises:
        ValueError, IndexError: Its segments are no such, or it is not of grey or of three colours.
    """
    yield _JPEG
    place = 2
    while True:
        if content[place] != 0xFF:
            raise ValueError("no segment where one belongs")
        marker = content[place + 1]
        if marker == _START_OF_SCAN:
            break
        end = place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        if marker in _FRAMES and content[place + 9] not in (1, 3):
            raise ValueError("colours for printing")
        if marker not in _TELLING_SEGMENTS and (marker != _PROFILE or content.startswith(b"ICC_PROFILE", place + 4)):
            yield content[place:end]
        place = end
    # Behind the picture there may be another one, or a film.
    yield content[place : content.index(b"\xff\xd9", place) + 2]


def _plain_png(content: bytes) -> Iterator[bytes]:
    """Yield the parts of a PNG file without its metadata.

    Raises:
        ValueError: Its chunks are no such, or a browser shows other numbers: it is transparent, or has 16 bits.
    """
    yield _PNG
    place = len(_PNG)
    while place < len(content):
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        kind = content[place + 4 : place + 8]
        if kind == b"tRNS" or (kind == b"IHDR" and (content[place + 16] > 8 or content[place + 17] in _WITH_ALPHA)):
            raise ValueError("transparent, or with 16 bits")
        if kind in _SHOWN_CHUNKS:
            yield content[place:end]
        place = end
        if kind == b"IEND":
            return
    raise ValueError("no end")
