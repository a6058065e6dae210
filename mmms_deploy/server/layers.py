"""Pictures and modalities as PNG for the page, and thumbnails."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.imaging.io import load_modality, load_rgb
from mmms_deploy.imaging.resize import BoolArray
from mmms_deploy.imaging.samples import UInt8Array
from mmms_deploy.server.tabs import Source

THUMBNAIL = 160
"""The longest side of a thumbnail, in pixels."""
_LEVEL = 1
"""Of PNG's compression: the fastest. A picture goes to a browser once, mostly on one machine."""
_QUALITY = 80
_SHARE = 1.0
"""Percent of a modality's numbers that are drawn black, and white: single wrong measurements make nothing dark."""
_SAMPLE = 1 << 16


def image_layer(source: Source) -> bytes:
    """Return a picture as PNG, upright.

    Args:
        source: Its file.

    Raises:
        ImageError: It cannot be read (any more).
    """
    return _png(load_rgb(source))


def modality_layer(source: Source, spec: ModalitySpec) -> bytes:
    """Return a modality as PNG: as colours where it has three channels, else the first one in grey.

    Args:
        source: Its file.
        spec: What the bundle says of it.

    Raises:
        ModalityError: It cannot be read (any more).
    """
    return _png(drawn(np.ma.getdata(load_modality(source, spec.name)), spec))


def drawn(stored: npt.NDArray[Any], spec: ModalitySpec) -> UInt8Array:
    """Return a modality's numbers as a picture, (H, W) or (H, W, 3) uint8.

    Args:
        stored: (H, W, C) numbers as stored.
        spec: What the bundle says of it: which numbers mean that nothing was measured. These are black.
    """
    plane = stored if stored.shape[2] == 3 else stored[:, :, :1]
    if plane.dtype != np.uint8:
        plane = _stretched(plane, spec)
    return np.ascontiguousarray(plane if plane.shape[2] == 3 else plane[:, :, 0])


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


def _stretched(stored: npt.NDArray[Any], spec: ModalitySpec) -> UInt8Array:
    """Return numbers of any range as 0 to 255."""
    numbers = stored.astype(np.float32)
    measured = np.isfinite(numbers) & ~_invalid(stored, spec)
    known = numbers[measured]
    shown = np.zeros(numbers.shape, dtype=np.uint8)
    if known.size:
        least, most = np.percentile(known[:: max(1, known.size // _SAMPLE)], (_SHARE, 100 - _SHARE))
        scale = 255 / (most - least) if most > least else 0.0
        shown[measured] = np.clip((known - least) * scale, 0, 255).astype(np.uint8)
    return shown


def _invalid(stored: npt.NDArray[Any], spec: ModalitySpec) -> BoolArray:
    numbers = [value for value in spec.invalid if not isinstance(value, str)]
    return np.isin(stored, numbers) if numbers else np.zeros(stored.shape, dtype=np.bool_)


def _png(pixels: UInt8Array) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=_LEVEL)
    return stream.getvalue()
