"""SimpleClick (Liu et al., ICCV 2023): early fusion, one plain ViT for image and clicks.

Modules have the names that the official checkpoints use. Neck and head are those that SkipClick took over.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mmms_deploy.models.config import RITMConfig, Scales, SimpleClickConfig, ViTConfig
from mmms_deploy.models.network import InteractiveNetwork
from mmms_deploy.models.segformer import as_map
from mmms_deploy.models.skipclick import MLPHead, SkipNeck
from mmms_deploy.models.windowed_vit import PatchEmbedding, WindowedViT


class PatchNetwork(InteractiveNetwork):
    """A network on a plain ViT of which only the patch embedding sees the image alone; all blocks see clicks.

    Attributes:
        feature_names: One feature, the patches with their positions.
    """

    backbone: WindowedViT
    feature_names = ("f_patches",)

    @property
    def patch(self) -> tuple[int, int]:
        """Height and width of a patch."""
        return self.backbone.patch_embed.patch

    def image_layer(self) -> nn.Module | None:
        """The patch embedding of the image."""
        return self.backbone.patch_embed

    def watched(self) -> list[nn.Module]:
        """The ViT's blocks."""
        return list(self.backbone.blocks)

    def encode(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) float32, normalised -> the patches with their positions, (B, H/P * W/P, d)."""
        return (self.backbone.embed(rgb),)

    def mix(
        self, maps: tuple[Tensor, ...], modalities: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """Return what :meth:`encode` did: nothing else depends on the image alone."""
        return maps

    def adapt(self, state: dict[str, Tensor], grid: tuple[int, int] | None) -> dict[str, Tensor]:
        """Bring the position table to this network's grid; see :meth:`WindowedViT.adapt_positions`."""
        table = state.get("backbone.pos_embed")
        return state if table is None else {**state, "backbone.pos_embed": self.backbone.adapt_positions(table, grid)}


class EarlyFusionViT(PatchNetwork):
    """Image and clicks embedded, added, and sent through a plain ViT and a neck; heads differ.

    Args:
        config: The network's description.
        vit: Its ViT.
        neck_widths: Channels of the neck's four maps.

    Raises:
        SizeError: The network size does not fit the patches, the windows or the neck.
        DescriptionError: The ViT's widths do not fit together.
    """

    config: RITMConfig

    def __init__(self, config: RITMConfig, vit: ViTConfig, neck_widths: Scales) -> None:
        super().__init__()
        self.config = config
        self.fuser = None
        self.backbone = WindowedViT(vit, config.size)
        self.patch_embed_coords = PatchEmbedding(len(config.clicks.channels), vit.dim, vit.patch)
        self.neck = SkipNeck(vit.dim, neck_widths)

    def pyramid(self, patches: Tensor, interaction: Tensor) -> tuple[Tensor, ...]:
        """Send patches (B, H/P * W/P, d) and an interaction tensor through the ViT and the neck: four maps."""
        x = self.backbone(patches + self.patch_embed_coords(interaction))
        maps: tuple[Tensor, ...] = self.neck(as_map(x, *self.backbone.grid), ())
        return maps


class SimpleClick(EarlyFusionViT):
    """The network.

    Args:
        config: The network's description.

    Raises:
        SizeError: The network size does not fit the patches, the windows or the neck.
        DescriptionError: The ViT's widths do not fit together.
    """

    config: SimpleClickConfig

    def __init__(self, config: SimpleClickConfig) -> None:
        super().__init__(config, config.vit, config.neck_widths)
        self.head: nn.Module = MLPHead(config.neck_widths, config.head_width)

    def coarse_logits(self, features: tuple[Tensor, ...], interaction: Tensor) -> Tensor:
        """Logits on the head's grid, (B, 1, 4 H/P, 4 W/P)."""
        logits: Tensor = self.head(self.pyramid(features[0], interaction))
        return logits
