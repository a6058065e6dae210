"""The numbers of a training run."""

from __future__ import annotations

import math

from mmms_deploy.bundle.contract import Struct
from mmms_deploy.training.errors import TrainingSettingsError


class Recipe(Struct, frozen=True, kw_only=True):
    """Settings of a training run on cached features; a run continues only a state with the same ones.

    Attributes:
        steps: Optimiser steps.
        views: Views in a step.
        targets: Targets of a view in a step, at most; they share the view's features.
        rounds: Numbers of click rounds in a step, one drawn for each step ...
        round_weights: ... with these probabilities.
        learning_rate: AdamW's peak rate: a linear warm-up, then a cosine down to ``final_rate``.
        head_rate: The rate of all weights but the fuser's, as a share of the fuser's. 0 leaves them as they are, with
            their batch statistics: where the network gets no modality, it answers to the bit as before.
        final_rate: The rate of the last step, as a share of the peak.
        warmup: Steps of warm-up.
        weight_decay: AdamW's decay, on matrices and kernels only.
        clip: Largest norm of the gradient.
        first_gamma: Focusing exponent of the normalised focal loss at the first click.
        gamma: The exponent at later clicks.
        first_iou_weight: Weight of the soft IoU loss beside the normalised focal loss at the first click. The larger,
            the more the answer is the mask of the best expected IoU where one click does not tell what is meant.
        iou_weight: The weight at later clicks.
        guard_share: Share of the targets that get a guard click in place of a correcting one: a negative click on what
            is background already.
        guard_weight: Weight of the loss of guard clicks, the growth of the mask after one as a share of the mask.
        modality_dropout: Share of the views on which an optional modality is left out.
        ema_decay: Decay of the averaged weights, which are the ones kept.
        seed: Seed of everything.
    """

    steps: int = 1000
    views: int = 4
    targets: int = 2
    rounds: tuple[int, ...] = (2, 3, 4, 6)
    round_weights: tuple[float, ...] = (0.35, 0.35, 0.2, 0.1)
    learning_rate: float = 1.0e-3
    head_rate: float = 1.0
    final_rate: float = 0.01
    warmup: int = 60
    weight_decay: float = 0.03
    clip: float = 1.0
    first_gamma: float = 1.0
    gamma: float = 2.0
    first_iou_weight: float = 0.5
    iou_weight: float = 0.5
    guard_share: float = 0.12
    guard_weight: float = 1.0
    modality_dropout: float = 0.25
    ema_decay: float = 0.995
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (self.steps, self.views, self.targets, *self.rounds)
        shares = (self.guard_share, self.modality_dropout, self.final_rate, self.head_rate, self.ema_decay)
        positive = (self.learning_rate, self.clip)
        weights = (self.first_iou_weight, self.iou_weight, self.guard_weight)
        others = (self.weight_decay, self.first_gamma, self.gamma, self.warmup, *weights)
        right = (
            all(type(n) is int and n >= 1 for n in counts)
            and all(0 <= share <= 1 for share in (*shares, *self.round_weights))
            and all(math.isfinite(n) and n > 0 for n in positive)
            and all(math.isfinite(n) and n >= 0 for n in others)
            and len(self.rounds) == len(self.round_weights) > 0
            and abs(sum(self.round_weights) - 1) < 1e-6
            and 0 <= self.seed < 2**63
        )
        if not right:
            raise TrainingSettingsError(
                f"a recipe with {self}",
                expected="counts from 1, shares from 0 to 1, finite positive rates, one probability a number of rounds",
                fix="correct the recipe; the class says what each field is",
            )

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        return self.learning_rate * (self.final_rate + (1 - self.final_rate) * cosine)

    def decay(self, step: int) -> float:
        """Decay of the averaged weights after a number of steps: they follow quickly at first."""
        return min(self.ema_decay, (1 + step) / (10 + step))
