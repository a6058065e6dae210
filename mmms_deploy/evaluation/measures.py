"""Measures of one object at a time: boundary IoU, and the number of clicks (NoC) until an IoU is reached.

NoC@t, failures and the limit of 20 clicks follow RITM's protocol (ICIP 2022), which MMMS uses (arXiv 2509.12963,
section V). Boundary IoU: B. Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR
2021. IoU itself is in :mod:`mmms_deploy.replay.metrics`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from mmms_deploy.evaluation.depth import Mask, pack, squares, unpack
from mmms_deploy.evaluation.errors import MeasureError
from mmms_deploy.replay.metrics import as_mask, iou

MAX_CLICKS = 20
"""Clicks after which an object counts as failed."""
BOUNDARY_RATIO = 0.02
"""Width of the band of boundary IoU, as a share of the image's diagonal."""


def boundary_of(mask: NDArray[Any], ratio: float = BOUNDARY_RATIO) -> Mask:
    """The inner boundary band of a mask: its pixels within d (chessboard distance) of the outside.

    d is ``ratio`` times the image's diagonal, rounded, at least 1 pixel; the image's border counts as outside. The band
    is the mask without its d-fold erosion by a square of 3 x 3, as in the authors' code.

    Args:
        mask: (H, W), bool or integers, nonzero inside.
        ratio: Width of the band as a share of the diagonal.

    Returns:
        (H, W) bool.

    Raises:
        MaskError: The mask has the wrong shape or type.
    """
    inside = as_mask("mask", mask)
    height, width = inside.shape
    band = max(1, round(ratio * math.hypot(height, width)))
    bits = pack(inside)
    return unpack(bits & ~squares(bits, 2 * band + 1))[:, :width]


def boundary_iou(
    prediction: NDArray[Any],
    ground_truth: NDArray[Any],
    void: NDArray[Any] | None = None,
    ratio: float = BOUNDARY_RATIO,
) -> float:
    """Boundary IoU: intersection over union of the two masks' inner boundary bands.

    Args:
        prediction: (H, W), bool or integers, nonzero where the object is predicted.
        ground_truth: (H, W), bool or integers, nonzero on the object.
        void: (H, W), nonzero on pixels of the bands that are left out; ``None`` for none. The bands are found before
            that, so that void makes no boundary.
        ratio: Width of the bands as a share of the image's diagonal.

    Returns:
        A number from 0 to 1; 1 when both bands are empty.

    Raises:
        MaskError: A mask has the wrong shape or type.
    """
    truth = as_mask("ground_truth", ground_truth)
    guess = as_mask("prediction", prediction, truth.shape)
    return iou(boundary_of(guess, ratio), boundary_of(truth, ratio), void)


def noc(ious: Sequence[float], threshold: float, max_clicks: int = MAX_CLICKS) -> int:
    """NoC@t of one object: the number of clicks until its IoU reaches a threshold.

    Args:
        ious: IoU after click 1, 2, ...; clicks beyond ``max_clicks`` do not count.
        threshold: t as a fraction, above 0 and at most 1.
        max_clicks: The limit, at least 1; an object that does not reach t within it counts as ``max_clicks``.

    Returns:
        1..max_clicks.

    Raises:
        MeasureError: The threshold is no fraction or the limit is below 1.
    """
    reached = clicks_to_reach(ious, threshold, max_clicks)
    return max_clicks if reached is None else reached


def clicks_to_reach(ious: Sequence[float], threshold: float, max_clicks: int = MAX_CLICKS) -> int | None:
    """Like :func:`noc`, but ``None`` for an object that does not reach the threshold within the limit."""
    if not 0 < threshold <= 1:
        raise MeasureError(
            f"threshold {threshold}", expected="a fraction above 0 and at most 1", fix="divide percent by 100"
        )
    if max_clicks < 1:
        raise MeasureError(f"max_clicks {max_clicks}", expected="at least 1", fix="pass 20, the limit of the papers")
    for number, value in enumerate(ious[:max_clicks], start=1):
        if value >= threshold:
            return number
    return None


