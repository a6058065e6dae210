"""The description of a DynaMITe (Rana et al., ICCV 2023)."""

from __future__ import annotations

from typing import Literal

import msgspec

from mmms_deploy.bundle.contract import (
    MOST_OBJECTS,
    AnswerForm,
    AnswerSpec,
    ClickContract,
    ClickList,
    ClickMemory,
    Coordinates,
    ImageSpec,
)
from mmms_deploy.models.config import EncoderConfig, NetworkConfig, Scales, SwinConfig

SWIN_T = SwinConfig(width=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), window=7)
PADDING = 32
"""Height and width of a picture are filled up to multiples of it."""
STRIDE = 4
"""Pixels of the picture between two of the logits."""
WIDTH_STEP = 32
"""Widths are multiples of it: the groups of the group norms."""


class MiTConfig(EncoderConfig, frozen=True, kw_only=True):
    """A whole SegFormer encoder; the defaults are MiT-B0's.

    Attributes:
        widths: Channels of its maps of strides 4, 8, 16 and 32.
    """

    widths: Scales = (32, 64, 160, 256)

    def __post_init__(self) -> None:
        least = min(self.mlp_ratio, *self.widths, *self.depths, *self.heads, *self.reductions)
        if least < 1:
            raise ValueError("widths, depths, heads, reductions and mlp_ratio of a MiT must be at least 1")
        for width, heads in zip(self.widths, self.heads, strict=True):
            if width % heads:
                raise ValueError(f"width {width} of a MiT cannot be split into {heads} attention heads")


class DynaMITeConfig(NetworkConfig, frozen=True, kw_only=True):
    """A DynaMITe; the defaults are those of the published networks, on Swin-T.

    Inside, a picture is filled up with zeros at the right and at the bottom to a multiple of 32.

    Attributes:
        family: Always ``dynamite``.
        swin: The Swin Transformer.
        mit: The SegFormer encoder that takes its place; None for the Swin.
        width: d, channels of everything after the backbone; a multiple of 32.
        heads: Attention heads of everything after the backbone.
        points: Sampled points of each head in each level of the pixel decoder.
        pixel_depth: Deformable layers of the pixel decoder.
        pixel_hidden: Width of their MLPs.
        query_depth: Layers in which the queries attend to the image and to each other.
        query_hidden: Width of their MLPs.
        mask_depth: Layers in which the pixels attend to the queries.
        mask_hidden: Width of their MLPs.
        background_queries: Learned queries for the background, beside those of clicks.
        clicks: How clicks are listed. What it says of the answer follows from the rest: logits of every row at a
            quarter of the filled-up size, and ``background_queries`` learned rows.
    """

    family: Literal["dynamite"] = "dynamite"
    swin: SwinConfig = SWIN_T
    mit: MiTConfig | None = None
    width: int = 256
    heads: int = 8
    points: int = 4
    pixel_depth: int = 6
    pixel_hidden: int = 1024
    query_depth: int = 9
    query_hidden: int = 2048
    mask_depth: int = 5
    mask_hidden: int = 512
    background_queries: int = 9
    image: ImageSpec = ImageSpec(scale=1.0, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    clicks: ClickContract = ClickContract(
        memory=ClickMemory.CLICKS, listed=ClickList(objects=MOST_OBJECTS), coordinates=Coordinates.SCALE
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.modalities:
            raise ValueError("a DynaMITe takes RGB alone; leave out modalities")
        depths = (self.pixel_depth, self.query_depth, self.mask_depth)
        hidden = (self.pixel_hidden, self.query_hidden, self.mask_hidden)
        if min(self.width, self.heads, self.points, self.background_queries, *depths, *hidden) < 1:
            raise ValueError("widths, depths, heads, points and background_queries must be at least 1")
        if self.width % WIDTH_STEP:
            raise ValueError(f"width must be a multiple of {WIDTH_STEP}, got {self.width}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be split into {self.heads} attention heads")
        if self.clicks.listed is None or self.clicks.listed.objects == 1:
            raise ValueError(
                "a DynaMITe takes the clicks on all objects at every click; clicks.memory must be 'clicks', with"
                " clicks.listed, whose objects is more than 1"
            )
        listed = msgspec.structs.replace(self.clicks.listed, learned=self.background_queries)
        height, width = self.padded
        answers = AnswerSpec(form=AnswerForm.LOGITS, size=(max(1, height // STRIDE), max(1, width // STRIDE)))
        clicks = msgspec.structs.replace(self.clicks, listed=listed, answers=answers)
        msgspec.structs.force_setattr(self, "clicks", clicks)

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width of the filled-up picture."""
        height, width = self.size
        return height + -height % PADDING, width + -width % PADDING

    @property
    def widths(self) -> Scales:
        """Channels of the backbone's maps of strides 4, 8, 16 and 32."""
        if self.mit is not None:
            return self.mit.widths
        first = self.swin.width
        return first, 2 * first, 4 * first, 8 * first
