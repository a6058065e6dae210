"""The shape of SAM's ``predict``: all points at once in, masks, scores and low-resolution logits out.

The same clicks, for code that was written for ``SamPredictor`` or ``SAM2ImagePredictor``; docs/sam.md says what
differs.

Logits are log odds less those of the threshold, log(p / (1 - p)) - log(t / (1 - t)), so that a pixel belongs to the
mask where they are above 0, as in SAM; with the usual threshold of 0.5 they are the plain log odds. As in SAM 2 they
are clipped to -32 and 32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle.contract import AnswerForm, ClickContract
from mmms_deploy.errors import ClickError, MaskInputError, SessionError
from mmms_deploy.imaging.resize import FloatArray
from mmms_deploy.session.answers import NetworkAnswer, log_odds
from mmms_deploy.session.interactions import (
    BoxInput,
    Choice,
    Interaction,
    MaskInput,
    Snapshot,
    mask_of_logits,
    mask_of_probability,
)
from mmms_deploy.session.result import Click, ClickResult, checked_click

Prediction: TypeAlias = "tuple[npt.NDArray[Any], FloatArray, FloatArray]"
"""Masks (K, H0, W0), scores (K,), low-resolution logits (K, h, w); K is 1 for a network that gives one answer."""

_CLIP = 32.0
_ROWS = 1 << 20
"""Pixels whose logits are computed at a time, in float64."""
_POINTS = "point_coords: (N, 2) numbers x, y in image pixels, and point_labels: (N,) of 1 and 0"
_LOGITS = "(1, H, W) float logits, as predict returned them as its third value"
_LABELS = {
    2: "the corner of a box",
    3: "the corner of a box",
    -1: "a point that does not count",
}
"""What SAM's other labels mean."""


def refuse_box(box: object) -> None:
    """Refuse SAM's prompt that these networks do not understand.

    Raises:
        ClickError: A box was given.
    """
    if box is None:
        return
    fix = "click inside instead"
    try:
        x0, y0, x1, y1 = (float(corner) for corner in np.asarray(box).reshape(-1))
        fix += f", e.g. in its middle: point_coords=[[{(x0 + x1) / 2:g}, {(y0 + y1) / 2:g}]], point_labels=[1]"
    except Exception:  # it is refused anyway
        pass
    raise ClickError("predict got a box", expected="points: this network takes clicks, no boxes", fix=fix)


def nothing_to_predict() -> ClickError:
    """Return the error for a call without points and without a mask."""
    return ClickError(
        "predict got no point and no mask_input",
        expected=_POINTS,
        fix="pass point_coords=[[x, y]], point_labels=[1], or call reset() for no clicks",
    )


def checked_points(coords: object, labels: object, size: tuple[int, int], *, pixels: bool = True) -> tuple[Click, ...]:
    """Return SAM's points as clicks, checked.

    Args:
        coords: (N, 2) numbers x, y, also (1, N, 2); None for no point.
        labels: (N,) of 1 and 0, also (1, N); None for no point.
        size: (H0, W0) of the image.
        pixels: Whether coordinates are in image pixels; else they are parts of its width and height, from 0 to 1.

    Raises:
        ClickError: They do not belong together, are no points, or lie outside of the image.
    """
    if coords is None and labels is None:
        return ()
    if coords is None or labels is None:
        missing = "point_labels" if labels is None else "point_coords"
        raise ClickError(f"predict got no {missing}", expected=_POINTS, fix="pass both, of the same length")
    points, marks = _numbers(coords, "point_coords"), _numbers(labels, "point_labels")
    given = f"point_coords has shape {points.shape} and point_labels {marks.shape}"
    points = points[0] if points.ndim == 3 and len(points) == 1 else points
    marks = marks[0] if marks.ndim == 2 and len(marks) == 1 else marks
    if points.size == 0 and marks.size == 0:
        return ()
    if points.ndim != 2 or points.shape[1] != 2 or marks.shape != (len(points),):
        several = points.ndim == 3
        raise ClickError(
            given,
            expected=_POINTS,
            fix="call predict once for each object, and select(name) before it" if several else "pass [[x, y]] and [1]",
        )
    scale = (1.0, 1.0) if pixels else (float(size[1]), float(size[0]))
    return tuple(
        checked_click(float(x) * scale[0], float(y) * scale[1], _label(mark), size)
        for (x, y), mark in zip(points, marks, strict=True)
    )


