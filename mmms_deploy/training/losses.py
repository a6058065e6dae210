"""Losses on mask logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def normalized_focal_loss(
    logits: Tensor, targets: Tensor, *, alpha: float = 0.5, gamma: float = 2.0, valid: Tensor | None = None
) -> Tensor:
    """The normalised focal loss that RITM trains with.

    A focal loss whose weights (1 - p_t)^gamma are rescaled, for each mask, to sum to the number of pixels, so that the
    gradient does not fade while the mask gets better. The scale itself is a constant to the gradient.

    K. Sofiiuk, O. Barinova, A. Konushin, "AdaptIS: Adaptive Instance Selection Network", ICCV 2019, section 3;
    used with alpha 0.5 and gamma 2 by RITM (ICIP 2022).

    Args:
        logits: (N, 1, H, W), any float dtype; computed in float32.
        targets: (N, 1, H, W), 1 on the target and 0 elsewhere.
        alpha: Weight of the positive pixels; the negative ones get 1 - alpha.
        gamma: Focusing exponent.
        valid: (N, 1, H, W), 1 where a pixel counts and 0 where it is void; None where all count.

    Returns:
        Mean over pixels of each mask, (N,) float32.
    """
    logits, targets = logits.float(), targets.float()
    signed = torch.where(targets > 0.5, logits, -logits)  # p_t = sigmoid(signed)
    weight = torch.sigmoid(-signed) ** gamma
    if valid is not None:
        weight = weight * valid
    scale = weight[0].numel() / (weight.sum(dim=(1, 2, 3), keepdim=True) + 1e-6)
    side = torch.where(targets > 0.5, alpha, 1.0 - alpha)
    return (side * weight * scale.detach() * -F.logsigmoid(signed)).mean(dim=(1, 2, 3))


def soft_iou_loss(logits: Tensor, targets: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """One minus the IoU of the predicted probabilities with the target, (N,) float32; arguments as above."""
    probabilities, targets = torch.sigmoid(logits.float()), targets.float()
    if valid is not None:
        probabilities, targets = probabilities * valid, targets * valid
    both = (probabilities * targets).sum(dim=(1, 2, 3))
    either = (probabilities + targets - probabilities * targets).sum(dim=(1, 2, 3))
    return 1 - (both + 1.0) / (either + 1.0)


def growth(logits: Tensor, before: Tensor) -> Tensor:
    """How much the masks grew, as a share of the masks before; (N,) float32.

    Args:
        logits: (N, 1, H, W), the new masks.
        before: (N, 1, H, W), the probabilities before; constants to the gradient.
    """
    grown = F.relu(torch.sigmoid(logits.float()) - before).sum(dim=(1, 2, 3))
    return grown / (before.sum(dim=(1, 2, 3)) + 1.0)
