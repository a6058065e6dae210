"""InterFormer (Huang et al., ICCV 2023, arXiv 2304.02942): a ViT once an image, and pooled attention at every click.

Clicks come as a map of labels (:class:`~mmms_deploy.bundle.contract.ClickLabel`), not as disks and a previous mask.
Modules have the names that the official checkpoints use.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mmms_deploy.models.fpn import SCALES
from mmms_deploy.models.interformer_config import InterFormerConfig
from mmms_deploy.models.interformer_neck import Box, Neck
from mmms_deploy.models.interformer_vit import InterFormerBackbone
from mmms_deploy.models.network import InteractiveNetwork
from mmms_deploy.models.uper_head import UPerHead

CLASSES = 2
"""Background and object; the first wins a tie."""


class InterFormer(InteractiveNetwork):
    """The network.

    Args:
        config: The network's description.

    Raises:
        SizeError: The network size is no multiple of 32.
    """

    config: InterFormerConfig
    backbone: InterFormerBackbone
    feature_names = tuple(f"f_{scale}" for scale in SCALES)

    def __init__(self, config: InterFormerConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = InterFormerBackbone(config)
        self.fuser = None
        self.neck = Neck(config)
        self.decode_head = UPerHead(config.widths, config.head_width, CLASSES)

    def mix(
        self, maps: tuple[Tensor, ...], modalities: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """The pyramid on the ViT's map; returns four maps (B, C_i, H/i, W/i), i = 4, 8, 16, 32."""
        pyramid: tuple[Tensor, ...] = self.backbone.vit.fpn(maps[0])
        return pyramid

    def coarse_logits(self, features: tuple[Tensor, ...], interaction: Tensor, box: Box | None = None) -> Tensor:
        """Answer a click on the head's grid.

        Args:
            features: From :meth:`mix`.
            interaction: (B, 1, H, W), the labels, whole numbers in the features' dtype.
            box: As for :meth:`class_logits`.

        Returns:
            (B, 1, H/4, W/4): the object's logit less the background's, so that its sigmoid is softmax's probability of
            the object.
        """
        background, thing = self.class_logits(features, interaction, box).chunk(CLASSES, dim=1)
        return thing - background

    def class_logits(self, features: tuple[Tensor, ...], interaction: Tensor, box: Box | None = None) -> Tensor:
        """Return both classes' logits on the head's grid.

        Args:
            features: From :meth:`mix`.
            interaction: (B, 1, H, W), the labels.
            box: Where the refining blocks work, as in the authors' demo: multiples of 32; None for everywhere.

        Returns:
            (B, 2, H/4, W/4).
        """
        logits: Tensor = self.decode_head(self.neck(features[0], self.neck.keys_of_image(features), interaction, box))
        return logits
