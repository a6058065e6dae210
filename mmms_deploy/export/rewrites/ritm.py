"""SimpleClick and MFP in a form that engines run faster."""

from __future__ import annotations

from torch import Tensor

from mmms_deploy.export.rewrites.deployed import Deployed
from mmms_deploy.models.mfp import MFPViT
from mmms_deploy.models.mfp_hrnet import MFPHRNet
from mmms_deploy.models.simpleclick import EarlyFusionViT, SimpleClick


class DeployedSimpleClick(Deployed, SimpleClick):
    """SimpleClick in a form that engines run faster.

    Args:
        network: The network in the paper's form.
    """

    def __init__(self, network: SimpleClick) -> None:
        super().__init__(network)
        self.coarse_size = _coarse(network)

    def respond(self, features: tuple[Tensor, ...], interaction: Tensor) -> Tensor:
        """Answer a click; returns logits (B, 1, H, W)."""
        logits: Tensor = self.enlarge(self.coarse_logits(features, interaction))
        return logits


class DeployedMFPViT(Deployed, MFPViT):
    """MFP on a ViT in a form that engines run faster.

    Args:
        network: The network in the paper's form.
    """

    def __init__(self, network: MFPViT) -> None:
        super().__init__(network)
        height, width = network.config.size
        self.coarse_size = (_quarter(height), _quarter(width))

    def respond(self, features: tuple[Tensor, ...], interaction: Tensor) -> Tensor:
        """Answer a click; returns logits (B, 1, H, W)."""
        logits: Tensor = self.enlarge(self.coarse_logits(features, interaction))
        return logits


class DeployedMFPHRNet(Deployed, MFPHRNet):
    """MFP on HRNet in a form that engines run faster.

    Args:
        network: The network in the paper's form.
    """

    def __init__(self, network: MFPHRNet) -> None:
        super().__init__(network)
        height, width = network.config.size
        self.coarse_size = (_quarter(height), _quarter(width))

    def respond(self, features: tuple[Tensor, ...], interaction: Tensor) -> Tensor:
        """Answer a click; returns logits (B, 1, H, W)."""
        logits: Tensor = self.enlarge(self.coarse_logits(features, interaction))
        return logits


def deployed_mfp(network: MFPViT | MFPHRNet) -> Deployed:
    """Return the network that rewrites change."""
    return DeployedMFPViT(network) if isinstance(network, MFPViT) else DeployedMFPHRNet(network)


def _coarse(network: EarlyFusionViT) -> tuple[int, int]:
    height, width = network.backbone.grid
    return 4 * height, 4 * width


def _quarter(length: int) -> int:
    """Return a side after two convolutions with stride 2."""
    return (length + 3) // 4
