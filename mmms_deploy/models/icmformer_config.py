"""The description of an iCMFormer."""

from __future__ import annotations

from typing import Literal

import msgspec

from mmms_deploy.bundle.protocol import RITM_FAMILY, EvaluationProtocol
from mmms_deploy.models.config import RITMConfig, Scales, SwinConfig, ViTConfig

_PROTOCOL = msgspec.structs.replace(
    RITM_FAMILY, source="evaluation code of iCMFormer (Li et al., WACV 2024), --eval-mode=cvpr"
)
SWIN_CROSS = 8
"""Cross-modality blocks on a Swin, and their attention heads, in the released code; the paper's Swin-B has 4 blocks."""


class ICMFormerConfig(RITMConfig, frozen=True, kw_only=True):
    """An iCMFormer (Li, Vosselman, Yang; WACV 2024); the defaults are ViT-B's.

    Attributes:
        family: Always ``icmformer``.
        vit: The ViT that both streams run through; the published ViT-B where neither it nor ``swin`` is given.
        swin: The Swin Transformer that they run through instead.
        cross_depth: Number of cross-modality blocks; None takes depth/6 + 1 for a ViT, 8 for a Swin.
        cross_heads: Their attention heads; None takes the ViT's, 8 for a Swin.
        neck_widths: With a ViT, channels of the neck's maps at 4, 2, 1 and 1/2 times its grid.
        head_width: Channels of the head.
        published: How the paper's figures were counted; its software does as SimpleClick's.
    """

    family: Literal["icmformer"] = "icmformer"
    vit: ViTConfig | None = None
    swin: SwinConfig | None = None
    cross_depth: int | None = None
    cross_heads: int | None = None
    neck_widths: Scales = (128, 256, 512, 1024)
    head_width: int = 256
    published: EvaluationProtocol | None = _PROTOCOL

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vit is not None and self.swin is not None:
            raise ValueError("an iCMFormer has a vit or a swin, not both")
        depth, heads, width = SWIN_CROSS, SWIN_CROSS, 0
        if self.swin is not None:
            width = 4 * self.swin.width
        else:
            vit = self.vit or ViTConfig()
            msgspec.structs.force_setattr(self, "vit", vit)
            depth, heads, width = vit.depth // 6 + 1, vit.heads, vit.dim
        if self.cross_depth is None:
            msgspec.structs.force_setattr(self, "cross_depth", depth)
        if self.cross_heads is None:
            msgspec.structs.force_setattr(self, "cross_heads", heads)
        if min(self.cross_blocks, self.head_width, *self.neck_widths) < 1 or (self.cross_heads or 0) < 1:
            raise ValueError("cross_depth, cross_heads, neck_widths and head_width must be at least 1")
        if width % (self.cross_heads or 1):
            raise ValueError(f"width {width} cannot be split into {self.cross_heads} attention heads")

    @property
    def cross_blocks(self) -> int:
        """Number of cross-modality blocks, resolved."""
        return self.cross_depth or 0
