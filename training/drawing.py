"""Drawn material: textures, objects and backgrounds, all from a random generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mmms_deploy.evaluation.datasets.outlines import Pixels, Points, Rng, colour, outline, parts

SUPERSAMPLE = 2


@dataclass(frozen=True, slots=True)
class Layer:
    """Something to paste on a canvas.

    Attributes:
        rgb: (S, S, 3) float32, 0..255.
        alpha: (S, S) float32, 0..1.
    """

    rgb: Pixels
    alpha: Pixels


# --- textures: (S, S, 3) float32, 0..255 ------------------------------------------------------------------------------


def _grid(rng: Rng, size: int, cells: int) -> Pixels:
    grid = rng.random((cells + 1, cells + 1), dtype=np.float32)
    return cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC).astype(np.float32)


def noise(rng: Rng, size: int) -> Pixels:
    """Several octaves of smooth noise, (S, S) float32 in 0..1."""
    total = np.zeros((size, size), np.float32)
    weight, fade = 1.0, rng.uniform(0.35, 0.9)
    for cells in (2, 5, 11, 28, 60):
        total += weight * _grid(rng, size, cells)
        weight *= fade
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-6)


def photo_patch(rng: Rng, photos: Sequence[NDArray[np.uint8]], size: int) -> Pixels:
    """A random crop of a photograph, magnified or not, mirrored and tinted."""
    photo = photos[rng.integers(len(photos))]
    height, width = photo.shape[:2]
    side = int(rng.uniform(0.08, 0.6) * min(height, width))
    y, x = rng.integers(height - side), rng.integers(width - side)
    patch = cv2.resize(photo[y : y + side, x : x + side], (size, size), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        patch = patch[:, ::-1]
    if rng.random() < 0.3:
        patch = patch.transpose(1, 0, 2)
    patch = patch.astype(np.float32)
    if rng.random() < 0.5:
        patch = patch[..., rng.permutation(3)]
    if rng.random() < 0.5:
        patch = patch * rng.uniform(0.4, 1.1) + colour(rng) * rng.uniform(0, 0.6)
    return np.ascontiguousarray(np.clip(patch, 0, 255), dtype=np.float32)


def texture(rng: Rng, photos: Sequence[NDArray[np.uint8]], size: int) -> Pixels:
    """A surface: a photograph's patch, noise between colours, stripes or checks, or a plain gradient."""
    kind = rng.random()
    if photos and kind < 0.45:
        return photo_patch(rng, photos, size)
    a, b = colour(rng), colour(rng)
    if kind < 0.7:
        w = noise(rng, size)[..., None]
    elif kind < 0.82:
        yy, xx = np.mgrid[0:size, 0:size].astype(np.float32) / size
        angle, rate = rng.uniform(0, np.pi), rng.uniform(4, 40)
        wave = np.sin(
            2 * np.pi * rate * (np.cos(angle) * xx + np.sin(angle) * yy) + 4 * rng.random() * noise(rng, size)
        )
        if rng.random() < 0.4:
            wave = wave * np.sin(2 * np.pi * rate * (np.sin(angle) * xx - np.cos(angle) * yy))
        w = (1 / (1 + np.exp(-rng.uniform(1, 12) * wave)))[..., None]
    else:
        ramp = np.linspace(0, 1, size, dtype=np.float32)
        w = np.broadcast_to(ramp[:, None, None] if rng.random() < 0.5 else ramp[None, :, None], (size, size, 1))
        b = a + (b - a) * np.float32(rng.uniform(0, 0.6))
    grain = rng.normal(0, rng.uniform(0, 8), (size, size, 1)).astype(np.float32)
    return np.clip(a + (b - a) * w + grain, 0, 255).astype(np.float32)


# --- objects and backgrounds ------------------------------------------------------------------------------------------


