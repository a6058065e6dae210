"""Thermal images of drawn scenes and of frames with object masks.

They are simulated: a scene gets a temperature field, and a small thermal camera looks at it. Objects are warmer or
colder than their background, uneven, sometimes exactly as warm as the background. The background has gradients, traces
of the visible picture, and warm and cold spots that belong to no object. The camera blurs, drifts, is noisy and sets
its own gain. A threshold does not find the objects in such images.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from mmms_deploy.bundle.contract import ModalitySpec
from training.conditions import soft_noise
from training.drawing import Pixels, Rng, fill, outline

THERMAL = ModalitySpec(
    name="thermal",
    scale={"uint8": 1 / 255, "uint16": 1 / 65535, "float32": 1.0},
    clip=(0.0, 1.0),
    mean=(0.45,),
    std=(0.2,),
    optional=True,
)
"""The modality as the network takes it: one channel of relative brightness, 0 to 1."""

BASE_SIDE = 224
"""Side of the picture, in pixels, at which the blur below is given."""


def _background(rng: Rng, rgb: Pixels) -> Pixels:
    """Temperatures without objects, around 0.5: unevenness, a slope, and a trace of the visible picture."""
    shape = (rgb.shape[0], rgb.shape[1])
    field = np.float32(0.5) + np.float32(rng.uniform(0.02, 0.3)) * (soft_noise(rng, shape) - np.float32(0.5))
    if rng.random() < 0.5:
        angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.2)
        yy, xx = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j].astype(np.float32)
        field += np.float32(strength) * (np.cos(angle) * xx + np.sin(angle) * yy).astype(np.float32)
    if rng.random() < 0.6:  # materials differ in colour and in temperature
        grey = rgb.mean(-1) / 255
        field += np.float32(rng.normal(0, 0.2)) * (grey - grey.mean())
    for _ in range(int(rng.integers(0, 6))):  # warm or cold things that are no objects
        side = max(shape)
        spot = fill([outline(rng) * side * rng.uniform(0.02, 0.14) + rng.uniform(0, 1, 2) * shape[::-1]], shape)
        if rng.random() < 0.5:
            spot = cv2.GaussianBlur(spot, (0, 0), rng.uniform(0.01, 0.05) * side)
        field += np.float32(rng.choice((-1, 1)) * rng.uniform(0.05, 0.35)) * spot
    return field.astype(np.float32)


def _temperatures(rng: Rng, rgb: Pixels, objects: Sequence[Pixels], telling: float) -> Pixels:
    shape = (rgb.shape[0], rgb.shape[1])
    field = _background(rng, rgb)
    level = float(field.mean())
    common = rng.choice((-1, 1)) * rng.uniform(0.08, 0.4) if rng.random() < 0.3 else None
    for mask in objects:
        if rng.random() >= telling:
            field = field + mask * np.float32(rng.normal(0, 0.012))  # as warm as what is behind it
            continue
        sign = 1 if rng.random() < 0.65 else -1
        contrast = common if common is not None else sign * rng.uniform(0.08, 0.45)
        inside = np.float32(level + contrast) + np.float32(rng.uniform(0, 0.2)) * (soft_noise(rng, shape) - 0.5)
        inside = inside + np.float32(rng.uniform(0, 0.5)) * (field - level)  # surroundings are reflected
        if rng.random() < 0.5:  # a part that is warmer or colder: an engine, a face, a coat
            rows, columns = np.nonzero(mask > 0.5)
            if len(rows):
                at = int(rng.integers(len(rows)))
                size = np.sqrt(float(mask.sum())) * rng.uniform(0.1, 0.4)
                part = fill([outline(rng) * size + (columns[at], rows[at])], shape)
                part = cv2.GaussianBlur(part, (0, 0), max(0.15 * size, 0.6))
                inside = inside + np.float32(rng.normal(0, 0.2)) * part
        field = field * (1 - mask) + inside * mask
    return field.astype(np.float32)


def _record(rng: Rng, field: Pixels) -> Pixels:
    """The camera: polarity, optics, resolution, registration, gain, noise; (H, W) float32, about 0..1."""
    height, width = field.shape
    scale = max(height, width) / BASE_SIDE
    if rng.random() < 0.15:  # black is hot
        field = 2 * field.mean() - field
    field = cv2.GaussianBlur(field, (0, 0), scale * rng.uniform(0.4, 2.0))
    coarse = scale * float(rng.choice((1.0, 1.0, 1.5, 2.5)))
    if coarse > 1:
        small = (max(int(width / coarse), 8), max(int(height / coarse), 8))
        field = cv2.resize(
            cv2.resize(field, small, interpolation=cv2.INTER_AREA), (width, height), interpolation=cv2.INTER_LINEAR
        )
    dx, dy = rng.normal(0, 0.6 * scale, 2)  # the two cameras are never quite aligned
    move = np.array([[1, 0, dx], [0, 1, dy]], np.float64)
    field = cv2.warpAffine(field, move, (width, height), borderMode=cv2.BORDER_REPLICATE)
    if rng.random() < 0.7:
        low, high = np.percentile(field, (1, 99))
        bottom, top = rng.uniform(0.0, 0.25), rng.uniform(0.7, 1.0)
        field = bottom + (top - bottom) * (field - low) / max(float(high - low), 0.08)
    else:
        field = (field - 0.5) * np.float32(rng.uniform(0.6, 1.6)) + np.float32(rng.uniform(0.25, 0.65))
    field = np.clip(field, 0, 1) ** np.float32(np.exp(rng.normal(0, 0.25)))
    field = field + rng.normal(0, np.exp(rng.uniform(np.log(0.004), np.log(0.05))), field.shape)
    if rng.random() < 0.3:  # each row has an amplifier of its own
        field = field + rng.normal(0, rng.uniform(0.003, 0.015), (height, 1))
    return np.asarray(field, dtype=np.float32)


def thermal_image(rng: Rng, rgb: Pixels, objects: Sequence[Pixels], telling: float) -> NDArray[np.uint8]:
    """A thermal image of a scene.

    Args:
        rng: Random generator.
        rgb: (H, W, 3) float32, 0..255, the scene in good light.
        objects: (H, W) float32 each, 0..1, the visible part of an object.
        telling: Share of the objects whose temperature differs from their background's.

    Returns:
        (H, W) uint8.
    """
    seen = _record(rng, _temperatures(rng, rgb, objects, telling))
    return np.clip(np.rint(255 * seen), 0, 255).astype(np.uint8)
