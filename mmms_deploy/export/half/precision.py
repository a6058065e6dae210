"""Which reduced precisions an export makes, and how much each may differ from float32. Needs no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from mmms_deploy.bundle import BlockPeak, Precision
from mmms_deploy.replay.verification import LIMITS


@dataclass(frozen=True)
class Limits:
    """How much a reduced precision may differ from float32.

    Attributes:
        feature: 1 - cosine of a feature and its float32 form.
        mask: 1 - IoU of a mask on certain pixels, after every click, closed loop; ``mmms-verify`` has the same limit.
        last: The same after the last click, mean over the images: errors add up through the previous mask.
    """

    feature: float
    mask: float
    last: float


REDUCED: Mapping[Precision, Limits] = MappingProxyType(
    {
        Precision.FP16: Limits(feature=1e-3, mask=1.0 - LIMITS[Precision.FP16], last=0.01),
        Precision.BF16: Limits(feature=1e-2, mask=1.0 - LIMITS[Precision.BF16], last=0.03),
    }
)
"""The precisions that are made from the float32 network, with their limits."""

FP16_LARGEST = 65504.0
"""The largest number of float16."""
FP16_ALARM = FP16_LARGEST / 8
"""Activations above this are reported: another picture may have some that are eight times as large."""


def reduced_precisions(requested: Collection[Precision]) -> tuple[Precision, ...]:
    """Return the precisions to make beside float32, each once, in a fixed order.

    Float32 is always made: the others are compared with it.

    Args:
        requested: The requested precisions, with or without float32.
    """
    return tuple(precision for precision in REDUCED if precision in requested)


class Advice(NamedTuple):
    """What to do next, in the words of both doors (:class:`~mmms_deploy.errors.Door`)."""

    fix: str
    command_fix: str


def other_precisions(precision: Precision) -> Advice:
    """Return the advice when a precision fails its gate: which precisions to request instead."""
    half = precision is Precision.FP16
    wider = ", or [Precision.FP32, Precision.BF16]: bfloat16 has float32's range" if half else ""
    command_wider = ", or fp32,bf16: bfloat16 has float32's range" if half else ""
    return Advice(
        f"pass precisions=[Precision.FP32]{wider}; nothing was written",
        f"pass --precision fp32{command_wider}; nothing was written",
    )


def near_fp16(peaks: Sequence[BlockPeak]) -> list[str]:
    """Return a line for every block of the backbone with activations near the end of float16's range."""
    lines = []
    for peak in peaks:
        places = [(peak.output, "in its output"), (peak.inside, f"in {peak.layer}")]
        found = [f"{value:.3g} {place}" for value, place in places if value > FP16_ALARM]
        if found:
            lines.append(f"block {peak.block}: {', '.join(found)}")
    return lines
