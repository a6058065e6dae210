"""The description of an InterFormer network (Huang et al., ICCV 2023)."""

from __future__ import annotations

from typing import Literal

from mmms_deploy.bundle.contract import ClickContract, ClickMemory, ImageSpec
from mmms_deploy.models.config import NetworkConfig, Scales

PATCH = 16
"""Side of the ViT's patches, in pixels."""


class InterFormerConfig(NetworkConfig, frozen=True, kw_only=True):
    """An InterFormer network; the defaults are the published InterFormer-Light's. Its size is divisible by 32.

    The published software runs pictures at their own size. A bundle has one size, to which they are brought.

    Attributes:
        family: Always ``interformer``.
        trained_size: Side of the square pictures that it was trained on, in pixels. The tables of positions have the
            grid of this size, and how far maps of keys are pooled follows from it at every size.
        dim: Width of the ViT.
        depth: Its blocks.
        heads: Its attention heads.
        widths: C_i, channels of the maps at scales 4, 8, 16, 32.
        depths: Blocks of the click part at every scale, which also feed the next scale.
        refine_depths: Blocks at every scale that only refine its own output.
        neck_heads: Attention heads of these blocks at every scale.
        mlp_ratios: Width of their MLP over C_i at every scale.
        head_width: Channels of the head.
    """

    family: Literal["interformer"] = "interformer"
    size: tuple[int, int] = (512, 512)
    trained_size: int = 512
    dim: int = 768
    depth: int = 12
    heads: int = 12
    widths: Scales = (32, 64, 128, 256)
    depths: Scales = (1, 1, 2, 1)
    refine_depths: Scales = (0, 0, 0, 0)
    neck_heads: Scales = (1, 2, 4, 8)
    mlp_ratios: Scales = (8, 8, 4, 4)
    head_width: int = 64
    image: ImageSpec = ImageSpec(scale=1.0, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    clicks: ClickContract = ClickContract(memory=ClickMemory.LABELS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.modalities:
            raise ValueError("an InterFormer takes RGB alone; leave out modalities")
        if self.clicks.memory is not ClickMemory.LABELS:
            raise ValueError("an InterFormer sees a map of labels; clicks.memory must be 'labels'")
        if self.trained_size < PATCH or self.trained_size % PATCH:
            raise ValueError(f"trained_size must be a positive multiple of {PATCH}, got {self.trained_size}")
        least = min(self.dim, self.depth, self.heads, self.head_width, *self.depths, *self.mlp_ratios, *self.widths)
        if least < 1 or min(self.refine_depths) < 0:
            raise ValueError("widths, depths, heads and ratios must be at least 1, refine_depths at least 0")
        for width, heads in ((self.dim, self.heads), *zip(self.widths, self.neck_heads, strict=True)):
            if heads < 1 or width % heads:
                raise ValueError(f"width {width} cannot be split into {heads} attention heads")
