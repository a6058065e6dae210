"""Pictures and modalities as PNG for the page, and thumbnails."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.imaging.io import load_modality, load_rgb
from mmms_deploy.page.layers import drawn_modality, png_of
from mmms_deploy.server.tabs import Source

THUMBNAIL = 160
"""The longest side of a thumbnail, in pixels."""
_QUALITY = 80


def image_layer(source: Source) -> bytes:
    """Return a picture as PNG, upright.

    Args:
        source: Its file.

    Raises:
        ImageError: It cannot be read (any more).
    """
    return png_of(load_rgb(source), fast=True)


def modality_layer(source: Source, spec: ModalitySpec) -> bytes:
    """Return a modality as PNG: as colours where it has three channels, else the first one in grey.

    Args:
        source: Its file.
        spec: What the bundle says of it.

    Raises:
        ModalityError: It cannot be read (any more).
    """
    return png_of(drawn_modality(np.ma.getdata(load_modality(source, spec.name)), spec), fast=True)


def thumbnail(source: Source) -> bytes:
    """Return a small picture as JPEG.

    Args:
        source: The picture's file.

    Raises:
        ImageError: It cannot be read.
    """
    pixels = load_rgb(source)
    step = max(1, max(pixels.shape[:2]) // (4 * THUMBNAIL))
    small = Image.fromarray(np.ascontiguousarray(pixels[::step, ::step]))
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()