def iou_after(ious: Sequence[float], clicks: int) -> float:
    """IoU of one object after a number of clicks.

    An annotator stops when no error is left; from then on the last IoU stays.

    Args:
        ious: IoU after click 1, 2, ...
        clicks: At least 1.

    Raises:
        MeasureError: There is no IoU, or ``clicks`` is below 1.
    """
    if not ious or clicks < 1:
        raise MeasureError(
            f"IoU after {clicks} clicks of {len(ious)}", expected="one click or more", fix="click on the object first"
        )
    return ious[min(clicks, len(ious)) - 1]


def area_under_curve(ious: Sequence[float], max_clicks: int = MAX_CLICKS) -> float:
    """AuC of one object: the area under its IoU by clicks from click 1 to the limit, over the number of steps.

    Computed by trapezoids, so that it is the mean height of the curve in a plot. After an annotator stopped, the last
    IoU stays.

    Args:
        ious: IoU after click 1, 2, ...
        max_clicks: The limit; with a limit of 1 it is the IoU after the first click.

    Returns:
        A number from 0 to 1.

    Raises:
        MeasureError: There is no IoU, or the limit is below 1.
    """
    curve = [iou_after(ious, k) for k in range(1, max_clicks + 1)] or [iou_after(ious, max_clicks)]
    if len(curve) == 1:
        return curve[0]
    return (sum(curve) - (curve[0] + curve[-1]) / 2) / (len(curve) - 1)


@dataclass(frozen=True, slots=True)
class Summary:
    """The measures of a set of objects.

    Attributes:
        objects: Number of objects.
        mean_iou: Mean IoU (0..1) after each requested number of clicks.
        noc: Mean NoC by threshold (a fraction); failures count as ``max_clicks``.
        failures: Share (0..1) of the objects that never reach the threshold, by threshold.
        failed: Their number, by threshold.
        at_limit: Number of objects with the limit as their NoC, by threshold: the failures as RITM's code and many
            papers count them (NoF). There, reaching the threshold with the very last click is a failure too.
        clicks: How many objects took 1, 2, ... clicks to reach the threshold; failures are left out.
        auc: Mean area under the curve of IoU by clicks (:func:`area_under_curve`).
        max_clicks: The limit.
    """

    objects: int
    mean_iou: dict[int, float]
    noc: dict[float, float]
    failures: dict[float, float]
    failed: dict[float, int]
    at_limit: dict[float, int]
    clicks: dict[float, tuple[int, ...]]
    auc: float
    max_clicks: int


def summarise(
    curves: Sequence[Sequence[float]],
    clicks: Sequence[int] = (1, 3, 5, 10),
    thresholds: Sequence[float] = (0.80, 0.85, 0.90),
    max_clicks: int = MAX_CLICKS,
) -> Summary:
    """Average the measures over objects.

    Args:
        curves: For each object its IoU after click 1, 2, ...
        clicks: Numbers of clicks to report the mean IoU at.
        thresholds: The t of NoC@t, as fractions.
        max_clicks: Limit of NoC.

    Raises:
        MeasureError: There is no object, an object has no click, or a threshold is no fraction.
    """
    if not curves:
        raise MeasureError("a summary of no objects", expected="one object or more", fix="check the data set's folder")
    reached = {t: [clicks_to_reach(curve, t, max_clicks) for curve in curves] for t in thresholds}
    count = len(curves)
    return Summary(
        objects=count,
        mean_iou={k: sum(iou_after(curve, k) for curve in curves) / count for k in clicks},
        noc={t: sum(max_clicks if r is None else r for r in rs) / count for t, rs in reached.items()},
        failures={t: sum(r is None for r in rs) / count for t, rs in reached.items()},
        failed={t: sum(r is None for r in rs) for t, rs in reached.items()},
        at_limit={t: sum(r in (None, max_clicks) for r in rs) for t, rs in reached.items()},
        clicks={t: tuple(rs.count(k) for k in range(1, max_clicks + 1)) for t, rs in reached.items()},
        auc=sum(area_under_curve(curve, max_clicks) for curve in curves) / count,
        max_clicks=max_clicks,
    )
