"""FM_RGB as an ONNX file: an encoder from elsewhere, of which only its inputs and outputs are described."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.documents import document
from mmms_deploy.errors import DescriptionError
from mmms_deploy.models.backbone import check_size
from mmms_deploy.models.backbone_names import NameStyle
from mmms_deploy.models.config import BackboneConfig
from mmms_deploy.models.frozen_backbone import FrozenBackbone, Shape

NAME = "onnx"
"""``backbone.name`` of an encoder in an ONNX file."""


class OnnxBackbone(FrozenBackbone):
    """FM_RGB, an encoder in an ONNX file; F^(1..k) are its described outputs, finest first.

    It has no weights here, and takes an image of its own size: the network's is resized to it (bilinear, corners not
    aligned, not antialiased). The maps stay as the encoder gives them; the adapter brings them to the network's grids.

    Args:
        config: Its description.
        size: Network size (H, W) in pixels, multiples of 32.

    Attributes:
        run: Takes the encoder's image (1, 3, h, w) and returns its maps; None where no file was given. Then the maps
            are made of the picture's mean colours, which serves to compare what follows them.

    Raises:
        DescriptionError: It is not described.
        SizeError: The size is no multiple of 32.
    """

    part = "stand_in"
    patch = (4, 4)

    def __init__(self, config: BackboneConfig, size: tuple[int, int]) -> None:
        super().__init__()
        check_size(size, None)
        if config.onnx is None or config.blocks is not None or config.overrides or config.maps != "stages":
            raise DescriptionError(
                "backbone 'onnx' " + ("without its description" if config.onnx is None else "with fields of timm's"),
                expected="'backbone.onnx' with size and outputs, and no 'blocks', 'maps' or 'overrides'",
                fix=f"describe the encoder as {document('backbones')} says",
            )
        self.names = NameStyle(unread=re.compile(".*"))
        self.described = config.onnx
        self.outputs = tuple(sorted(config.onnx.outputs, key=lambda output: output.stride))
        self.strides = tuple(output.stride for output in self.outputs)
        self.stand_in = nn.Module()
        self.run: Callable[[Tensor], tuple[Tensor, ...]] | None = None

    def map_shapes(self) -> tuple[Shape, ...]:
        """Channels, height and width of the encoder's maps, finest first."""
        height, width = self.described.size
        return tuple((out.channels, height // out.stride, width // out.stride) for out in self.outputs)

    def watched(self) -> list[nn.Module]:
        """Nothing: it is a black box."""
        return []

    def forward(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """(1, 3, H, W) -> F^(1..k), finest first."""
        image = rgb.float()
        if tuple(image.shape[2:]) != self.described.size:
            image = F.interpolate(image, size=self.described.size, mode="bilinear", align_corners=False)
        if self.run is not None:
            return self.run(image)
        return tuple(_colours(image, shape) for shape in self.map_shapes())


def _colours(image: Tensor, shape: Shape) -> Tensor:
    """Mean colours at a map's size, mixed to its channels by numbers that never change."""
    mixing = torch.sin(torch.arange(1.0, 3 * shape[0] + 1)).reshape(shape[0], 3, 1, 1)
    return F.conv2d(F.adaptive_avg_pool2d(image, shape[1:]), mixing)
