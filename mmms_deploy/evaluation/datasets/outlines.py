"""Outlines and colours of drawn objects, all from a random generator: for drawn scenes, and for training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator
Points = NDArray[np.float64]
Pixels = NDArray[np.float32]

# Outlines: (n, 2) points around the origin, of a size near 1.


def _turn(points: Points, angle: float) -> Points:
    c, s = np.cos(angle), np.sin(angle)
    turned: Points = points @ np.array([[c, s], [-s, c]])
    return turned


def blob(rng: Rng, roughness: float = 0.35) -> Points:
    """A closed smooth curve: a circle whose radius is a short random Fourier series."""
    t = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    r = np.ones_like(t)
    for k in range(2, 8):
        r += roughness * rng.normal() / k * np.cos(k * t + rng.uniform(0, 2 * np.pi))
    return np.stack([np.cos(t), np.sin(t)], 1) * np.maximum(r, 0.15)[:, None]


def superellipse(rng: Rng) -> Points:
    """From diamonds over ellipses to rounded boxes."""
    t = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    p = 2 / rng.uniform(1.2, 8)
    return np.stack([np.sign(np.cos(t)) * np.abs(np.cos(t)) ** p, np.sign(np.sin(t)) * np.abs(np.sin(t)) ** p], 1)


def polygon(rng: Rng) -> Points:
    """A star-shaped polygon of three to nine corners."""
    n = int(rng.integers(3, 10))
    t = np.sort(rng.uniform(0, 2 * np.pi, n))
    return np.stack([np.cos(t), np.sin(t)], 1) * rng.uniform(0.5, 1.2, (n, 1))


def limb(rng: Rng) -> Points:
    """A bent capsule that starts at the origin and points along x, of length 1."""
    t = np.linspace(0, 1, 16)
    bend = rng.normal(0, 0.25) * t**2 + rng.normal(0, 0.06) * np.sin(2 * np.pi * t)
    half = rng.uniform(0.04, 0.16) * (1 - rng.uniform(0, 0.7) * t)
    upper, lower = np.stack([t, bend + half], 1), np.stack([t, bend - half], 1)[::-1]
    return np.concatenate([upper, lower])


def outline(rng: Rng) -> Points:
    """One simple closed outline, stretched and turned at random."""
    kind = rng.random()
    points = blob(rng) if kind < 0.45 else superellipse(rng) if kind < 0.8 else polygon(rng)
    return _turn(points * np.array([1.0, np.exp(rng.uniform(-0.9, 0.3))]), rng.uniform(0, np.pi))


def parts(rng: Rng) -> list[Points]:
    """The outlines of an object: a body, and often heads, limbs, wheels and further bodies attached to it."""
    body = outline(rng)
    pieces = [body]
    if rng.random() < 0.35:
        return pieces
    for _ in range(int(rng.integers(1, 7))):
        at = body[rng.integers(len(body))] * rng.uniform(0.6, 1.0)
        kind = rng.random()
        if kind < 0.45:
            away = np.arctan2(at[1], at[0]) + rng.normal(0, 0.7)
            piece = _turn(limb(rng) * rng.uniform(0.6, 1.8), away)
        elif kind < 0.75:
            piece = outline(rng) * rng.uniform(0.2, 0.6)
        else:
            piece = outline(rng) * rng.uniform(0.5, 1.0)
        pieces.append(piece + at)
    return pieces


def colour(rng: Rng) -> Pixels:
    """A random colour; natural (dull) ones more often than bright ones."""
    base = rng.uniform(10, 245, 3)
    dull = rng.beta(1.2, 1.6)
    mixed: Pixels = (base * dull + base.mean() * (1 - dull)).astype(np.float32)
    return mixed
