"""The golden files of the families of networks, which lie beside the project; tests skip where they are absent."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.support.paths import ROOT

FAMILIES = Path(os.environ.get("MMMS_TEST_FAMILIES", ROOT.parent / "shared" / "families"))


def golden(name: str) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Return what a golden file says about itself, and its tensors; skips where it is absent."""
    path = FAMILIES / "golden" / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with np.load(path) as content:
        return json.loads(str(content["meta"])), {key: content[key] for key in content.files if key != "meta"}


def probed(array: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """Return the values of a tensor that a golden file keeps."""
    flat = array.reshape(-1)
    return flat[np.arange(count, dtype=np.int64) * (flat.size - 1) // (count - 1)]


def drawn_picture(height: int, width: int, seed: int) -> npt.NDArray[np.uint8]:
    """Return the picture of a golden file, (H, W, 3) uint8: a coarse grid of colours, enlarged, with noise."""
    grid = (_words("image.grid", seed, 9 * 9 * 3) & np.uint64(0xFF)).astype(np.int64).reshape(9, 9, 3)
    y = np.arange(height, dtype=np.int64) * 2048 // max(height - 1, 1)
    x = np.arange(width, dtype=np.int64) * 2048 // max(width - 1, 1)
    top, left = np.minimum(y >> 8, 7), np.minimum(x >> 8, 7)
    down, right = (y - (top << 8))[:, None, None], (x - (left << 8))[None, :, None]
    upper = grid[top][:, left] * (256 - right) + grid[top][:, left + 1] * right
    lower = grid[top + 1][:, left] * (256 - right) + grid[top + 1][:, left + 1] * right
    smooth = (upper * (256 - down) + lower * down + 32768) >> 16
    noise = (_words("image.noise", seed, height * width * 3) % np.uint64(31)).astype(np.int64) - 15
    picture: npt.NDArray[np.uint8] = np.clip(smooth + noise.reshape(height, width, 3), 0, 255).astype(np.uint8)
    return picture


def _words(name: str, seed: int, count: int) -> npt.NDArray[np.uint64]:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    key = np.frombuffer(digest[:16], "<u8").astype(np.uint64)
    words: npt.NDArray[np.uint64] = np.random.Philox(counter=0, key=key).random_raw(count)
    return words
