"""The iCMFormer that a description names."""

from __future__ import annotations

from mmms_deploy.models.config import ViTConfig
from mmms_deploy.models.icmformer import ICMFormer
from mmms_deploy.models.icmformer_config import ICMFormerConfig
from mmms_deploy.models.icmformer_swin import ICMFormerSwin
from mmms_deploy.models.icmformer_vit import ICMFormerViT


def build_icmformer(config: ICMFormerConfig) -> ICMFormer:
    """Build an iCMFormer, untrained.

    Args:
        config: Its description.

    Raises:
        SizeError: The network size does not fit.
        DescriptionError: The ViT's widths do not fit together.
    """
    if config.swin is not None:
        return ICMFormerSwin(config, config.swin)
    return ICMFormerViT(config, config.vit or ViTConfig())
