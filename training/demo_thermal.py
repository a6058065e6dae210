"""Train the demo that takes a thermal image: ``python -m training.demo_thermal --data DAVIS --out RUN``.

It is the demo's network (:mod:`training.demo`) with MMFuser. Only the fuser is trained: without a thermal image the
network answers to the bit as the demo does, and the package need not hold the head a second time.

A run can be stopped at any time; the same command goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click as cli
from rich.console import Console

from mmms_deploy.commands.train_results import duration
from mmms_deploy.export.source import demo_checkpoint
from mmms_deploy.training import Recipe
from mmms_deploy.training.network import continued_network
from training.davis import Frame
from training.demo import OBJECTS, SEED, Phase, found_weights, sam2_proposer, train_phase
from training.proposals import Proposals
from training.thermal import THERMAL

PHASE = Phase(
    Recipe(
        steps=320,
        views=4,
        targets=2,
        learning_rate=6e-4,
        head_rate=0.0,
        warmup=30,
        first_gamma=0.5,
        first_iou_weight=1.5,
        # Views without a thermal image do not pass through the fuser: they would teach it nothing.
        modality_dropout=0.0,
        seed=SEED + 2,
    ),
    views=520,
    every=2,
    wholes=True,
    thermal=1.0,
)


def train_demo_thermal(
    data: Path,
    out: Path,
    weights: Path,
    proposer: Callable[[], Callable[[Frame], Proposals]],
    *,
    start: Path | None = None,
    phase: Phase = PHASE,
    objects: int = OBJECTS,
    cache: Path | None = None,
) -> Path:
    """Train, or go on training, and measure on RGB alone.

    Args:
        data: DAVIS folder.
        out: Folder of the run.
        weights: The backbone's weights.
        proposer: Opens what proposes pseudo-masks.
        start: The demo's checkpoint; None for the one of the package.
        phase: Every number.
        objects: How many held-out frames are measured at the end.
        cache: Folder of pseudo-masks and features; None for one in ``out``.

    Returns:
        The checkpoint, float16, without the backbone.
    """
    start = start or demo_checkpoint("demo")
    network = continued_network(start, weights, (THERMAL,), phase.recipe.seed)
    return train_phase(phase, network, data, out, proposer, cache or out / "cache", objects, start)


@cli.command()
@cli.option("--data", type=cli.Path(path_type=Path), required=True, help="DAVIS folder: images/SEQ, masks/SEQ.")
@cli.option("--out", type=cli.Path(path_type=Path), required=True, help="Folder of the run; goes on where it stopped.")
@cli.option("--weights", type=cli.Path(path_type=Path), help="The backbone's weights.  [default: found or fetched]")
@cli.option(
    "--start",
    type=cli.Path(path_type=Path),
    help="The demo's checkpoint.  [default: the one of the package]",
)
@cli.option("--cache", type=cli.Path(path_type=Path), help="Folder of pseudo-masks and features.  [default: in --out]")
def main(data: Path, out: Path, weights: Path | None, start: Path | None, cache: Path | None) -> None:
    """Train the demo that takes a thermal image."""
    began = time.monotonic()
    train_demo_thermal(data, out, found_weights(weights), sam2_proposer, start=start, cache=cache)
    Console().print(f"Done in {duration(time.monotonic() - began)}.")


if __name__ == "__main__":
    main()
