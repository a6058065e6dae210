"""The click rounds of a training step: the network answers, the annotator clicks on its errors, and again.

Every round has a loss. The image part runs once for all of them: gradients stop at its features and are summed there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmms_deploy.bundle.contract import ClickChannel, ClickContract, PreviousMask
from mmms_deploy.imaging.resize import through_image
from mmms_deploy.models.network import InteractiveNetwork
from mmms_deploy.training.clicks import ClickMaps
from mmms_deploy.training.losses import growth, normalized_focal_loss, soft_iou_loss

GUARDED_SHARE = 0.5
"""Weight of the usual loss in a round whose click was a guard: the truth must not ask for what the guard forbids."""


@dataclass(frozen=True, slots=True)
class Round:
    """The result of a click round, averaged over its targets: the loss, and the masks' IoU."""

    loss: float
    iou: float


@dataclass(frozen=True, slots=True)
class RoundRules:
    """How the rounds of a step are judged; the fields are those of :class:`~mmms_deploy.training.recipe.Recipe`."""

    first_gamma: float
    gamma: float
    first_iou_weight: float
    iou_weight: float
    guard_share: float = 0.0
    guard_weight: float = 0.0
    bfloat16: bool = True


@dataclass(frozen=True, slots=True)
class Targets:
    """The targets of a step, or of one replica's share of it.

    Attributes:
        owner: (N,) int64, the index of each target's picture.
        truth: (N, 1, H, W), 1 on the target and 0 elsewhere.
        first_weight: (N,) float32, weight of the first click.
        valid: (N, 1, H, W) float32, 0 where a pixel is void; None where all count.
        sizes: (H0, W0) of each target's picture, for networks whose previous mask passes through the picture's size.
    """

    owner: Tensor
    truth: Tensor
    first_weight: Tensor
    valid: Tensor | None = None
    sizes: Sequence[tuple[int, int]] = ()


def interaction_of(maps: NDArray[np.float32], previous: Tensor, contract: ClickContract) -> Tensor:
    """Join click disks and previous mask in the order and form that a network takes.

    Args:
        maps: (N, 2, H, W), the disks of positive and of negative clicks.
        previous: (N, 1, H, W), probabilities.
        contract: The network's click contract.

    Returns:
        (N, 3, H, W) float32.
    """
    if contract.previous is PreviousMask.MASK:
        previous = (previous > contract.threshold).float()
    disks = torch.from_numpy(maps.copy()).to(previous.device)
    channels = {
        ClickChannel.POSITIVE: disks[:, :1],
        ClickChannel.NEGATIVE: disks[:, 1:],
        ClickChannel.PREVIOUS: previous,
    }
    return torch.cat([channels[name] for name in contract.channels], 1)


def click_rounds(
    network: InteractiveNetwork,
    leaves: tuple[Tensor, ...],
    maps: ClickMaps,
    targets: Targets,
    rules: RoundRules,
    rounds: int,
    share: float,
) -> list[Round]:
    """Run the rounds of a step and add up their gradients, in the network's parameters and in the features.

    Args:
        network: The network.
        leaves: Features of the pictures, that require gradients and have no history.
        maps: The annotator, with its first clicks.
        targets: The targets.
        rules: How rounds are judged.
        rounds: How many.
        share: Weight of this share of the batch in the whole.

    Returns:
        The result of every round.
    """
    contract = network.config.clicks
    device = targets.truth.device
    previous = answered = torch.zeros(targets.truth.shape, device=device)
    guarded = np.zeros(len(targets.truth), bool)
    results = []
    for turn in range(rounds):
        interaction = interaction_of(maps.maps, previous, contract)
        with torch.autocast(device.type, torch.bfloat16, enabled=rules.bfloat16):
            logits = network.respond(tuple(leaf[targets.owner] for leaf in leaves), interaction)
        gamma = rules.gamma if turn else rules.first_gamma
        iou_weight = rules.iou_weight if turn else rules.first_iou_weight
        each = normalized_focal_loss(logits, targets.truth, gamma=gamma, valid=targets.valid)
        each = each + iou_weight * soft_iou_loss(logits, targets.truth, valid=targets.valid)
        weighted = each * targets.first_weight if turn == 0 else each
        if guarded.any():
            held = torch.from_numpy(guarded).to(device)
            kept = GUARDED_SHARE * each + rules.guard_weight * growth(logits, answered)
            weighted = torch.where(held, kept, weighted)
        torch.autograd.backward(weighted.mean() * (share / rounds))
        answered = torch.sigmoid(logits.detach().float())
        previous = _fed_back(answered, targets.sizes, contract)
        masks: NDArray[np.bool_] = (answered[:, 0] > contract.threshold).cpu().numpy()
        results.append(Round(float(each.mean().detach()), maps.iou(masks)))
        if turn + 1 < rounds:
            guarded = maps.guard(masks, rules.guard_share) if rules.guard_share else guarded
            maps.correct(masks, guarded)
    return results


def _fed_back(answered: Tensor, sizes: Sequence[tuple[int, int]], contract: ClickContract) -> Tensor:
    """Return the previous mask of the next round: the answer, or what is left of it after the picture's size."""
    if contract.previous_resize is None:
        return answered
    reduced = [
        through_image(plane[0].cpu().numpy(), size, contract.mask_resize, contract.previous_resize)
        for plane, size in zip(answered, sizes, strict=True)
    ]
    return torch.from_numpy(np.stack(reduced)[:, None]).to(answered.device)
