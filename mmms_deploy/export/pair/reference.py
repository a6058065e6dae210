"""The reference that the gate compares with: the two files, as ONNX Runtime runs them, fed anew at every click.

It shares no code with the stages' graphs or with a session: torch resizes images and answers, and the decoder gets the
list of all clicks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from mmms_deploy.bundle.contract import BOX_CORNERS, AnswerForm, Coordinates, ResizeRule
from mmms_deploy.export.pair.files import Array, FloatArray, PairFiles
from mmms_deploy.export.reference import HAIR
from mmms_deploy.replay.verification import CLOSE


@dataclass(frozen=True)
class PairAnswer:
    """The answer of the files to all clicks so far.

    Attributes:
        mask: (H0, W0) bool at the image's resolution.
        certain: (H0, W0) bool: where the probability is farther than a hair from the threshold, and the answers whose
            scores are close to that of the taken one have the same mask.
        probability: (h, w) float32 at the answer's resolution.
        logits: (h, w), of which it is the sigmoid; float64.
        numbers: (h, w) float32: the answer as the decoder gives it.
        answers: (K, h, w) float32: all answers.
        scores: (K,) float32; None where there are none.
    """

    mask: npt.NDArray[np.bool_]
    certain: npt.NDArray[np.bool_]
    probability: FloatArray
    logits: npt.NDArray[np.float64]
    numbers: FloatArray
    answers: FloatArray
    scores: FloatArray | None


class PairReference:
    """Answers clicks with the files.

    Args:
        files: The two files.
    """

    def __init__(self, files: PairFiles) -> None:
        self._files = files
        self._given = files.description
        self._points: list[tuple[float, float, float]] = []
        self._previous: FloatArray | None = None
        self.features: dict[str, Array] = {}

    def set_image(self, image: npt.NDArray[np.uint8]) -> None:
        """Prepare a picture (H0, W0, 3) uint8 and compute its features."""
        self._size = (image.shape[0], image.shape[1])
        rule = self._given.image
        pixels = (torch.from_numpy(image) * rule.scale).permute(2, 0, 1)[None].float()
        resized = _resize(pixels, self._given.size, rule.resize)
        mean, std = (torch.tensor(numbers).reshape(1, 3, 1, 1) for numbers in (rule.mean, rule.std))
        self.prepared: FloatArray = ((resized - mean) / std).numpy()
        self.features = self._files.encode(self.prepared)
        self._points, self._previous = [], None

    def click(self, x: float, y: float, positive: bool) -> PairAnswer:
        """Answer a click at image pixel (x, y), after all clicks before it."""
        self._points.append((*self.to_network(x, y), float(positive)))
        return self._answer()

    def box(self, x0: float, y0: float, x1: float, y1: float) -> PairAnswer:
        """Answer a box in image pixels, before all clicks."""
        corners = zip(((x0, y0), (x1, y1)), BOX_CORNERS, strict=True)
        self._points += [(*self.to_network(*place), kind) for place, kind in corners]
        return self._answer()

    def _answer(self) -> PairAnswer:
        answers, scores = self._files.decode(self.features, self._points, self._previous)
        taken = self._files.choose(scores, len(self._points))
        numbers = answers[taken]
        if self._given.decoder.fed:
            self._previous = numbers
        at_image = self._at_image(numbers)
        mask = at_image > self._given.threshold
        certain = (at_image - self._given.threshold).abs() > HAIR
        for place in self._close(scores, taken):
            certain &= mask == (self._at_image(answers[place]) > self._given.threshold)
        exact = numbers.astype(np.float64)
        if self._given.answer is AnswerForm.PROBABILITY:
            exact = np.log(np.clip(exact, 1e-12, 1)) - np.log1p(-np.clip(exact, 0, 1 - 1e-12))
        return PairAnswer(
            mask=mask.numpy(),
            certain=certain.numpy(),
            probability=(1 / (1 + np.exp(-exact))).astype(np.float32),
            logits=exact,
            numbers=numbers,
            answers=answers,
            scores=scores,
        )

    def _close(self, scores: FloatArray | None, taken: int) -> list[int]:
        """Return the answers that another machine's rounding may take instead."""
        if scores is None:
            return []
        allowed = self._files.allowed(len(self._points))
        return [place for place in allowed if place != taken and scores[taken] - scores[place] < CLOSE]

    def _at_image(self, numbers: FloatArray) -> Tensor:
        """Return an answer's probability at the image's size, (H0, W0)."""
        enlarged = _resize(torch.from_numpy(numbers)[None, None], self._size, self._given.mask_resize)[0, 0]
        return torch.sigmoid(enlarged) if self._given.answer is AnswerForm.LOGITS else enlarged

    def to_network(self, x: float, y: float) -> tuple[float, float]:
        """Map image pixels to pixels of the encoder's image."""
        (height, width), (h0, w0) = self._given.size, self._size
        return self._coordinate(x, width, w0), self._coordinate(y, height, h0)

    def _coordinate(self, value: float, length: int, original: int) -> float:
        if self._given.coordinates is Coordinates.HALF_PIXEL:
            return (value + 0.5) * length / original - 0.5
        if self._given.coordinates is Coordinates.ALIGN_CORNERS:
            return value * (length - 1) / (original - 1) if original > 1 else 0.0
        return value * length / original


def _resize(x: Tensor, size: tuple[int, int], rule: ResizeRule) -> Tensor:
    return F.interpolate(
        x, size=size, mode=rule.interpolation.value, align_corners=rule.align_corners, antialias=rule.antialias
    )
