"""The networks as the papers draw them, and their checkpoints. Needs the ``[export]`` extra.

In reading order:

- ``network``: the base class of all networks: encode, mix, respond
- ``mmms``, ``skipclick``: late-fusion networks
- ``simpleclick``, ``mfp``, ``mfp_hrnet``: networks that see clicks from their first layers on, of ``windowed_vit`` and
  ``hrnet``
- ``interformer``: labels in the place of clicks, of ``interformer_config``, ``interformer_vit``, ``interformer_neck``,
  ``uper_head`` and ``adaptive_pool``
- ``frozen_backbone``, ``backbones``: what a network knows of its backbone, and all kinds of them: ``backbone`` (a plain
  ViT), ``pyramid_backbone`` with ``hiera`` (SAM 2's), ``onnx_backbone``
- ``adapter``: ``fpn`` for a ViT, ``top_down_fpn`` for a pyramid; ``inverse_fpn``, ``fuser``, ``segformer``: other parts
- ``icmformer``, with ``icmformer_vit``, ``icmformer_swin``, ``cross_modality`` and ``swin``: a family whose image and
  clicks run through the same weights; ``icmformer_config``, ``icmformer_build``: from a description to it
- ``dynamite``, with ``dynamite_config`` and ``dynamite_transformer``: clicks are queries, for all objects at once; of
  Mask2Former's parts in ``deformable_attention``, ``sine_position``, ``pixel_decoder`` and ``masked_attention``
- ``disnet``: proposals for the first click, and a light answer to later ones, of ``disnet_config``, ``disnet_pixels``,
  ``disnet_proposals`` and ``disnet_refinement``; ``disnet_checkpoint``, ``disnet_reader``: from a file to it
- ``config``, ``description``, ``families``: from a description in TOML or JSON to a network
- ``checkpoint``, ``backbone_checkpoint``: reads, checks and writes checkpoints
- ``official``: which software saved a file; ``ritm_checkpoint``: official files of RITM's family, by ``ritm_params``,
  ``vit_checkpoint``, ``mfp_checkpoint`` and ``icmformer_checkpoint``
- ``resemblance``: which family's weights a file resembles
- ``checkpoint_kinds``, ``checkpoint_contents``, ``weight_types``: what a file is, which weights it holds, of which type
- ``torch_files``, ``passive_pickle``: files of ``torch.save``, read without executing anything
- ``ort_file``: weights in ONNX Runtime's own format
- ``backbone_names``, ``release_layout``, ``skipclick_checkpoint``, ``interformer_checkpoint``,
  ``dynamite_checkpoint``: weights as other software names and stores them

The names below load on first use, so that importing the package loads no torch.
"""

from typing import TYPE_CHECKING

from mmms_deploy.lazy import lazy_names

if TYPE_CHECKING:
    from mmms_deploy.models.backbone_checkpoint import load_backbone
    from mmms_deploy.models.checkpoint import save_checkpoint
    from mmms_deploy.models.config import (
        AdapterConfig,
        BackboneConfig,
        EncoderConfig,
        FuserConfig,
        MMMSConfig,
        NetworkConfig,
        SimpleClickConfig,
        SkipClickConfig,
        ViTConfig,
    )
    from mmms_deploy.models.disnet import DISNet
    from mmms_deploy.models.disnet_config import DISNetConfig
    from mmms_deploy.models.disnet_reader import load_disnet
    from mmms_deploy.models.interformer import InterFormer
    from mmms_deploy.models.interformer_config import InterFormerConfig
    from mmms_deploy.models.mfp_config import HRNetConfig, MFPConfig
    from mmms_deploy.models.mmms import MMMS
    from mmms_deploy.models.network import InteractiveNetwork
    from mmms_deploy.models.simpleclick import SimpleClick
    from mmms_deploy.models.skipclick import SkipClick

__all__ = [
    "MMMS",
    "AdapterConfig",
    "BackboneConfig",
    "DISNet",
    "DISNetConfig",
    "EncoderConfig",
    "FuserConfig",
    "HRNetConfig",
    "InterFormer",
    "InterFormerConfig",
    "InteractiveNetwork",
    "MFPConfig",
    "MMMSConfig",
    "NetworkConfig",
    "SimpleClick",
    "SimpleClickConfig",
    "SkipClick",
    "SkipClickConfig",
    "ViTConfig",
    "load_backbone",
    "load_disnet",
    "save_checkpoint",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "MMMS": "mmms",
        "AdapterConfig": "config",
        "BackboneConfig": "config",
        "DISNet": "disnet",
        "DISNetConfig": "disnet_config",
        "EncoderConfig": "config",
        "FuserConfig": "config",
        "InterFormer": "interformer",
        "InterFormerConfig": "interformer_config",
        "InteractiveNetwork": "network",
        "HRNetConfig": "mfp_config",
        "MFPConfig": "mfp_config",
        "MMMSConfig": "config",
        "NetworkConfig": "config",
        "SimpleClick": "simpleclick",
        "SimpleClickConfig": "config",
        "SkipClick": "skipclick",
        "SkipClickConfig": "config",
        "ViTConfig": "config",
        "load_backbone": "backbone_checkpoint",
        "load_disnet": "disnet_reader",
        "save_checkpoint": "checkpoint",
    },
)