def fill(pieces: Sequence[Points], shape: tuple[int, int]) -> Pixels:
    """Coverage of a union of polygons, given in canvas pixels, (H, W) float32 in 0..1."""
    height, width = shape
    canvas = np.zeros((height * SUPERSAMPLE, width * SUPERSAMPLE), np.uint8)
    for piece in pieces:
        cv2.fillPoly(canvas, [np.rint(piece * SUPERSAMPLE).astype(np.int32)], 255)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def shade(rng: Rng, size: int) -> Pixels:
    """A soft light over a surface, (S, S, 1) float32 factors around 1."""
    yy, xx = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j].astype(np.float32)
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.5)
    return (1 + strength * (np.cos(angle) * xx + np.sin(angle) * yy))[..., None]


def draw_object(
    rng: Rng, photos: Sequence[NDArray[np.uint8]], size: int, fraction: float, centre: tuple[float, float]
) -> Layer:
    """An object of one or several differently painted parts.

    Args:
        rng: Random generator.
        photos: Photographs to take textures from; may be empty.
        size: Canvas side in pixels.
        fraction: Wanted share of the canvas, 0..1 (before anything is cut off by the border).
        centre: (x, y) in pixels.
    """
    pieces = parts(rng)
    spread = np.concatenate(pieces)
    low, high = spread.min(0), spread.max(0)
    # Outlines fill about half of their bounding box.
    scale = np.sqrt(2 * fraction / max(float(np.prod(high - low)), 1e-3)) * size
    scale = min(scale, 1.6 * size / float(max(high - low)))
    place = np.array(centre) - (low + high) / 2 * scale
    pieces = [piece * scale + place for piece in pieces]
    if rng.random() < 0.12:  # a hole, as between spokes or under an arm
        hole = outline(rng) * scale * rng.uniform(0.1, 0.3) + np.array(centre)
        alpha = fill(pieces, (size, size)) * (1 - fill([hole], (size, size)))
    else:
        alpha = fill(pieces, (size, size))
    rgb = texture(rng, photos, size)
    for piece in pieces[1:]:
        if rng.random() < 0.6:
            cover = fill([piece], (size, size))[..., None]
            rgb = rgb * (1 - cover) + texture(rng, photos, size) * cover
    for _ in range(int(rng.integers(0, 4))):  # details: spots, windows, bands
        at = np.array(centre) + rng.normal(0, 0.25, 2) * scale
        cover = fill([outline(rng) * scale * rng.uniform(0.05, 0.4) + at], (size, size))[..., None]
        rgb = rgb * (1 - cover) + colour(rng) * cover
    return Layer(np.clip(rgb * shade(rng, size), 0, 255).astype(np.float32), alpha)


def draw_plain_object(rng: Rng, size: int, fraction: float, centre: tuple[float, float]) -> Layer:
    """An object of one part and one colour; arguments as for :func:`draw_object`."""
    piece = outline(rng)
    low, high = piece.min(0), piece.max(0)
    scale = np.sqrt(1.5 * fraction / max(float(np.prod(high - low)), 1e-3)) * size
    alpha = fill([(piece - (low + high) / 2) * scale + np.array(centre)], (size, size))
    return Layer(np.broadcast_to(colour(rng), (size, size, 3)).astype(np.float32), alpha)


def draw_background(rng: Rng, photos: Sequence[NDArray[np.uint8]], size: int) -> Pixels:
    """A background: one surface, or ground and sky, or clutter of many small things; (S, S, 3) float32, 0..255."""
    rgb = texture(rng, photos, size)
    if rng.random() < 0.5:
        line = rng.uniform(0.2, 0.8) * size + (noise(rng, size)[0] - 0.5) * rng.uniform(0, 0.3) * size
        ground = np.clip(np.arange(size, dtype=np.float32)[:, None] - line[None] + 0.5, 0, 1)[..., None]
        rgb = rgb * (1 - ground) + texture(rng, photos, size) * ground
    for _ in range(int(rng.integers(0, 8)) if rng.random() < 0.6 else 0):
        at = rng.uniform(0, size, 2)
        cover = fill([outline(rng) * size * rng.uniform(0.02, 0.15) + at], (size, size))[..., None]
        paint = colour(rng) if rng.random() < 0.5 else texture(rng, photos, size)
        rgb = rgb * (1 - cover) + paint * cover
    return np.ascontiguousarray(rgb, dtype=np.float32)
