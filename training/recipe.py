"""The demo networks, and the settings of their training runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from mmms_deploy.bundle.contract import ClickContract, PreviousMask
from mmms_deploy.export.source import DEMOS, demo_checkpoint
from mmms_deploy.models import MMMS, BackboneConfig, EncoderConfig, FuserConfig, MMMSConfig
from mmms_deploy.training.initial import initialise
from training.thermal import THERMAL
from training.weights import warm_start

NETWORK_SIZE = 224
SEED = 20261120


class Demo(StrEnum):
    """The networks that ship."""

    RGB = "rgb"
    THERMAL = "thermal"


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of training at one picture size.

    Attributes:
        size: Side of the pictures, pixels; divisible by 32.
        steps: Optimiser steps.
        images: Pictures in a step.
    """

    size: int
    steps: int
    images: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of a training run.

    Attributes:
        phases: Picture sizes in order: small pictures first are several times cheaper, and the network finishes at its
            own size. The position table is resampled in between.
        targets: Targets on a picture; they share the image part's features.
        rounds: Numbers of click rounds in a step, one drawn for each step ...
        round_weights: ... with these probabilities.
        learning_rate: AdamW's peak rate: a linear warm-up, then constant; over the last phase a cosine down to
            ``final_rate``.
        final_rate: The rate of the last step, as a share of the peak.
        warmup: Steps of warm-up.
        weight_decay: AdamW's decay, on matrices and kernels only.
        clip: Largest norm of the gradient.
        first_gamma: Focusing exponent of the normalised focal loss at the first click. 0 is cross-entropy: one click
            does not tell the extent, and focusing on errors would only make the network less certain.
        gamma: The exponent at later clicks.
        iou_weight: Weight of the soft IoU loss beside the normalised focal loss.
        guide_weight: Weight of the training-only guides of the image part.
        plain_until: Pictures until which plain scenes (flat colours) fade out; they come first, because colour is the
            first thing to learn about a click.
        region_weight: Weight of the first click on unsupervised regions, where one click cannot tell the extent.
        ema_decay: Decay of the averaged weights, which are the ones kept.
        thermal: Share of the pictures that come with a thermal image; ``None`` for a network that takes none.
        start: Checkpoint to start from, the name of one that ships or a path; ``None`` starts from nothing.
        start_rate: Rate of the weights that come from there, as a share of the others'.
        seed: Seed of everything.
    """

    phases: tuple[Phase, ...] = (Phase(128, 1000, 8), Phase(NETWORK_SIZE, 380, 8))
    targets: int = 3
    rounds: tuple[int, ...] = (2, 3, 4, 6)
    round_weights: tuple[float, ...] = (0.35, 0.35, 0.2, 0.1)
    learning_rate: float = 8.0e-4
    final_rate: float = 0.01
    warmup: int = 100
    weight_decay: float = 0.03
    clip: float = 1.0
    first_gamma: float = 0.0
    gamma: float = 2.0
    iou_weight: float = 0.5
    guide_weight: float = 0.5
    plain_until: int = 4000
    region_weight: float = 0.3
    ema_decay: float = 0.995
    thermal: float | None = None
    start: str | None = None
    start_rate: float = 1.0
    seed: int = SEED

    @property
    def steps(self) -> int:
        """Optimiser steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def phase_at(self, step: int) -> int:
        """Index of the phase of a step."""
        for number, phase in enumerate(self.phases):
            if step < phase.steps:
                return number
            step -= phase.steps
        return len(self.phases) - 1

    def first_image(self, step: int) -> int:
        """Index of the first picture of a step: how many pictures all earlier steps used."""
        total = 0
        for phase in self.phases:
            used = min(step, phase.steps)
            total += used * phase.images
            step -= used
        return total

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        start = self.steps - self.phases[-1].steps
        done = max(step - start, 0) / max(self.phases[-1].steps, 1)
        floor = self.final_rate
        return self.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def recipe_for(demo: Demo, seed: int = SEED) -> Recipe:
    """The settings that a demo network is trained with."""
    if demo is Demo.RGB:
        return Recipe(seed=seed)
    return Recipe(
        phases=(Phase(128, 500, 8), Phase(NETWORK_SIZE, 280, 8)),
        learning_rate=8.0e-4,
        warmup=40,
        plain_until=0,
        thermal=0.72,
        start="demo-small",
        start_rate=0.5,
        seed=seed,
    )


def config_for(demo: Demo) -> MMMSConfig:
    """The network of a demo."""
    return demo_config() if demo is Demo.RGB else thermal_config()


def demo_config(size: int = NETWORK_SIZE) -> MMMSConfig:
    """The demo network: the paper's topology, narrow, RGB only, small enough for 10 MB in float16."""
    # Depth where tokens are few: the first stage alone costs as much as the others together.
    stages = EncoderConfig(depths=(1, 2, 3, 2), heads=(1, 1, 2, 4), reductions=(8, 4, 2, 1))
    return MMMSConfig(
        size=(size, size),
        widths=(32, 48, 96, 128),
        fpn_hidden=(64, 80, 128, 192),
        backbone=BackboneConfig(
            name="timm:vit_base_patch16_224",
            # Two wide heads instead of many narrow ones: attention over 784 tokens dominates the cost on a CPU.
            overrides={"patch_size": 8, "embed_dim": 160, "depth": 8, "num_heads": 2, "mlp_ratio": 3.5},
        ),
        csnet=stages,
        fuser=FuserConfig(encoder=stages),
        head_width=64,
        clicks=ClickContract(previous=PreviousMask.PROBABILITY),
    )


def thermal_config(size: int = NETWORK_SIZE) -> MMMSConfig:
    """The demo network with an optional thermal image beside RGB: 12 MB in float16."""
    encoder = EncoderConfig(depths=(1, 1, 2, 1), heads=(1, 1, 2, 4), reductions=(8, 4, 2, 1), mlp_ratio=2)
    return msgspec.structs.replace(demo_config(size), modalities=(THERMAL,), fuser=FuserConfig(encoder=encoder))


def initial_network(config: MMMSConfig, recipe: Recipe) -> MMMS:
    """The network that a run starts from: a fresh one, filled with the recipe's checkpoint when it names one."""
    model = build(config)
    if recipe.start is not None:
        warm_start(model, demo_checkpoint(recipe.start) if recipe.start in DEMOS else Path(recipe.start))
    return model


def build(config: MMMSConfig) -> MMMS:
    """Build a fresh network, initialised (:mod:`mmms_deploy.training.initial`)."""
    return initialise(MMMS(config))
