"""Training-only heads that teach the image part what clicks need; a checkpoint does not contain them.

Through the click part alone the image part learns slowly: for hundreds of steps the network does best by filling blobs
around the clicks, whatever the picture. The guides train the image features directly for what clicks need: which pixels
belong to the clicked object, and where objects end.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.models.config import Scales

GUIDED = (0, 1, 2)
"""Indices of the guided scales: 4, 8 and 16."""


class Guides(nn.Module):
    """An embedding at the guided scales, and a boundary map at the finest.

    Args:
        widths: Channels of the feature pyramid.
        dim: Channels of the embeddings.
    """

    def __init__(self, widths: Scales, dim: int = 24) -> None:
        super().__init__()
        self.embed = nn.ModuleList(nn.Conv2d(widths[i], dim, 1) for i in GUIDED)
        self.scale = nn.Parameter(torch.full((len(GUIDED),), 8.0))
        self.shift = nn.Parameter(torch.full((len(GUIDED),), -4.0))
        self.boundary = nn.Conv2d(widths[0], 1, 1)

    def forward(self, features: tuple[Tensor, ...], owner: Tensor, targets: Tensor, clicks: Tensor) -> Tensor:
        """The guides' loss.

        Args:
            features: Four maps (B, C_i, H/i, W/i).
            owner: (N,) index of every target's picture.
            targets: (N, 1, H, W), 1 on the target and 0 elsewhere.
            clicks: (N, 1, H, W), 1 on the disks of the first positive clicks.

        Returns:
            A scalar, float32.
        """
        truth, seeds = targets.float(), clicks.float() * targets.float()
        total = truth.new_zeros(())
        for number, i in enumerate(GUIDED):
            embedded = F.normalize(self.embed[number](features[i].float()), dim=1)[owner]
            size = embedded.shape[2:]
            share, seed = F.adaptive_avg_pool2d(truth, size), F.adaptive_avg_pool2d(seeds, size)
            centre = (embedded * seed).sum((2, 3), keepdim=True) / (seed.sum((2, 3), keepdim=True) + 1e-6)
            likeness = (embedded * F.normalize(centre, dim=1)).sum(1, keepdim=True)
            logits = likeness * self.scale[number] + self.shift[number]
            # Objects and their surroundings count the same, however small the object is.
            weight = share / (share.mean((2, 3), keepdim=True) + 0.02) + (1 - share) / (
                (1 - share).mean((2, 3), keepdim=True) + 0.02
            )
            each = F.binary_cross_entropy_with_logits(logits, share, reduction="none")
            total = total + (each * weight).mean() / 2
        edge_logits = self.boundary(features[0].float())
        share = F.adaptive_avg_pool2d(truth, edge_logits.shape[2:])
        crossed = ((share > 0.05) & (share < 0.95)).float()
        edges = (torch.zeros_like(edge_logits).index_add(0, owner, crossed) > 0).float()
        edge_loss = F.binary_cross_entropy_with_logits(
            edge_logits, edges, pos_weight=torch.tensor(4.0, device=edges.device)
        )
        return total / len(GUIDED) + edge_loss
