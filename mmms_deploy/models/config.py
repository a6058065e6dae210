"""The description of a network, as in a checkpoint's metadata or in a TOML or JSON file beside it."""

from __future__ import annotations

from typing import Literal

import msgspec

from mmms_deploy.bundle.contract import (
    ClickChannel,
    ClickContract,
    Coordinates,
    ImageSpec,
    ModalitySpec,
    PreviousMask,
    ResizeRule,
    Struct,
)
from mmms_deploy.bundle.protocol import RITM_FAMILY, SKIPCLICK_PROTOCOL, EvaluationProtocol

Scales = tuple[int, int, int, int]
"""One value per scale 4, 8, 16, 32."""


Override = int | float | bool | str | tuple[int, ...]
"""An argument for ``timm.create_model``."""


class EncoderOutput(Struct, frozen=True, kw_only=True):
    """An output of an encoder in an ONNX file.

    Attributes:
        name: The output's name.
        stride: Pixels of the encoder's image for one pixel of the map: 4, 8, 16 or 32.
        channels: Channels of the map.
    """

    name: str
    stride: int
    channels: int


class OnnxEncoder(Struct, frozen=True, kw_only=True):
    """An encoder in an ONNX file: what goes in, and what comes out.

    Attributes:
        size: Height and width of its image, in pixels.
        outputs: The outputs that are maps; one for each stride. Others are left out.
        input: Name of its image; None for its only input.
    """

    size: tuple[int, int]
    outputs: tuple[EncoderOutput, ...]
    input: str | None = None

    def __post_init__(self) -> None:
        strides = [output.stride for output in self.outputs]
        if not strides or len(set(strides)) != len(strides) or not set(strides) <= {4, 8, 16, 32}:
            raise ValueError(f"outputs must have different strides of 4, 8, 16, 32, got {strides}")
        if any(length <= 0 or length % max(strides) for length in self.size):
            raise ValueError(f"size must be positive multiples of {max(strides)}, got {list(self.size)}")
        if min(output.channels for output in self.outputs) < 1:
            raise ValueError("channels must be at least 1")


class BackboneConfig(Struct, frozen=True, kw_only=True):
    """FM_RGB, the frozen backbone (paper section IV).

    Attributes:
        name: A release by name (docs/backbones.md: ``dinov2_b14_reg``, ``mae_b16``, ``sam_b16``, ``ijepa_h16``,
            ``sam2_hiera_t``, ...), ``timm:NAME`` for any ViT and any pyramid of timm under timm's names, or ``onnx``.
        blocks: One-based numbers of a ViT's four blocks whose raw outputs are F^(1..4); None takes depth/4 steps
            (3, 6, 9, 12 for a ViT-B).
        maps: Which maps of SAM 2's encoder are F^(1..4): those of its trunk's ``stages``, or those that its ``neck``
            gives to the mask decoder. Other pyramids have ``stages`` only.
        overrides: Keyword arguments for ``timm.create_model`` (``embed_dim``, ``depth``, ``num_heads``, ...).
        onnx: The encoder of the name ``onnx``.
    """

    name: str = "dinov2_b14_reg"
    blocks: Scales | None = None
    maps: Literal["stages", "neck"] = "stages"
    overrides: dict[str, Override] = msgspec.field(default_factory=dict)
    onnx: OnnxEncoder | None = None


class AdapterConfig(Struct, frozen=True, kw_only=True):
    """What turns the backbone's maps into the pyramid of widths C_i.

    Attributes:
        kind: ``parallel_fpn``, the paper's ParallelFPN, for a ViT; ``top_down``, a feature pyramid network, for a
            backbone that is a pyramid itself. None takes the one that fits.
        width: Channels inside of the ``top_down`` adapter.
    """

    kind: Literal["parallel_fpn", "top_down"] | None = None
    width: int = 128

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")


class EncoderConfig(Struct, frozen=True, kw_only=True):
    """A SegFormer encoder (SegFormer, Xie et al. 2021, table 6); widths come from the pyramid.

    The defaults are MiT-B1's.
    """

    depths: Scales = (2, 2, 2, 2)
    heads: Scales = (1, 2, 5, 8)
    reductions: Scales = (8, 4, 2, 1)
    mlp_ratio: int = 4


class FuserConfig(Struct, frozen=True, kw_only=True):
    """MMFuser (paper section IV and its ablation, table VII).

    Attributes:
        encoder: The encoder that each modality gets a copy of.
        effca: Whether the CrossBlocks attend to the modalities.
        mlp: Whether the CrossBlocks end with an MLP.
    """

    encoder: EncoderConfig = EncoderConfig()
    effca: bool = True
    mlp: bool = True


