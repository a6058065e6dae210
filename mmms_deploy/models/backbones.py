"""All kinds of backbones: from the description of FM_RGB to the module."""

from __future__ import annotations

from mmms_deploy.errors import DescriptionError
from mmms_deploy.models.backbone import PYRAMID_STRIDE, Backbone
from mmms_deploy.models.config import BackboneConfig
from mmms_deploy.models.frozen_backbone import FrozenBackbone
from mmms_deploy.models.onnx_backbone import NAME, OnnxBackbone
from mmms_deploy.models.pyramid_backbone import PyramidBackbone, is_pyramid


def build_backbone(config: BackboneConfig, size: tuple[int, int], stride: int = PYRAMID_STRIDE) -> FrozenBackbone:
    """Build FM_RGB, untrained.

    Args:
        config: Its description.
        size: Network size (H, W) in pixels.
        stride: A number that must divide the size, beside the patch size of a ViT.

    Returns:
        A :class:`~mmms_deploy.models.backbone.Backbone` for a ViT, a
        :class:`~mmms_deploy.models.pyramid_backbone.PyramidBackbone`, or an
        :class:`~mmms_deploy.models.onnx_backbone.OnnxBackbone` without its file.

    Raises:
        DescriptionError: The backbone is unknown or does not fit.
        SizeError: The size does not fit.
    """
    if config.name == NAME:
        return OnnxBackbone(config, size)
    if config.onnx is not None:
        raise DescriptionError(
            f"'backbone.onnx' for the backbone {config.name}",
            expected="it with the name 'onnx' only",
            fix="correct 'backbone.name' in the description, or leave out 'backbone.onnx'",
        )
    return PyramidBackbone(config, size) if is_pyramid(config.name) else Backbone(config, size, stride)
