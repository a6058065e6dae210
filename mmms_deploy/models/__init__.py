"""The networks as the papers draw them, and their checkpoints. Needs the ``[export]`` extra (torch, timm)."""

from mmms_deploy.models.config import BackboneConfig, EncoderConfig, FuserConfig, MMMSConfig
from mmms_deploy.models.mmms import MMMS

__all__ = ["MMMS", "BackboneConfig", "EncoderConfig", "FuserConfig", "MMMSConfig"]
