"""DAVIS 2016 frames as training material: the split, the reader, and region proposals without labels.

DAVIS: F. Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016,
CC BY 4.0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmms_deploy.imaging.io import load_rgb

HELD_OUT = ("car-shadow", "goat", "horsejump-high")
"""Sequences never trained on: one vehicle, one animal, one person on an animal. Fixed before the first training run."""

MASK_THRESHOLD = 127
REGION_SCALES = (150.0, 600.0)
"""Felzenszwalb's ``scale`` of the two region maps kept for a frame: fine and coarse."""


class TrainingDataError(Exception):
    """The training data folder is missing or incomplete."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One annotated video frame.

    Attributes:
        sequence: Name of the DAVIS sequence.
        name: File stem.
        image: (H, W, 3) uint8, RGB.
        mask: (H, W) uint8, 1 on the annotated object and 0 elsewhere.
        regions: (S, H/2, W/2) uint16 region labels, one map for each of ``REGION_SCALES``; ``None`` when not computed.
    """

    sequence: str
    name: str
    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    regions: NDArray[np.uint16] | None = None


def sequences(root: Path) -> tuple[str, ...]:
    """Names of the sequences below ``root/images``, sorted."""
    folder = root / "images"
    if not folder.is_dir():
        raise TrainingDataError(f"there is no folder {folder}: --data must name a folder with images/SEQ and masks/SEQ")
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir()))


def split(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The sequences to train on and the held-out ones."""
    names = sequences(root)
    held = tuple(name for name in names if name in HELD_OUT)
    rest = tuple(name for name in names if name not in HELD_OUT)
    if not rest:
        raise TrainingDataError(
            f"{root} holds no sequence to train on (found {list(names)}, held out {list(HELD_OUT)})"
        )
    return rest, held


def read_frames(root: Path, names: Sequence[str]) -> list[Frame]:
    """Read every frame of the named sequences, in order."""
    frames = []
    for sequence in names:
        for path in sorted((root / "images" / sequence).glob("*.jpg")):
            mask_path = root / "masks" / sequence / f"{path.stem}.png"
            if not mask_path.is_file():
                raise TrainingDataError(f"{path} has no mask {mask_path}")
            image = load_rgb(path)
            mask = np.asarray(Image.fromarray(load_rgb(mask_path)).convert("L")) > MASK_THRESHOLD
            if mask.shape != image.shape[:2]:
                raise TrainingDataError(f"{mask_path} is {mask.shape}, its image {image.shape[:2]}")
            frames.append(Frame(sequence, path.stem, image, mask.astype(np.uint8)))
    if not frames:
        raise TrainingDataError(f"no jpg frames below {root / 'images'} for {list(names)}")
    return frames


def propose_regions(frame: Frame) -> NDArray[np.uint16]:
    """Regions of a frame by Felzenszwalb's graph segmentation, at half the frame's resolution.

    Label 0 is "no target": the annotated object and a margin around it, so that its parts never become targets.

    Returns:
        (S, H/2, W/2) uint16.
    """
    import cv2
    from skimage.segmentation import felzenszwalb

    height, width = frame.mask.shape
    size = (width // 2, height // 2)
    image = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
    near = cv2.dilate(cv2.resize(frame.mask, size, interpolation=cv2.INTER_NEAREST), np.ones((5, 5), np.uint8)) > 0
    maps = []
    for scale in REGION_SCALES:
        labels = felzenszwalb(image, scale=scale, sigma=0.8, min_size=150).astype(np.uint16) + np.uint16(1)
        labels[near] = 0
        maps.append(labels)
    return np.stack(maps)


def with_regions(frames: Sequence[Frame], cache: Path, every: int = 3) -> list[Frame]:
    """Attach region maps to every ``every``-th frame, computing them once and keeping them in ``cache``.

    Neighbouring video frames have nearly the same regions, so not all need them.

    Args:
        frames: Frames in order.
        cache: An ``.npz`` file; rewritten when the frames or the settings changed.
        every: Stride over ``frames``.
    """
    chosen = list(range(0, len(frames), every))
    key = hashlib.sha256(repr([(frames[i].sequence, frames[i].name) for i in chosen]).encode())
    key.update(repr((REGION_SCALES, every)).encode())
    maps: dict[str, NDArray[np.uint16]] = {}
    if cache.is_file():
        with np.load(cache) as stored:
            if str(stored["key"]) == key.hexdigest():
                maps = {name: stored[name] for name in stored.files if name != "key"}
    if not maps:
        for i in chosen:
            maps[str(i)] = propose_regions(frames[i])
        cache.parent.mkdir(parents=True, exist_ok=True)
        part = cache.with_suffix(".part.npz")
        np.savez_compressed(part, key=np.array(key.hexdigest()), **maps)
        part.replace(cache)
    return [
        Frame(f.sequence, f.name, f.image, f.mask, maps.get(str(i))) if str(i) in maps else f
        for i, f in enumerate(frames)
    ]
