"""SimpleClick and MFP in a form that engines run faster."""

from __future__ import annotations

from mmms_deploy.export.rewrites.deployed import Deployed
from mmms_deploy.models.mfp import MFPViT
from mmms_deploy.models.mfp_hrnet import MFPHRNet
from mmms_deploy.models.simpleclick import SimpleClick


class DeployedSimpleClick(Deployed, SimpleClick):
    """SimpleClick in a form that engines run faster.

    Args:
        network: The network in the paper's form.
    """

    def __init__(self, network: SimpleClick) -> None:
        super().__init__(network)
        height, width = network.backbone.grid
        self.coarse_size = (4 * height, 4 * width)


class DeployedMFPViT(Deployed, MFPViT):
    """MFP on a ViT in a form that engines run faster.

    Args:
        network: The network in the paper's form.
    """

    def __init__(self, network: MFPViT) -> None:
        super().__init__(network)
        self.coarse_size = _quarter(network.config.size)


class DeployedMFPHRNet(Deployed, MFPHRNet):
    """MFP on HRNet in a form that engines run faster.

    Args:
        network: The network in the paper's form.
    """

    def __init__(self, network: MFPHRNet) -> None:
        super().__init__(network)
        self.coarse_size = _quarter(network.config.size)


def deployed_mfp(network: MFPViT | MFPHRNet) -> Deployed:
    """Return the network that rewrites change."""
    return DeployedMFPViT(network) if isinstance(network, MFPViT) else DeployedMFPHRNet(network)


def _quarter(size: tuple[int, int]) -> tuple[int, int]:
    """Return a map's size after two convolutions with stride 2."""
    height, width = size
    return (height + 3) // 4, (width + 3) // 4
