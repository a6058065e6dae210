"""The families of networks, by the name that a description gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mmms_deploy.models.config import MMMSConfig, NetworkConfig, SimpleClickConfig, SkipClickConfig, ViTConfig
from mmms_deploy.models.disnet import DISNet
from mmms_deploy.models.disnet_config import DISNetConfig
from mmms_deploy.models.dynamite import DynaMITe
from mmms_deploy.models.dynamite_config import DynaMITeConfig
from mmms_deploy.models.icmformer_build import build_icmformer
from mmms_deploy.models.icmformer_config import ICMFormerConfig
from mmms_deploy.models.interformer import InterFormer
from mmms_deploy.models.interformer_config import InterFormerConfig
from mmms_deploy.models.mfp import MFPViT
from mmms_deploy.models.mfp_config import MFPConfig
from mmms_deploy.models.mfp_hrnet import MFPHRNet
from mmms_deploy.models.mmms import MMMS
from mmms_deploy.models.network import InteractiveNetwork
from mmms_deploy.models.simpleclick import SimpleClick
from mmms_deploy.models.skipclick import SkipClick


@dataclass(frozen=True)
class Family:
    """A family of networks.

    Attributes:
        config: The class of its descriptions.
        network: Builds an untrained network from one.
    """

    config: type[NetworkConfig]
    network: Callable[[Any], InteractiveNetwork]


def _mfp(config: MFPConfig) -> InteractiveNetwork:
    return MFPViT(config, config.vit or ViTConfig()) if config.hrnet is None else MFPHRNet(config, config.hrnet)


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "mmms": Family(MMMSConfig, MMMS),
        "skipclick": Family(SkipClickConfig, SkipClick),
        "simpleclick": Family(SimpleClickConfig, SimpleClick),
        "icmformer": Family(ICMFormerConfig, build_icmformer),
        "interformer": Family(InterFormerConfig, InterFormer),
        "mfp": Family(MFPConfig, _mfp),
        "disnet": Family(DISNetConfig, DISNet),
        "dynamite": Family(DynaMITeConfig, DynaMITe),
    }
)
"""All families that become bundles; a description that names none is of the first."""


def build_network(config: NetworkConfig) -> InteractiveNetwork:
    """Build a network, untrained.

    Args:
        config: Its description.

    Raises:
        SizeError: The network size does not fit.
        DescriptionError: The backbone is unknown or does not fit.
    """
    return FAMILIES[config.family].network(config)
