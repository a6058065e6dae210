"""Conditions that hide things from an ordinary camera: darkness, camouflage, fog and glare.

A thermal image helps where light does not. These conditions change the colours of a scene, and the thermal image of
:mod:`training.thermal` may still show the objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import cv2
import numpy as np

from training.drawing import Pixels, Rng, noise


class Condition(StrEnum):
    """How a scene looks to an ordinary camera."""

    PLAIN = "plain"
    NIGHT = "night"
    CAMOUFLAGE = "camouflage"
    FOG = "fog"
    GLARE = "glare"


HIDING = (Condition.NIGHT, Condition.CAMOUFLAGE, Condition.FOG, Condition.GLARE)
HIDING_WEIGHTS = (0.35, 0.3, 0.2, 0.15)


def draw_condition(rng: Rng, hidden_share: float) -> Condition:
    """A condition; with probability ``hidden_share`` one that hides something."""
    if rng.random() >= hidden_share:
        return Condition.PLAIN
    return HIDING[int(rng.choice(len(HIDING), p=HIDING_WEIGHTS))]


def soft_noise(rng: Rng, shape: tuple[int, int]) -> Pixels:
    """Smooth noise of any shape, (H, W) float32 in 0..1."""
    square = noise(rng, 64)
    return np.clip(cv2.resize(square, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), 0, 1).astype(np.float32)


def _low_pass(rgb: Pixels, weight: Pixels) -> Pixels:
    """Colours without detail: the mean of a wide neighbourhood by ``weight``, computed at an eighth of the size."""
    height, width = weight.shape
    small = (max(width // 8, 4), max(height // 8, 4))
    weight = cv2.resize(weight, small, interpolation=cv2.INTER_AREA)[..., None] + np.float32(1e-3)
    rgb = cv2.resize(rgb, small, interpolation=cv2.INTER_AREA) * weight
    sigma = 0.12 * max(small)
    mean = cv2.GaussianBlur(rgb, (0, 0), sigma) / cv2.GaussianBlur(weight, (0, 0), sigma)[..., None]
    return cv2.resize(mean, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32)


def _elsewhere(rng: Rng, length: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Indices of a row or column that is moved by up to half of itself, mirrored where it ends."""
    moved = (np.arange(length) + int(rng.uniform(0.3, 0.7) * length)) % (2 * length)
    return np.where(moved < length, moved, 2 * length - 1 - moved)


def disguise(rng: Rng, rgb: Pixels, ground: Pixels, objects: Sequence[Pixels], own: int) -> Pixels:
    """Give objects the look of their surroundings: the background's colours there, its texture from another place.

    Args:
        rng: Random generator.
        rgb: (H, W, 3) float32, 0..255, the scene.
        ground: (H, W, 3) float32, the scene before anything was pasted.
        objects: (H, W) float32 each, 0..1, the visible part of an object.
        own: How many of the objects, the first ones, are in ``ground`` themselves.

    Returns:
        (H, W, 3) float32; one object in four keeps its own look.
    """
    height, width = rgb.shape[:2]
    free = np.ones((height, width), np.float32)
    for mask in objects[:own]:
        free = free * (1 - mask)
    texture = ground[_elsewhere(rng, height)[:, None], _elsewhere(rng, width)[None]]
    everywhere = np.ones_like(free)
    cloak = texture - _low_pass(texture, everywhere) + _low_pass(ground, free)
    for mask in objects:
        if rng.random() < 0.75:
            cover = mask[..., None] * np.float32(rng.uniform(0.75, 1.0))
            rgb = rgb * (1 - cover) + cloak * cover
    return np.clip(rgb, 0, 255).astype(np.float32)


def _spots(rng: Rng, shape: tuple[int, int], count: int, sizes: tuple[float, float]) -> Pixels:
    """Round lights, (H, W) float32 in 0..1; ``sizes`` are shares of the longer side."""
    yy, xx = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    light = np.zeros(shape, np.float32)
    for _ in range(count):
        x, y = rng.uniform(0, shape[1]), rng.uniform(0, shape[0])
        sigma = rng.uniform(*sizes) * max(shape)
        light = np.maximum(light, np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * sigma**2)).astype(np.float32))
    return light


def _night(rng: Rng, rgb: Pixels) -> Pixels:
    """Little light, some lamps, and a noisy sensor; often amplified."""
    shape = rgb.shape[:2]
    light = np.full(shape, np.exp(rng.uniform(np.log(0.012), np.log(0.12))), np.float32)
    if rng.random() < 0.4:
        light += _spots(rng, shape, int(rng.integers(1, 3)), (0.06, 0.2)) * np.float32(rng.uniform(0.1, 0.6))
    dark = rgb * light[..., None] * rng.uniform(0.8, 1.2, 3).astype(np.float32)
    dark = dark + rng.normal(0, rng.uniform(1.0, 5.0), rgb.shape).astype(np.float32)
    if rng.random() < 0.4:
        dark = dark + (255 * _spots(rng, shape, int(rng.integers(1, 4)), (0.005, 0.03)))[..., None]
    return dark * np.float32(np.exp(rng.uniform(0, 1.6)))


def _fog(rng: Rng, rgb: Pixels) -> Pixels:
    """A bright, nearly grey veil, thicker in some places; little of the scene comes through."""
    through = np.exp(-rng.uniform(1.4, 3.6) * (0.55 + 0.9 * soft_noise(rng, (rgb.shape[0], rgb.shape[1]))))[..., None]
    veil = np.float32(rng.uniform(110, 235)) + rng.normal(0, 6, 3).astype(np.float32)
    veiled = rgb * through + veil * (1 - through)
    return veiled + rng.normal(0, rng.uniform(1.0, 4.0), rgb.shape).astype(np.float32)


def _glare(rng: Rng, rgb: Pixels) -> Pixels:
    """Far too much light: most of the picture is white, and light scatters into the rest."""
    shape = (rgb.shape[0], rgb.shape[1])
    bright = rgb * np.float32(np.exp(rng.uniform(np.log(1.3), np.log(4.5)))) + np.float32(rng.uniform(20, 110))
    return bright + (255 * _spots(rng, shape, int(rng.integers(0, 4)), (0.1, 0.4)))[..., None]


def expose(rng: Rng, rgb: Pixels, condition: Condition) -> Pixels:
    """Return what the camera records under a condition.

    Args:
        rng: Random generator.
        rgb: (H, W, 3) float32, 0..255, as it would look in good light.
        condition: The condition; plain and camouflage leave the light as it is.

    Returns:
        (H, W, 3) float32, 0..255.
    """
    if condition is Condition.NIGHT:
        rgb = _night(rng, rgb)
    elif condition is Condition.FOG:
        rgb = _fog(rng, rgb)
    elif condition is Condition.GLARE:
        rgb = _glare(rng, rgb)
    return np.clip(rgb, 0, 255).astype(np.float32)
