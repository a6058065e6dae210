"""DynaMITe in a form that engines run faster, and the rewrite for it alone."""

from __future__ import annotations

from torch import Tensor

from mmms_deploy.export.rewrites.deployed import Deployed
from mmms_deploy.models.dynamite import DynaMITe


class DeployedDynaMITe(Deployed, DynaMITe):
    """DynaMITe in a form that engines run faster.

    Args:
        network: The network in the paper's form.
    """

    def __init__(self, network: DynaMITe) -> None:
        super().__init__(network)
        self.padded = network.padded
        height, width = network.padded
        self.coarse_size = (height // 4, width // 4)

    def enlarge_logits(self, logits: Tensor) -> Tensor:
        """Bring logits (B, n, *coarse_size) to the filled-up size, and cut them to the network's, (B, n, H, W)."""
        return DynaMITe.enlarge_logits(self, logits)


def fold_pixel_attention(network: DeployedDynaMITe) -> bool:
    """Fold the projections of the pixels' attention into the few keys and values that it reads.

    For every pixel the paper's form multiplies two d x d matrices, for its query and for the output. Both commute with
    the sums over the keys, so they are applied to the keys and values, of which there is one for every click and
    learned query. See :class:`~mmms_deploy.models.masked_attention.FoldedAttention`, which says why it is exact. Heads
    do not share what they read any more, so it saves work for few queries alone: up to 36 with the published widths,
    and a larger list of clicks is answered in the paper's form.
    """
    network.fold()
    return True
