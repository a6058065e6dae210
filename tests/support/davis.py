"""Small sequences as DAVIS lays them out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_davis(root: Path, sequences: Sequence[str], frames: int) -> Path:
    """Write sequences of frames of 72 x 128 with a bright object on noise; returns the folder."""
    rng = np.random.default_rng(0)
    for number, sequence in enumerate(sequences):
        for kind in ("images", "masks"):
            (root / kind / sequence).mkdir(parents=True)
        for index in range(frames):
            image = rng.integers(0, 90, (72, 128, 3), dtype=np.uint8)
            mask = np.zeros((72, 128), np.uint8)
            mask[20:50, 30 + 5 * index : 80] = 255
            image[mask > 0] += np.uint8(100 + 20 * number)
            Image.fromarray(image).save(root / "images" / sequence / f"{index:05d}.jpg")
            Image.fromarray(mask).save(root / "masks" / sequence / f"{index:05d}.png")
    return root
