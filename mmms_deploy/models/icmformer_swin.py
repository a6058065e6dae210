"""iCMFormer on a Swin Transformer: three streams run through the first two stages."""

from __future__ import annotations

from torch import Tensor, nn

from mmms_deploy.models.backbone import check_size
from mmms_deploy.models.config import SwinConfig
from mmms_deploy.models.cross_modality import CrossBlock
from mmms_deploy.models.icmformer import ICMFormer
from mmms_deploy.models.icmformer_config import ICMFormerConfig
from mmms_deploy.models.skipclick import MLPHead
from mmms_deploy.models.swin import SwinTransformer

SHARED = 2
"""Stages that all streams run through; the cross-modality blocks work at the stride after them, 16."""
NORM_EPS = 1e-5


class CrossSwin(SwinTransformer):
    """A Swin Transformer with cross-modality blocks between its second and third stage.

    Args:
        size: Network size (H, W) in pixels.
        swin: The Swin Transformer.
        depth: Number of cross-modality blocks.
        heads: Their attention heads.
    """

    def __init__(self, size: tuple[int, int], swin: SwinConfig, depth: int, heads: int) -> None:
        super().__init__(size, swin.width, swin.depths, swin.heads, swin.window, swin.mlp_ratio)
        width = self.widths[SHARED]
        self.blocks2 = nn.ModuleList(CrossBlock(width, heads, swin.mlp_ratio, NORM_EPS) for _ in range(depth))

    def stream(self, x: Tensor) -> Tensor:
        """Run the shared stages: an embedding (B, H/4, W/4, C) -> tokens at stride 16, (B, H/16 * W/16, 4 C)."""
        for number in range(SHARED):
            x = self.merged(number, self.stage(number)(x))
        return x.flatten(1, 2)


class ICMFormerSwin(ICMFormer):
    """The network on a Swin Transformer.

    Three streams start from the same embedding: the image's x, the clicks' y, and their sum z. The two finest maps of
    the head come from z, the two coarser ones from x + y after the cross-modality blocks.

    Args:
        config: The network's description.
        swin: Its Swin Transformer.

    Raises:
        SizeError: The size is not positive.
    """

    backbone: CrossSwin

    def __init__(self, config: ICMFormerConfig, swin: SwinConfig) -> None:
        super().__init__()
        check_size(config.size, None, 1)
        self.config = config
        self.fuser = None
        self.backbone = CrossSwin(config.size, swin, config.cross_blocks, config.cross_heads or 1)
        first, second, third, fourth = self.backbone.widths
        self.head = MLPHead((first, second, third, fourth), config.head_width)
        self.name_features("image_4", "image_16")

    def watched(self) -> list[nn.Module]:
        """All blocks, in the order in which they run."""
        stages = [list(self.backbone.stage(number).blocks) for number in range(len(self.backbone.widths))]
        before = [block for blocks in stages[:SHARED] for block in blocks]
        after = [block for blocks in stages[SHARED:] for block in blocks]
        return [*before, *self.cross_blocks(), *after]

    def encode(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """Run the image stream.

        Args:
            rgb: (B, 3, H, W) float32, normalised.

        Returns:
            The image's embedding (B, ceil(H/4), ceil(W/4), C), and its tokens at stride 16, (B, N, 4 C).
        """
        embedded = self.backbone.patch_embed(rgb)
        return embedded, self.backbone.stream(embedded)

    def coarse_logits(self, features: tuple[Tensor, ...], interaction: Tensor) -> Tensor:
        """Run the click stream; returns logits (B, 1, ceil(H/4), ceil(W/4))."""
        embedded, image, *crossing = features
        swin = self.backbone
        clicks = swin.patch_embed(interaction)
        fine = swin.stage(0)(embedded + clicks)
        maps = [swin.output(0, fine)]
        maps.append(swin.output(1, swin.stage(1)(swin.merged(0, fine))))
        tokens = self.crossed(swin.stream(clicks), crossing)
        x = (image + tokens).reshape(-1, *swin.grids[SHARED], swin.widths[SHARED])
        for number in range(SHARED, len(swin.widths)):
            x = swin.stage(number)(x)
            maps.append(swin.output(number, x))
            x = swin.merged(number, x)
        logits: Tensor = self.head(tuple(maps))
        return logits
