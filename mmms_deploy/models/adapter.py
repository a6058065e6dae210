"""The adapter: what turns the backbone's maps into the pyramid; the description names it."""

from __future__ import annotations

import msgspec
from torch import nn

from mmms_deploy.errors import DescriptionError
from mmms_deploy.models.backbone import Backbone
from mmms_deploy.models.config import MMMSConfig
from mmms_deploy.models.fpn import ParallelFPN
from mmms_deploy.models.frozen_backbone import FrozenBackbone
from mmms_deploy.models.top_down_fpn import TopDownFPN


def build_adapter(config: MMMSConfig, backbone: FrozenBackbone) -> tuple[MMMSConfig, nn.Module]:
    """Build the adapter that a description names, untrained.

    Args:
        config: The network's description.
        backbone: Its backbone.

    Returns:
        The description, which names the adapter where it is not the paper's, and the adapter. It takes the backbone's
        maps and returns four maps (B, C_i, H/i, W/i), i = 4, 8, 16, 32.

    Raises:
        DescriptionError: The adapter is for another kind of backbone.
    """
    kind = config.adapter.kind
    if isinstance(backbone, Backbone):
        if kind == "top_down":
            raise _unfit(config, "'parallel_fpn', because the maps of a plain ViT all have one size")
        return config, ParallelFPN(backbone.dim, config.widths, config.fpn_hidden, config.size)
    if kind == "parallel_fpn":
        raise _unfit(config, "'top_down', because the backbone's maps are a pyramid already")
    channels = [shape[0] for shape in backbone.map_shapes()]
    adapter = TopDownFPN(channels, backbone.strides or (), config.widths, config.adapter.width, config.size)
    named = msgspec.structs.replace(config.adapter, kind="top_down")
    return msgspec.structs.replace(config, adapter=named), adapter


def _unfit(config: MMMSConfig, expected: str) -> DescriptionError:
    return DescriptionError(
        f"adapter {config.adapter.kind!r} for the backbone {config.backbone.name}",
        expected=expected,
        fix="correct 'adapter.kind' in the description, or leave it out",
    )