MOST_BLOCKS = 1000
"""Blocks of a transformer's stage; a file that asks for more is damaged, or crafted."""


class SwinConfig(Struct, frozen=True, kw_only=True):
    """A Swin Transformer of four stages (Liu et al. 2021); the defaults are Swin-B's at 384 x 384.

    Attributes:
        width: Channels of the first stage; every further stage has twice as many.
        depths: Blocks of each stage.
        heads: Attention heads of each stage.
        window: Side of a window, in positions.
        mlp_ratio: Width of the MLPs over their input's.
    """

    width: int = 128
    depths: Scales = (2, 2, 18, 2)
    heads: Scales = (4, 8, 16, 32)
    window: int = 12
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        if min(self.width, self.window, self.mlp_ratio, *self.depths, *self.heads) < 1:
            raise ValueError("width, depths, heads, window and mlp_ratio of a Swin must be at least 1")
        if max(self.depths) > MOST_BLOCKS:
            raise ValueError(f"depths of a Swin must be at most {MOST_BLOCKS}, got {max(self.depths)}")
        for stage, heads in enumerate(self.heads):
            if (self.width << stage) % heads:
                raise ValueError(f"width {self.width << stage} of a Swin cannot be split into {heads} attention heads")


class NetworkConfig(Struct, frozen=True, kw_only=True):
    """The part of a description that all families of networks share: inputs and clicks.

    Attributes:
        family: The family of networks; each has a class of its own.
        size: Network size (H, W) in pixels; divisible by the patch size.
        modalities: The extra modalities, in the order in which MMFuser adds them.
        image: How the RGB image is prepared.
        clicks: How clicks and the previous mask become the network's input.
        logits_resize: How the head's logits are enlarged to the network's size, before the sigmoid.
        published: How the figures of the family's paper were counted; None where it is not known.
    """

    family: str
    size: tuple[int, int] = (448, 448)
    modalities: tuple[ModalitySpec, ...] = ()
    image: ImageSpec = ImageSpec()
    clicks: ClickContract = ClickContract()
    logits_resize: ResizeRule = ResizeRule()
    published: EvaluationProtocol | None = None

    def __post_init__(self) -> None:
        if self.logits_resize.antialias:
            raise ValueError("logits_resize enlarges logits; antialias has no meaning there")
        names = [modality.name for modality in self.modalities]
        if len(set(names)) != len(names):
            raise ValueError(f"modality names must differ, got {names}")


class LateFusionConfig(NetworkConfig, frozen=True, kw_only=True):
    """What the families of late-fusion networks share besides: a frozen backbone, which sees the image alone.

    Attributes:
        backbone: FM_RGB.
    """

    backbone: BackboneConfig = BackboneConfig()


def backbone_name(config: NetworkConfig) -> str:
    """Return the name of a network's frozen backbone, or what it has in its place."""
    return config.backbone.name if isinstance(config, LateFusionConfig) else f"a {config.family} network's own"


RITM_IMAGE = ImageSpec(resize=ResizeRule(align_corners=True))
"""How RITM's code, and what is built on it, prepares an image."""
RITM_CLICKS = ClickContract(
    channels=(ClickChannel.PREVIOUS, ClickChannel.POSITIVE, ClickChannel.NEGATIVE),
    previous=PreviousMask.PROBABILITY,
    coordinates=Coordinates.SCALE,
    mask_resize=ResizeRule(align_corners=True),
    previous_resize=ResizeRule(align_corners=True),
)
"""The same for clicks and the previous mask."""


class MMMSConfig(LateFusionConfig, frozen=True, kw_only=True):
    """An MMMS network; its size is divisible by 32 as well.

    Attributes:
        family: Always ``mmms``.
        widths: C_i, the pyramid's channels at scales 4, 8, 16, 32.
        adapter: What turns the backbone's maps into the pyramid.
        fpn_hidden: Hidden widths of the ParallelFPN; None takes the paper's rule.
        fuser: MMFuser; unused without modalities.
        csnet: CSNet's stages; their widths are the pyramid's.
        head_width: Channels of the all-MLP head.
    """

    family: Literal["mmms"] = "mmms"
    widths: Scales = (64, 128, 320, 512)
    adapter: AdapterConfig = AdapterConfig()
    fpn_hidden: Scales | None = None
    fuser: FuserConfig = FuserConfig()
    csnet: EncoderConfig = EncoderConfig()
    head_width: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        for encoder in (self.csnet, self.fuser.encoder) if self.modalities else (self.csnet,):
            for width, heads in zip(self.widths, encoder.heads, strict=True):
                if width < 1 or heads < 1 or width % heads:
                    raise ValueError(f"width {width} cannot be split into {heads} attention heads")


