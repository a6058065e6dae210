"""Draws masks and their clicks on the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from mmms_deploy.annotations.boxes import xyxy_of
from mmms_deploy.annotations.clicks import HasPoint
from mmms_deploy.annotations.masks import checked_bool
from mmms_deploy.arguments import items, real, shown
from mmms_deploy.errors import ClickError, ImageError, MaskInputError
from mmms_deploy.imaging.io import ChannelOrderLike, ImageLike, UInt8Array, load_rgb
from mmms_deploy.imaging.resize import BoolArray

MASK = (0, 122, 255)
POSITIVE = (40, 167, 69)
NEGATIVE = (220, 53, 69)
WHITE = (255, 255, 255)
COLOURS = (
    MASK,
    (255, 149, 0),
    (175, 82, 222),
    (0, 199, 190),
    (255, 45, 85),
    (255, 204, 0),
    (88, 86, 214),
    (142, 108, 72),
)
"""Colours of the objects in one image, again from the first where there are more."""

Colour = tuple[int, int, int]

_TINT = 0.42
_WIDE, _NARROW = 2.6, 1.2
"""Widths of the outline's white and blue line, in pixels of a small picture."""
_FARTHEST = 1 << 30
_STRIP = 1 << 21
"""Pixels that are drawn at a time: a picture of 100 megapixels would need gigabytes at once."""
# Markers are drawn this much larger and then shrunk, because Pillow draws circles without smooth edges.
_SMOOTH = 4


def draw_overlay(
    image: ImageLike,
    mask: BoolArray,
    clicks: Sequence[HasPoint] = (),
    *,
    channel_order: ChannelOrderLike = "rgb",
    consume: bool = False,
) -> Image.Image:
    """Draw a mask as a tint with an outline, and clicks as numbered markers: green on the object, red off it.

    Args:
        image: What ``Session.set_image`` takes: (H0, W0, 3) uint8 array and others, PIL image, or file.
        mask: (H0, W0) bool.
        clicks: In image pixels, oldest first.
        channel_order: ``rgb``, or ``bgr`` for an array of OpenCV. The picture that is returned is RGB.
        consume: As for :func:`draw_objects`.

    Returns:
        An RGB picture of the image's size.

    Raises:
        ImageError: The image has another size than the mask, or is none.
    """
    return draw_objects(image, [(mask, clicks)], channel_order=channel_order, consume=consume)


