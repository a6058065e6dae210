"""The description of an MFP."""

from __future__ import annotations

from typing import Literal

from mmms_deploy.bundle.contract import (
    ClickChannel,
    ClickContract,
    Coordinates,
    Modulation,
    PreviousMask,
    ResizeRule,
    Struct,
)
from mmms_deploy.bundle.protocol import MFP_PROTOCOL, EvaluationProtocol
from mmms_deploy.models.config import RITMConfig, Scales, ViTConfig

MFP_CLICKS = ClickContract(
    channels=(ClickChannel.PREVIOUS, ClickChannel.MODULATED, ClickChannel.POSITIVE, ClickChannel.NEGATIVE),
    previous=PreviousMask.PROBABILITY,
    coordinates=Coordinates.SCALE,
    mask_resize=ResizeRule(align_corners=True),
    previous_resize=ResizeRule(align_corners=True),
    modulation=Modulation(),
    first_pass=True,
)
"""RITM's contract with the previous probability modulated, and a first click that runs the network twice."""


class HRNetConfig(Struct, frozen=True, kw_only=True):
    """An HRNet with OCR as RITM has it (HRNet+OCR, Yuan et al. 2020); the defaults are HRNet-18's.

    Attributes:
        width: Channels of the finest branch; each further one has twice as many.
        ocr_width: Channels of OCR's attention; half of those of the pixels that it reads.
        small: Whether it is the small form, with fewer blocks and modules.
        leaky: Whether the layer after the clicks' first one is a leaky ReLU.
    """

    width: int = 18
    ocr_width: int = 64
    small: bool = False
    leaky: bool = True

    def __post_init__(self) -> None:
        if min(self.width, self.ocr_width) < 1:
            raise ValueError("width and ocr_width must be at least 1")


class MFPConfig(RITMConfig, frozen=True, kw_only=True):
    """An MFP (Lee et al. 2024); the defaults are ViT-B's.

    Attributes:
        family: Always ``mfp``.
        vit: The ViT; the published ViT-B where neither it nor ``hrnet`` is given.
        hrnet: The HRNet in its place.
        neck_widths: With a ViT, channels of the neck's maps at 4, 2, 1 and 1/2 times its grid.
        head_width: With a ViT, channels of the head.
    """

    family: Literal["mfp"] = "mfp"
    vit: ViTConfig | None = None
    hrnet: HRNetConfig | None = None
    neck_widths: Scales = (128, 256, 512, 1024)
    head_width: int = 256
    clicks: ClickContract = MFP_CLICKS
    published: EvaluationProtocol | None = MFP_PROTOCOL

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vit is not None and self.hrnet is not None:
            raise ValueError("an MFP has a vit or an hrnet, not both")
        if min(self.head_width, *self.neck_widths) < 1:
            raise ValueError("head_width and neck_widths must be at least 1")
        if ClickChannel.MODULATED not in self.clicks.channels:
            raise ValueError("an MFP modulates its previous mask; clicks.modulation is missing")
