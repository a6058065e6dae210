"""InterFormer in a form that engines run faster, and the rewrites for InterFormer alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmms_deploy.bundle.contract import ClickLabel
from mmms_deploy.export.rewrites.deployed import Deployed, pointwise_of
from mmms_deploy.models.fpn import SCALES
from mmms_deploy.models.interformer import InterFormer
from mmms_deploy.models.interformer_neck import Box


class DeployedInterFormer(Deployed, InterFormer):
    """InterFormer in a form that engines run faster.

    Args:
        network: The network in the paper's form.

    Attributes:
        keys_once: Whether the features are the pyramid's finest map and the keys of every scale's first block, in the
            place of the whole pyramid.
    """

    def __init__(self, network: InterFormer) -> None:
        super().__init__(network)
        self.keys_once = False
        height, width = network.config.size
        self.coarse_size = (height // 4, width // 4)

    def mix(
        self, maps: tuple[Tensor, ...], modalities: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """Everything between the backbone and the clicks; returns the features for :meth:`respond`."""
        pyramid = super().mix(maps, modalities, present)
        if not self.keys_once:
            return pyramid
        return (pyramid[0], *(tensor for pair in self.neck.keys_of_image(pyramid) for tensor in pair))

    def class_logits(self, features: tuple[Tensor, ...], interaction: Tensor, box: Box | None = None) -> Tensor:
        """Both classes' logits (B, 2, H/4, W/4)."""
        if not self.keys_once:
            return super().class_logits(features, interaction, box)
        read = tuple(zip(features[1::2], features[2::2], strict=True))
        logits: Tensor = self.decode_head(self.neck(features[0], read, interaction, box))
        return logits


def keys_once(network: DeployedInterFormer) -> bool:
    """Compute the keys and values of every scale's first block once an image.

    They come from the pyramid alone: norms, pooling, depthwise convolutions and the projection of keys and values. No
    other part of the click stage reads the pyramid's coarser maps, so they do not cross the boundary any more.
    """
    network.keys_once = True
    network.feature_names = (
        network.feature_names[0],
        *(f"{kind}_{scale}" for scale in SCALES for kind in ("keys", "values")),
    )
    return True


class LabelPlanes(nn.Module):
    """The labels' embedding from five maps at a quarter of the size.

    The paper looks every pixel's label up, and reduces the result to a quarter by bilinear interpolation without
    antialiasing, which is the mean of the four pixels at rows and columns 4 i + 1 and 4 i + 2. The lookup is linear in
    the one-hot form of the labels, so it commutes with the mean: at a quarter of the size, each of five maps says which
    part of the four pixels has its label, and a 1x1 convolution with the table joins them.

    Args:
        table: (5, C), what the network sees of each label.
    """

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.join = pointwise_of(table.detach().T, None)

    def forward(self, labels: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, C, H/4, W/4)."""
        four = torch.cat([labels[:, :, row::4, column::4] for row in (1, 2) for column in (1, 2)], dim=1)
        planes = [(four == float(label)).to(labels.dtype).mean(dim=1, keepdim=True) for label in ClickLabel]
        seen: Tensor = self.join(torch.cat(planes, dim=1))
        return seen


def label_planes(network: DeployedInterFormer) -> bool:
    """Embed the labels at a quarter of the size; see :class:`LabelPlanes`."""
    network.neck.embedding = LabelPlanes(network.neck.patch_embed)
    return True
