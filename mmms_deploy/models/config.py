"""The description of a network, as it stands in a checkpoint's metadata or in a TOML or JSON file beside it."""

from __future__ import annotations

from typing import Literal

import msgspec

from mmms_deploy.contract import ClickContract, ImageSpec, ModalitySpec, Struct

Scales = tuple[int, int, int, int]
"""One value per scale 4, 8, 16, 32."""


class BackboneConfig(Struct, frozen=True, kw_only=True):
    """FM_RGB, the frozen ViT (paper section IV).

    Attributes:
        name: ``dinov2_b14_reg`` (official release names), or ``timm:NAME`` for any timm ViT under timm's names.
        blocks: One-based numbers of the four blocks whose raw outputs are F^(1..4); None takes depth/4 steps
            (3, 6, 9, 12 for a ViT-B).
        overrides: Keyword arguments for ``timm.create_model`` (``embed_dim``, ``depth``, ``num_heads``, ...).
    """

    name: str = "dinov2_b14_reg"
    blocks: Scales | None = None
    overrides: dict[str, int | float | bool | str] = msgspec.field(default_factory=dict)


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


class MMMSConfig(Struct, frozen=True, kw_only=True):
    """An MMMS network and the promises it makes about its inputs and outputs.

    Attributes:
        family: Always ``mmms``.
        size: Network size (H, W) in pixels; divisible by the patch size and by 32.
        widths: C_i, the pyramid's channels at scales 4, 8, 16, 32.
        fpn_hidden: Hidden widths of the ParallelFPN; None takes the paper's rule.
        backbone: FM_RGB.
        modalities: The extra modalities, in the order in which MMFuser adds them.
        fuser: MMFuser; without modalities there is none.
        csnet: CSNet's stages; their widths are the pyramid's.
        head_width: Channels of the all-MLP head.
        image: How the RGB image is prepared.
        clicks: How clicks are shown to the network.
    """

    family: Literal["mmms"] = "mmms"
    size: tuple[int, int] = (448, 448)
    widths: Scales = (64, 128, 320, 512)
    fpn_hidden: Scales | None = None
    backbone: BackboneConfig = BackboneConfig()
    modalities: tuple[ModalitySpec, ...] = ()
    fuser: FuserConfig = FuserConfig()
    csnet: EncoderConfig = EncoderConfig()
    head_width: int = 256
    image: ImageSpec = ImageSpec()
    clicks: ClickContract = ClickContract()

    def __post_init__(self) -> None:
        names = [modality.name for modality in self.modalities]
        if len(set(names)) != len(names):
            raise ValueError(f"modality names must differ, got {names}")
        for encoder in (self.csnet, self.fuser.encoder) if self.modalities else (self.csnet,):
            for width, heads in zip(self.widths, encoder.heads, strict=True):
                if width < 1 or heads < 1 or width % heads:
                    raise ValueError(f"width {width} cannot be split into {heads} attention heads")
