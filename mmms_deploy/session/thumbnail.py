"""Small pictures of masks and clicks for notebooks: a notebook keeps every picture that it shows.

A picture of 12 megapixels with its mask would take 20 MB as PNG. So the image, the masks and the clicks are brought to
the size that is shown first, and drawn there. This takes some ten milliseconds.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mmms_deploy.annotations.clicks import HasPoint
from mmms_deploy.imaging.io import UInt8Array
from mmms_deploy.imaging.resize import BoolArray
from mmms_deploy.session.overlay import draw_objects

LONGEST, SHORTEST = 640, 240
"""Pixels of the longer side of what is shown: a larger image is made smaller, a tiny one larger by a whole factor."""
_GREY = 200
"""The background where the image's pixels were not kept."""
_FONT = 13
_QUALITY = 85
"""Of JPEG: 60 KB for a photograph at 640 x 480."""


@dataclass(frozen=True)
class _Mark:
    x: float
    y: float
    positive: bool


@dataclass(frozen=True, eq=False)
class Drawn:
    """An object to be drawn.

    Attributes:
        mask: (H, W) bool.
        clicks: In the mask's pixels, oldest first.
    """

    mask: BoolArray
    clicks: Sequence[HasPoint] = ()


def thumbnail(picture: UInt8Array | None, size: tuple[int, int], objects: Sequence[Drawn]) -> Image.Image:
    """Draw objects on a small picture of the image.

    Args:
        picture: (H0, W0, 3) uint8, RGB; None where it was not kept: the background is grey then.
        size: (H0, W0).
        objects: Each with a mask of the image's size, or of the size that :func:`shown_size` returns.
    """
    height, width = shown_size(size)
    if picture is None:
        small = np.full((height, width, 3), _GREY, dtype=np.uint8)
    else:
        # Every n-th pixel first: resizing would convert the whole picture.
        step = max(1, max(size) // (2 * LONGEST))
        part = Image.fromarray(np.ascontiguousarray(picture[::step, ::step]))
        kernel = Image.Resampling.BOX if max(size) > LONGEST else Image.Resampling.NEAREST
        small = np.asarray(part.resize((width, height), kernel))
    drawn = [(np.ascontiguousarray(nearest(one.mask, size)), _marks(one.clicks, size)) for one in objects]
    return draw_objects(small, drawn)


def shown_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the (H, W) at which an image of a size is shown."""
    longest = max(size)
    factor = LONGEST / longest if longest > LONGEST else max(1, SHORTEST // longest)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def nearest(array: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Bring a mask or a label map of an image to the size at which the image is shown.

    Args:
        array: (H0, W0); returned as it is where it has the shown size already.
        size: (H0, W0) of the image.
    """
    shown = shown_size(size)
    if array.shape == shown:
        return array
    rows, columns = (
        ((np.arange(there) + 0.5) * here / there).astype(np.intp) for here, there in zip(size, shown, strict=True)
    )
    return array[rows[:, None], columns]


def _marks(clicks: Sequence[HasPoint], size: tuple[int, int]) -> list[_Mark]:
    height, width = shown_size(size)
    down, right = height / size[0], width / size[1]
    return [_Mark((c.x + 0.5) * right - 0.5, (c.y + 0.5) * down - 0.5, c.positive) for c in clicks]


def captioned(picture: Image.Image, line: str) -> Image.Image:
    """Return a picture with a line of text below it.

    The line is part of the picture, because a notebook shows one of an object's forms only, and code hosts drop
    pictures that are part of HTML.

    Args:
        picture: The picture, RGB.
        line: The text.
    """
    font = ImageFont.load_default(_FONT)
    _, _, right, bottom = font.getbbox(line)
    width = max(picture.width, int(np.ceil(right)) + 12)
    whole = Image.new("RGB", (width, picture.height + int(np.ceil(bottom)) + 10), (255, 255, 255))
    whole.paste(picture, (0, 0))
    ImageDraw.Draw(whole).text((6, picture.height + 4), line, fill=(60, 60, 60), font=font)
    return whole


def png_of(picture: Image.Image) -> bytes:
    """Return a picture as a PNG file of 256 colours: 100 KB for a photograph at 640 x 480, a quarter of all colours."""
    stream = io.BytesIO()
    colours = picture.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    colours.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def jpeg_of(picture: Image.Image) -> bytes:
    """Return a picture as a JPEG file."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()
