"""Drawn scenes: a data set without a folder, to try an evaluation or to compare engines on.

They are made when they are read, from a seed and their number. They look like nothing that a camera sees: what a
network needs on them says nothing about photographs.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mmms_deploy.evaluation.datasets.kind import Kind, Option, OptionType, min_area_option
from mmms_deploy.evaluation.datasets.listed import ListedDataset
from mmms_deploy.evaluation.datasets.outlines import Pixels, Points, Rng, colour, outline, parts
from mmms_deploy.evaluation.errors import DatasetLayoutError
from mmms_deploy.evaluation.scene import Scene, Surface

WIDTH, HEIGHT = 320, 240
_FINE = 4
"""How many times as fine as the picture outlines are drawn, so that edges are smooth."""
_MOST = 100_000
_OBJECTS = 3
_OCTAVES = (2, 5, 11, 28)

TREE = "drawn=COUNT   no folder: the number of scenes"


def open_drawn(path: Path, *, name: str, seed: int, min_area: int) -> ListedDataset[int]:
    """List drawn scenes; the keywords are the options of :data:`KIND`.

    Args:
        path: How many, in digits.
        name: What results are filed under.
        seed: The first number of every scene's seed.
        min_area: Least number of pixels of an object that is not hidden by others.

    Raises:
        DatasetLayoutError: It is no number, or too large a one.
    """
    text = str(path)
    if not re.fullmatch(r"[0-9]{1,6}", text) or not 0 < int(text) <= _MOST:
        raise DatasetLayoutError(
            f"{text} was given as the number of drawn scenes",
            expected=f"a whole number from 1 to {_MOST}, as in drawn=20",
            fix="give a number, such as 20; the kind 'folder' reads a folder of images and masks",
        )
    items = {f"{number:05}": number for number in range(int(text))}
    return ListedDataset(name, items, partial(_draw, seed=seed, min_area=min_area))


def _draw(name: str, number: int, *, seed: int, min_area: int) -> Scene:
    rng = np.random.default_rng([seed, number])
    picture = _paint(rng)
    owner = np.zeros((HEIGHT, WIDTH), np.uint8)
    for index in range(1, int(rng.integers(1, _OBJECTS + 1)) + 1):
        cover = _cover(_place(rng, parts(rng)))
        if rng.random() < 0.12:  # a hole, as between spokes or under an arm
            cover = cover * (1 - _cover(_place(rng, [outline(rng)], 0.2)))
        picture = picture * (1 - cover[..., None]) + _paint(rng) * cover[..., None]
        owner[cover > 0.5] = index
    grain = rng.normal(0, rng.uniform(0, 6), picture.shape)
    image = np.clip(np.rint(picture + grain), 0, 255).astype(np.uint8)
    masks = [(str(index), owner == index) for index in range(1, _OBJECTS + 1)]
    surfaces = tuple(Surface(label, mask) for label, mask in masks if int(mask.sum()) >= min_area)
    return Scene(name, image, surfaces)


def _place(rng: Rng, pieces: list[Points], share: float = 1.0) -> list[Points]:
    """Scale outlines to a part of the picture and move them into it."""
    spread = np.concatenate(pieces)
    low, high = spread.min(0), spread.max(0)
    side = share * rng.uniform(0.25, 0.7) * HEIGHT
    scale = side / float(max(high - low))
    centre = np.array([rng.uniform(0.2, 0.8) * WIDTH, rng.uniform(0.2, 0.8) * HEIGHT])
    return [(piece - (low + high) / 2) * scale + centre for piece in pieces]


def _cover(pieces: list[Points]) -> Pixels:
    """Return the share of every pixel that a union of outlines covers, (H, W) float32 in 0..1."""
    canvas = Image.new("L", (WIDTH * _FINE, HEIGHT * _FINE))
    draw = ImageDraw.Draw(canvas)
    for piece in pieces:
        draw.polygon([(float(x), float(y)) for x, y in piece * _FINE], fill=255)
    return np.asarray(canvas.resize((WIDTH, HEIGHT), Image.Resampling.BOX), np.float32) / np.float32(255)


def _paint(rng: Rng) -> Pixels:
    """Return a surface, (H, W, 3) float32 in 0..255: noise, stripes or a gradient between two colours."""
    first, second, kind = colour(rng), colour(rng), rng.random()
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32) / HEIGHT
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    if kind < 0.5:
        weight = _noise(rng)
    elif kind < 0.75:
        weight = 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(3, 25) * along + 3 * _noise(rng))
    else:
        weight = (along - along.min()) / float(np.ptp(along))
    return (first + (second - first) * weight[..., None]).astype(np.float32)


def _noise(rng: Rng) -> NDArray[np.float32]:
    """Several octaves of smooth noise, (H, W) float32 in 0..1."""
    total, weight, fade = np.zeros((HEIGHT, WIDTH), np.float32), 1.0, rng.uniform(0.35, 0.9)
    for cells in _OCTAVES:
        grid = Image.fromarray(rng.random((cells + 1, cells + 1), dtype=np.float32))
        total += weight * np.asarray(grid.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
        weight *= fade
    spread: NDArray[np.float32] = (total - total.min()) / max(float(np.ptp(total)), 1e-6)
    return spread


KIND = Kind(
    name="drawn",
    description="drawn scenes, to try things with: drawn=20 makes 20; they say nothing about photographs",
    tree=TREE,
    options=(
        Option("seed", "the scenes that are drawn", 0, OptionType.INTEGER),
        min_area_option(200),
    ),
    open=open_drawn,
    drawn=True,
)
