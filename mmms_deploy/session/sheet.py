"""A contact sheet: several answers to the same clicks, side by side, with their scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from mmms_deploy.annotations.clicks import HasPoint
from mmms_deploy.imaging.io import UInt8Array
from mmms_deploy.session.answers import Candidate
from mmms_deploy.session.overlay import POSITIVE, WHITE
from mmms_deploy.session.thumbnail import Drawn, captioned, thumbnail

_IN_A_ROW = 4
"""So many answers have one row; more are laid out as a square."""
_FRAME, _GAP = 5, 6
"""Pixels of the frame around an answer, and between two of them."""


def draw_sheet(picture: UInt8Array, candidates: Sequence[Candidate], clicks: Sequence[HasPoint]) -> Image.Image:
    """Draw answers on small pictures of the image, each with its number, score and area; the taken one has a frame.

    Args:
        picture: (H0, W0, 3) uint8, RGB.
        candidates: One or more, in the network's order; rows are filled from the left.
        clicks: The clicks that led to them, in image pixels, oldest first.

    Returns:
        An RGB picture.
    """
    size = (picture.shape[0], picture.shape[1])
    cells = [
        captioned(thumbnail(picture, size, [Drawn(one.mask, clicks)]), f"{place}{_said(one)}")
        for place, one in enumerate(candidates)
    ]
    columns = len(cells) if len(cells) <= _IN_A_ROW else math.ceil(math.sqrt(len(cells)))
    rows = math.ceil(len(cells) / columns)
    width, height = (max(side) + 2 * _FRAME for side in zip(*(cell.size for cell in cells), strict=True))
    sheet = Image.new("RGB", (columns * (width + _GAP) - _GAP, rows * (height + _GAP) - _GAP), WHITE)
    draw = ImageDraw.Draw(sheet)
    for place, (cell, one) in enumerate(zip(cells, candidates, strict=True)):
        left, top = (place % columns) * (width + _GAP), (place // columns) * (height + _GAP)
        if one.taken:
            draw.rectangle((left, top, left + width - 1, top + height - 1), outline=POSITIVE, width=_FRAME)
        sheet.paste(cell, (left + _FRAME, top + _FRAME))
    return sheet


def _said(one: Candidate) -> str:
    return f": score {one.score:.3f}, {one.area:,} px{', taken' if one.taken else ''}"