def _numbers(given: object, what: str) -> npt.NDArray[Any]:
    array = _array(given, what, ClickError, _POINTS)
    if array.size and array.dtype.kind not in "biuf":
        raise ClickError(f"{what} has dtype {array.dtype}", expected=_POINTS, fix="pass numbers")
    return array


def _array(given: object, what: str, error: type[SessionError], expected: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(given)
    except MemoryError:
        raise
    except Exception as problem:  # ragged lists; tensors of a GPU, or with a gradient
        fix = "pass NumPy arrays or lists; a tensor by .detach().cpu().numpy()"
        raise error(f"{what} is no array: {problem}", expected=expected, fix=fix) from problem


def _label(mark: Any) -> bool:
    if mark in (0, 1):
        return bool(mark)
    meaning = f", which is {_LABELS[int(mark)]} to SAM" if mark in _LABELS else ""
    boxes = ": this network takes clicks, no boxes" if mark in (2, 3) else ""
    raise ClickError(
        f"a point has the label {mark:g}{meaning}",
        expected=f"1 on the object, 0 off it{boxes}",
        fix="click inside the box instead" if boxes else "leave such points out",
    )


def checked_logits(
    logits: object, image_size: tuple[int, int], network_size: tuple[int, int], rule: ClickContract
) -> tuple[FloatArray, MaskInput]:
    """Return SAM's ``mask_input``, checked, and the mask that it puts in.

    Args:
        logits: (1, h, w) or (h, w) floats that cover the whole image.
        image_size: (H0, W0) of the image.
        network_size: (H, W) of the network's answer.
        rule: How the bundle resizes masks, and its threshold.

    Raises:
        MaskInputError: They are no such numbers.
    """
    array = _array(logits, "mask_input", MaskInputError, _LOGITS)
    given = f"mask_input has shape {array.shape} and dtype {array.dtype}"
    low = array[0] if array.ndim == 3 and len(array) == 1 else array
    if low.ndim != 2 or low.size == 0:
        raise MaskInputError(given, expected=_LOGITS, fix="choose one mask: logits[0][None]")
    if low.dtype.kind != "f":
        raise MaskInputError(given, expected=_LOGITS, fix="a mask is put in with set_mask(mask)")
    if np.isnan(low).any():
        raise MaskInputError(f"{given}, and holds NaN", expected=_LOGITS, fix="check how it was computed")
    shifted = np.clip(low.astype(np.float64), -_CLIP, _CLIP) + log_odds(rule.threshold)
    if rule.answer_form is AnswerForm.LOGITS:
        return low, mask_of_logits(shifted.astype(np.float32), image_size, network_size, rule)
    probability = (1 / (1 + np.exp(-shifted))).astype(np.float32)
    return low, mask_of_probability(probability, image_size, network_size, rule)


def interactions_of(
    clicks: tuple[Click | BoxInput, ...],
    given: tuple[FloatArray, MaskInput] | None,
    line: Sequence[Snapshot],
    logits: Callable[[Snapshot], FloatArray],
    rule: ClickContract,
) -> tuple[Interaction, ...]:
    """Return the interactions that a call of predict stands for.

    Args:
        clicks: Its box, where there is one, and its points.
        given: Its mask input as logits, and as the mask that it puts in; None for none.
        line: The snapshots that are held, oldest first.
        logits: Returns a snapshot's answer (h, w) as logits.
        rule: In what form the bundle's answers are.

    Returns:
        The clicks. Where there is a mask input: if it is the answer of a held snapshot whose clicks the points begin
        with, what led there and the other clicks; if it is another one of its answers, the choice of it between them;
        else the mask, and then all clicks.
    """
    if given is None:
        return clicks
    low, mask = given
    # From the newest on: of two that answer the same, the one with more of the clicks.
    # A snapshot's clicks are the first ones of the last snapshot's.
    pairs = zip(line[-1].prompts, clicks, strict=False)
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    fitting = [
        one for one in reversed(line) if one.interactions and not one.pending and one.interactions.prompted <= common
    ]
    for snapshot in fitting:
        if np.array_equal(logits(snapshot), low):
            return (*snapshot.interactions, *clicks[snapshot.interactions.prompted :])
    for snapshot in fitting:
        for place, numbers in enumerate(() if snapshot.candidates is None else snapshot.candidates.numbers):
            if np.array_equal(answer_logits(NetworkAnswer(numbers, rule)), low):
                before = tuple(snapshot.interactions)
                while isinstance(before[-1], Choice):  # a choice among the same answers is replaced
                    before = before[:-1]
                return (*before, Choice(place), *clicks[snapshot.interactions.prompted :])
    return (mask, *clicks)


def logits_of(probability: FloatArray, threshold: float) -> FloatArray:
    """Return the logits of probabilities.

    Args:
        probability: (H, W) in [0, 1]; a resize may have rounded a number beyond.
        threshold: The bundle's; logits are above 0 where the probability is above it.

    Returns:
        (H, W) float32, from -32 to 32.
    """
    out = np.empty(probability.shape, dtype=np.float32)
    rows = max(1, _ROWS // probability.shape[1])
    limit = np.float32(threshold)
    for top in range(0, len(out), rows):
        part = probability[top : top + rows]
        exact = np.clip(part.astype(np.float64), 0, 1)
        with np.errstate(divide="ignore"):
            odds = np.log(exact) - np.log1p(-exact) - log_odds(threshold)
        block = np.clip(odds, -_CLIP, _CLIP).astype(np.float32)
        # Rounding must not move a pixel over the edge.
        least = np.finfo(np.float32).tiny
        out[top : top + rows] = np.where(part > limit, np.maximum(block, least), np.minimum(block, 0))
    return out


def answer_logits(answer: NetworkAnswer, size: tuple[int, int] | None = None) -> FloatArray:
    """Return an answer's logits in SAM's form: above 0 in the mask, from -32 to 32.

    Args:
        answer: The answer. Of a network that answers with logits these are its own, less the threshold's.
        size: (H0, W0); None for the answer's own.

    Returns:
        (h, w) or (H0, W0) float32, a new array.
    """
    numbers = answer.numbers if size is None else answer.resized(size)
    if answer.logits is None:
        return logits_of(numbers, answer.rule.threshold)
    bounded: FloatArray = np.clip(numbers - np.float32(log_odds(answer.rule.threshold)), -_CLIP, _CLIP)
    return bounded


def score_of(probability: FloatArray, threshold: float) -> float:
    """Return how decided an answer is: the intersection over union of the mask with the probability map itself.

    That is the sum of the probability in the mask, divided by the mask's pixels and the probability outside. It is 1
    where the network is certain of every pixel, and 0 for an empty mask. It is no predicted IoU.

    Args:
        probability: (H, W).
        threshold: The bundle's.
    """
    inside = probability > np.float32(threshold)
    total = float(probability.sum(dtype=np.float64))
    both = float(probability[inside].sum(dtype=np.float64))
    union = float(np.count_nonzero(inside)) + total - both
    return both / union if union > 0 else 0.0


def prediction(result: ClickResult, whole: NetworkAnswer, *, several: bool, logits: bool) -> Prediction:
    """Return an answer in SAM's shape.

    Args:
        result: The answer.
        whole: The answer for the whole image, at its own resolution.
        several: Whether all answers of a network that gives several are wanted.
        logits: Whether logits take the place of the masks.

    Returns:
        New arrays, which the caller may write to.
    """
    chosen = [one for one in result.candidates if several or one.taken]
    if chosen:
        size = result.mask.shape
        masks = [answer_logits(one.answer, size) if logits else one.mask for one in chosen]
        scores = np.array([one.score for one in chosen], dtype=np.float32)
        return np.stack(masks), scores, np.stack([answer_logits(one.answer) for one in chosen])
    threshold = whole.rule.threshold
    mask = logits_of(result.probability, threshold) if logits else result.mask.copy()
    score = score_of(whole.probability, threshold)
    return mask[None], np.array([score], dtype=np.float32), answer_logits(whole)[None]
