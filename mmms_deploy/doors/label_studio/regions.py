"""Masks as regions of Label Studio: run lengths of a brush, or a bitmask's PNG in a data URL."""

from __future__ import annotations

import base64
import io
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmms_deploy.doors.label_studio.brush import brush_rle
from mmms_deploy.doors.label_studio.markup import Control
from mmms_deploy.imaging.resize import BoolArray

_PNG = "data:image/png;base64,"


def region_of(mask: BoolArray, control: Control, labels: Sequence[str]) -> dict[str, Any]:
    """Return a mask as a region.

    Args:
        mask: (H0, W0) bool.
        control: The tag that it belongs to, of a kind of :data:`~mmms_deploy.doors.label_studio.markup.MASKS`.
        labels: Its labels.
    """
    height, width = mask.shape
    bitmask = control.kind.startswith("bitmask")
    value: dict[str, Any] = (
        {"imageDataURL": bitmask_url(mask)} if bitmask else {"format": "rle", "rle": brush_rle(mask)}
    )
    if control.key:
        value[control.key] = list(labels)
    return {
        "id": secrets.token_urlsafe(8),
        "from_name": control.name,
        "to_name": control.picture,
        "type": control.kind,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": value,
    }


def bitmask_url(mask: BoolArray) -> str:
    """Return a mask as a bitmask keeps it: a PNG in a data URL, white and opaque on the object, transparent off it.

    Args:
        mask: (H, W) bool.
    """
    # Two colours are one bit a pixel. Label Studio reads the opacity alone; other readers take the brightness.
    picture = Image.fromarray(mask.astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, 255, 255, 255])
    stream = io.BytesIO()
    picture.save(stream, "PNG", bits=1, transparency=b"\x00\xff")
    return _PNG + base64.b64encode(stream.getvalue()).decode("ascii")