class SkipClickConfig(LateFusionConfig, frozen=True, kw_only=True):
    """A SkipClick network (Schön et al. 2025); the defaults are the published one's, as its own software runs it.

    Its size is divisible by twice the patch size; with modalities by 32 as well.

    Attributes:
        family: Always ``skipclick``.
        levels: Numbers 1..4 of the maps F^(1..4) that the mixing blocks read: all of them, fused by a linear, or a
            single one unchanged. The published one-feature networks use ``(1,)``.
        skips: Whether the neck reads F^(1..4), too.
        mix_depth: How many blocks mix image and clicks.
        mix_heads: Attention heads of these blocks.
        mix_mlp_ratio: Width of these blocks' MLP over the backbone's width.
        neck_widths: Channels of the neck's maps at 4, 2, 1 and 1/2 times the backbone's grid.
        head_width: Channels of the head.
        widths: C_i, the channels of the pyramid in which modalities are fused; unused without modalities.
        fpn_hidden: Hidden widths of ParallelFPN and its inverse; None takes the paper's rule.
        fuser: MMFuser; unused without modalities.
    """

    family: Literal["skipclick"] = "skipclick"
    levels: tuple[int, ...] = (1, 2, 3, 4)
    skips: bool = True
    mix_depth: int = 4
    mix_heads: int = 12
    mix_mlp_ratio: int = 4
    neck_widths: Scales = (128, 256, 512, 1024)
    head_width: int = 256
    widths: Scales = (64, 128, 320, 512)
    fpn_hidden: Scales | None = None
    fuser: FuserConfig = FuserConfig()
    image: ImageSpec = RITM_IMAGE
    clicks: ClickContract = RITM_CLICKS
    logits_resize: ResizeRule = ResizeRule(align_corners=True)
    published: EvaluationProtocol | None = SKIPCLICK_PROTOCOL

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels != (1, 2, 3, 4) and (len(self.levels) != 1 or self.levels[0] not in {1, 2, 3, 4}):
            raise ValueError(f"levels must be [1, 2, 3, 4] or one of them, got {list(self.levels)}")
        least = min(self.mix_depth, self.mix_heads, self.mix_mlp_ratio, self.head_width, *self.neck_widths)
        if least < 1:
            raise ValueError("mix_depth, mix_heads, mix_mlp_ratio, head_width and neck_widths must be at least 1")


class ViTConfig(Struct, frozen=True, kw_only=True):
    """A plain ViT that clicks go through; the defaults are ViT-B's.

    Attributes:
        patch: Height and width of a patch.
        dim: d.
        depth: Number of blocks; every sixth of 12, or every fourth part of them, attends to all tokens.
        heads: Attention heads.
        mlp_ratio: Width of the MLPs over d.
    """

    patch: tuple[int, int] = (16, 16)
    dim: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        if min(*self.patch, self.dim, self.heads) < 1 or not self.mlp_ratio > 0:
            raise ValueError("patch, dim, heads and mlp_ratio must be positive")
        if not 4 <= self.depth <= MOST_BLOCKS:
            raise ValueError(f"depth must be from 4 to {MOST_BLOCKS}, got {self.depth}")


class RITMConfig(NetworkConfig, frozen=True, kw_only=True):
    """What the networks share that are built on RITM's code and see the clicks from their first layers on.

    They take no modalities.
    """

    image: ImageSpec = RITM_IMAGE
    clicks: ClickContract = RITM_CLICKS
    logits_resize: ResizeRule = ResizeRule(align_corners=True)
    published: EvaluationProtocol | None = RITM_FAMILY

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.modalities:
            raise ValueError(f"a network of the family {self.family} takes RGB alone, and no modalities")


class SimpleClickConfig(RITMConfig, frozen=True, kw_only=True):
    """A SimpleClick (Liu et al. 2023); the defaults are ViT-B's.

    Attributes:
        family: Always ``simpleclick``.
        vit: The ViT.
        neck_widths: Channels of the neck's maps at 4, 2, 1 and 1/2 times the ViT's grid.
        head_width: Channels of the head.
    """

    family: Literal["simpleclick"] = "simpleclick"
    vit: ViTConfig = ViTConfig()
    neck_widths: Scales = (128, 256, 512, 1024)
    head_width: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.head_width, *self.neck_widths) < 1:
            raise ValueError("head_width and neck_widths must be at least 1")