def draw_objects(
    image: ImageLike,
    objects: Sequence[tuple[BoolArray, Sequence[HasPoint]]],
    *,
    channel_order: ChannelOrderLike = "rgb",
    consume: bool = False,
) -> Image.Image:
    """Draw several objects, each in a colour of its own; see :func:`draw_overlay`.

    Args:
        image: As for :func:`draw_overlay`.
        objects: Mask (H0, W0) bool and clicks of each; the clicks of each are numbered from 1. A later mask is drawn
            over those before it.
        channel_order: As for :func:`draw_overlay`.
        consume: Whether the memory of ``image`` is given back row by row while the picture grows, so that a large
            picture is not there twice. The array is empty afterwards. Only for whoever has the array and every view of
            it for himself.

    Returns:
        An RGB picture of the image's size.

    Raises:
        ImageError: The image has another size than a mask, or is none.
    """
    image = load_rgb(image, channel_order)
    height, width = image.shape[:2]
    objects = [_checked(mask, clicks) for mask, clicks in objects]
    for mask, _ in objects:
        if mask.shape != (height, width):
            raise other_size(image, mask)
    unit = max(1.0, min(width, height) / 480)
    consume = consume and image.flags.owndata and image.flags.writeable and image.flags.c_contiguous
    picture = Image.new("RGB", (width, height), None)
    rows = max(1, _STRIP // width)
    boxes = [_drawn_box(mask, _reach(unit)) for mask, _ in objects]
    for top in reversed(range(0, height, rows)):  # from the bottom, because an array can be shortened there alone
        part = Image.fromarray(image[top : top + rows])
        for number, ((mask, _), (x0, y0, x1, y1)) in enumerate(zip(objects, boxes, strict=True)):
            first, last = max(y0 - top, 0), min(y1 - top, part.height)
            if first < last:
                before = part.crop((x0, first, x1, last))
                after = _drawn(before, mask[:, x0:x1], top + first, unit, COLOURS[number % len(COLOURS)])
                part.paste(after, (x0, first))
        picture.paste(part, (0, top))
        del part  # it may be a view of the array, which is shortened
        if consume:
            image.resize((top, width, 3), refcheck=False)
    for _, clicks in objects:
        for number, click in enumerate(clicks, start=1):
            _marker(picture, click, number, radius=max(6.0, 9.5 * unit))
    return picture


def _checked(mask: object, clicks: object) -> tuple[BoolArray, tuple[HasPoint, ...]]:
    """Return a mask and its clicks, checked.

    Raises:
        MaskInputError: The mask is none.
        ClickError: The clicks are none.
    """
    expected = "Click objects, as result.clicks"
    found = items("the clicks are", clicks, ClickError, expected=expected)
    for click in found:
        places = [real(getattr(click, name, None)) for name in ("x", "y")]
        if not all(one is not None and abs(one) < _FARTHEST for one in places) or not hasattr(click, "positive"):
            raise ClickError(f"a click is {shown(click, 80)}", expected=expected, fix="pass a list of Click objects")
    return checked_bool(mask, error=MaskInputError), tuple(found)


def other_size(image: UInt8Array, mask: BoolArray) -> ImageError:
    """Return the error for an image (H, W, 3) that has another size than a mask (H0, W0)."""
    return ImageError(
        f"the image has {image.shape[0]} rows and {image.shape[1]} columns",
        expected=f"{mask.shape[0]} rows and {mask.shape[1]} columns, like the mask",
        fix="pass the image that was segmented, at its own size",
    )


def _drawn(picture: Image.Image, mask: BoolArray, top: int, unit: float, colour: Colour) -> Image.Image:
    """Draw a mask on some rows of the image, from row ``top`` on."""
    # The blur of the outline reaches over rows beside these.
    reach = _reach(unit)
    first, last = max(0, top - reach), min(len(mask), top + picture.height + reach)
    inside = Image.fromarray(mask[first:last].view(np.uint8) * np.uint8(255))
    here = (0, top - first, picture.width, top - first + picture.height)
    tint = Image.blend(picture, Image.new("RGB", picture.size, colour), _TINT)
    picture = Image.composite(tint, picture, inside.crop(here))
    for width, line_colour in ((_WIDE * unit, WHITE), (_NARROW * unit, colour)):
        line = _outline(inside, width).crop(here)
        picture = Image.composite(Image.new("RGB", picture.size, line_colour), picture, line)
    return picture


def _drawn_box(mask: BoolArray, reach: int) -> tuple[int, int, int, int]:
    """Return the box of what is drawn for a mask, in pixel edges."""
    x0, y0, x1, y1 = xyxy_of(mask)
    if x0 == x1:
        return 0, 0, 0, 0
    height, width = mask.shape
    return max(0, x0 - reach), max(0, y0 - reach), min(width, x1 + reach), min(height, y1 + reach)


def _reach(unit: float) -> int:
    """How far the outline reaches beyond the mask, and a little more."""
    return int(2 * _WIDE * unit) + 8


def _outline(inside: Image.Image, width: float) -> Image.Image:
    """Return a soft line where a blurred mask crosses 0.5; at any width, this is much faster than growing the mask."""
    blurred = inside.filter(ImageFilter.GaussianBlur(width / 2))
    return blurred.point([min(255, int(2.2 * (255 - abs(2 * level - 255)))) for level in range(256)])


def _marker(picture: Image.Image, click: HasPoint, number: int, radius: float) -> None:
    side = 2 * int(np.ceil(radius * 1.3)) + 1
    large = side * _SMOOTH
    marker = Image.new("RGBA", (large, large), (*WHITE, 0))
    draw = ImageDraw.Draw(marker)
    # A click may lie anywhere in a pixel; the marker is centred on it to a quarter of a pixel.
    left, top = round(click.x) - side // 2, round(click.y) - side // 2
    x, y = ((c - o + 0.5) * _SMOOTH for c, o in ((click.x, left), (click.y, top)))
    rings: list[tuple[float, tuple[int, int, int, int]]] = [
        (1.24, (0, 0, 0, 70)),
        (1.12, (*WHITE, 255)),
        (0.94, (*(POSITIVE if click.positive else NEGATIVE), 255)),
    ]
    for factor, fill in rings:
        r = factor * radius * _SMOOTH
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    text = str(number)
    size = radius * _SMOOTH * (1.35 if len(text) == 1 else 1.05 if len(text) == 2 else 0.75)
    draw.text((x, y), text, fill=WHITE, anchor="mm", font=ImageFont.load_default(size), stroke_width=_SMOOTH // 4)
    small = marker.resize((side, side), Image.Resampling.BOX)
    picture.paste(small, (left, top), small)
