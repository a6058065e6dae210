"""Which click stages for several objects run: whether a session uses them, and how many clicks each run takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmms_deploy.bundle import Manifest
from mmms_deploy.errors import SessionError


@dataclass(frozen=True)
class Used:
    """A run of a click stage for several objects.

    Attributes:
        size: How many objects the stage takes.
        clicks: How many of its rows have a click.
    """

    size: int
    clicks: int


def batches_for(clicks: int, sizes: Sequence[int]) -> list[Used]:
    """Return the runs of click stages for several objects that answer clicks, largest first.

    A stage runs where more than half of its rows have a click; clicks that are left run one by one.

    Args:
        clicks: How many clicks there are, each on another object.
        sizes: How many objects the stages take, rising.
    """
    runs: list[Used] = []
    for size in reversed(sizes):
        while 2 * clicks > size:
            runs.append(Used(size, min(size, clicks)))
            clicks -= runs[-1].clicks
    return runs


def checked_batch(batch: object, manifest: Manifest, device: str, *, viewed: bool) -> bool:
    """Return whether a session answers clicks on several objects together.

    Args:
        batch: What the caller asks for; None for where it pays: on a GPU, and not on a CPU, whose cores one click keeps
            busy already; there only BF16 gained something (benchmarks/results/batch.md).
        manifest: The bundle's manifest.
        device: ``cpu`` or ``cuda``.
        viewed: Whether the session crops or mirrors the picture, so that objects have features of their own.

    Raises:
        SessionError: It is asked for and not possible, or something else than True, False or None.
    """
    if batch is None or batch is False:
        return batch is None and device != "cpu" and bool(manifest.batches) and not viewed
    if batch is not True:
        raise SessionError(
            f"batch is {batch!r}", expected="True, False or None", fix="pass batch=True, or leave it out"
        )
    if not manifest.batches:
        raise SessionError(
            f"batch was asked of {manifest.name}, which has no click stage for several objects",
            expected="a bundle that was exported with batches=(4,) or mmms-export --batch 4",
            fix="export it again, or leave out batch",
        )
    if viewed:
        raise SessionError(
            "batch was asked of a session with zoom or flip, in which every object has features of its own",
            expected="a session that shows the network the whole image",
            fix="leave out batch, or zoom and flip",
        )
    return True
