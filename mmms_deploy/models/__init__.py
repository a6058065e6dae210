"""The networks as the papers draw them, and their checkpoints. Needs the ``[export]`` extra (torch, timm)."""

from mmms_deploy.models.config import (
    BackboneConfig,
    EncoderConfig,
    FuserConfig,
    MMMSConfig,
    NetworkConfig,
    SkipClickConfig,
)
from mmms_deploy.models.mmms import MMMS
from mmms_deploy.models.network import InteractiveNetwork
from mmms_deploy.models.skipclick import SkipClick

__all__ = [
    "MMMS",
    "BackboneConfig",
    "EncoderConfig",
    "FuserConfig",
    "InteractiveNetwork",
    "MMMSConfig",
    "NetworkConfig",
    "SkipClick",
    "SkipClickConfig",
]
