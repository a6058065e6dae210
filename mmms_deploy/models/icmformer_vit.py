"""iCMFormer on a plain ViT: two streams run through its first half."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mmms_deploy.models.config import ViTConfig
from mmms_deploy.models.cross_modality import CrossBlock
from mmms_deploy.models.icmformer import ICMFormer
from mmms_deploy.models.icmformer_config import ICMFormerConfig
from mmms_deploy.models.segformer import as_map
from mmms_deploy.models.skipclick import MLPHead, SkipNeck
from mmms_deploy.models.windowed_vit import NORM_EPS, PatchEmbedding, WindowedViT


class CrossViT(WindowedViT):
    """SimpleClick's ViT with cross-modality blocks in its middle, which work in its windows.

    Args:
        config: The ViT.
        size: Network size (H, W) in pixels.
        depth: Number of cross-modality blocks.
        heads: Their attention heads.

    Attributes:
        shared: Number of the last block that both streams run through, counted from 1.
    """

    def __init__(self, config: ViTConfig, size: tuple[int, int], depth: int, heads: int) -> None:
        super().__init__(config, size)
        self.shared = config.depth // 2
        self.blocks2 = nn.ModuleList(CrossBlock(config.dim, heads, config.mlp_ratio, NORM_EPS) for _ in range(depth))


class ICMFormerViT(ICMFormer):
    """The network on a plain ViT.

    Args:
        config: The network's description.
        vit: Its ViT.

    Raises:
        SizeError: The size does not fit the patches, the windows or the neck.
        DescriptionError: The ViT's widths do not fit together.
    """

    backbone: CrossViT

    def __init__(self, config: ICMFormerConfig, vit: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.fuser = None
        self.backbone = CrossViT(vit, config.size, config.cross_blocks, config.cross_heads or 1)
        self.patch_embed_coords = PatchEmbedding(3, vit.dim, vit.patch)
        self.neck = SkipNeck(vit.dim, config.neck_widths)
        self.head = MLPHead(config.neck_widths, config.head_width)
        self.name_features("image_16")

    @property
    def patch(self) -> tuple[int, int]:
        """Height and width of a patch."""
        return (self.config.vit or ViTConfig()).patch

    def image_layer(self) -> nn.Module | None:
        """The patch embedding of the image."""
        return self.backbone.patch_embed

    def watched(self) -> list[nn.Module]:
        """All blocks, in the order in which they run."""
        blocks = list(self.backbone.blocks)
        return [*blocks[: self.backbone.shared], *self.cross_blocks(), *blocks[self.backbone.shared :]]

    def encode(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """Run the image stream: (B, 3, H, W) float32, normalised -> its tokens (B, H/P * W/P, d), rows first."""
        return (self.backbone(self.backbone.embed(rgb), last=self.backbone.shared),)

    def grouped(self, number: int, x: Tensor) -> Tensor:
        """Bring tokens (B, N, d) into windows, (B * windows, N', d), for a block that does not attend to all tokens."""
        return x if self.backbone.attends_to_all(number) else self.backbone.into_windows(x)

    def crossed(self, clicks: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Run the clicks' tokens through the cross-modality blocks; they stay in windows while the blocks do."""
        vit, windowed = self.backbone, False
        blocks = zip(self.cross_blocks(), features[::2], features[1::2], strict=True)
        for number, (block, keys, values) in enumerate(blocks, start=1):
            wanted = not vit.attends_to_all(number)
            if wanted is not windowed:
                clicks = vit.into_windows(clicks) if wanted else vit.out_of_windows(clicks)
                windowed = wanted
            clicks = block(clicks, keys, values)
        return vit.out_of_windows(clicks) if windowed else clicks

    def coarse_logits(self, features: tuple[Tensor, ...], interaction: Tensor) -> Tensor:
        """Run the click stream; returns logits (B, 1, 4 H/P, 4 W/P)."""
        image, *crossing = features
        vit = self.backbone
        clicks = vit(vit.with_positions(self.patch_embed_coords(interaction)), last=vit.shared)
        x = vit(image + self.crossed(clicks, crossing), first=vit.shared + 1)
        logits: Tensor = self.head(self.neck(as_map(x, *vit.grid), ()))
        return logits

    def adapt(self, state: dict[str, Tensor], grid: tuple[int, int] | None) -> dict[str, Tensor]:
        """Bring the position table to this network's grid."""
        table = state.get("backbone.pos_embed")
        return state if table is None else {**state, "backbone.pos_embed": self.backbone.adapt_positions(table, grid)}
