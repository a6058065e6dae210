"""MMMS, the whole network in the paper's form (arXiv 2509.12963, section IV)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mmms_deploy.models.adapter import build_adapter
from mmms_deploy.models.backbones import build_backbone
from mmms_deploy.models.config import EncoderConfig, MMMSConfig, Scales
from mmms_deploy.models.fpn import SCALES
from mmms_deploy.models.frozen_backbone import FrozenBackbone
from mmms_deploy.models.fuser import MMFuser
from mmms_deploy.models.network import InteractiveNetwork
from mmms_deploy.models.segformer import OverlapPatchEmbed, SegFormerHead, build_stage, run_stage


class MSPatchEmbed(nn.Module):
    """Embeds the interaction tensor at every scale: one convolution each, kernel = stride = scale.

    Args:
        widths: C_i.
    """

    def __init__(self, widths: Scales) -> None:
        super().__init__()
        for scale, width in zip(SCALES, widths, strict=True):
            self.add_module(f"proj_{scale}", nn.Conv2d(3, width, scale, scale))

    def forward(self, interaction: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> f_int, four maps (B, C_i, H/i, W/i)."""
        return tuple(self.get_submodule(f"proj_{scale}")(interaction) for scale in SCALES)


class CSNet(nn.Module):
    """SegFormer stages on the sum of both pyramids, then the all-MLP head.

    Stage 1 has no patch embedding of its own; ``patch_embed2..4`` are the paper's down1..3.

    Args:
        widths: C_i, also the stages' widths.
        config: Depths, heads, reductions.
        head_width: Channels inside the head.
    """

    def __init__(self, widths: Scales, config: EncoderConfig, head_width: int) -> None:
        super().__init__()
        for number, width in enumerate(widths, start=1):
            if number > 1:
                self.add_module(f"patch_embed{number}", OverlapPatchEmbed(widths[number - 2], width, 3, 2))
            build_stage(self, number, width, config)
        self.decode_head = SegFormerHead(widths, head_width)

    def forward(self, mixed: tuple[Tensor, ...], interaction: tuple[Tensor, ...]) -> Tensor:
        """f_mix and f_int, four maps (B, C_i, H/i, W/i) each -> logits (B, 1, H/4, W/4)."""
        outputs: list[Tensor] = []
        for number, (mix, inter) in enumerate(zip(mixed, interaction, strict=True), start=1):
            x = mix + inter
            if number > 1:
                x = x + self.get_submodule(f"patch_embed{number}")(outputs[-1])
            outputs.append(run_stage(self, number, x))
        logits: Tensor = self.decode_head(tuple(outputs))
        return logits


class MMMS(InteractiveNetwork):
    """The network: call :meth:`features` once an image and :meth:`respond` at every click.

    Args:
        config: The network's description.

    Raises:
        SizeError: The network size does not fit the patches or the pyramid.
        DescriptionError: The backbone is unknown or does not fit.
    """

    config: MMMSConfig
    backbone: FrozenBackbone
    feature_names = tuple(f"f_mix_{scale}" for scale in SCALES)

    def __init__(self, config: MMMSConfig) -> None:
        super().__init__()
        self.backbone = build_backbone(config.backbone, config.size)
        self.config, self.fpn = build_adapter(config, self.backbone)
        self.fuser = MMFuser(config.modalities, config.widths, config.fuser) if config.modalities else None
        self.patch_embed = MSPatchEmbed(config.widths)
        self.csnet = CSNet(config.widths, config.csnet, config.head_width)

    def mix(
        self, maps: tuple[Tensor, ...], modalities: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """The adapter (ParallelFPN) and MMFuser; returns f_mix, four maps (B, C_i, H/i, W/i), i = 4, 8, 16, 32."""
        pyramid: tuple[Tensor, ...] = self.fpn(maps)
        return pyramid if self.fuser is None else self.fuser(pyramid, modalities, present)

    def coarse_logits(self, features: tuple[Tensor, ...], interaction: Tensor) -> Tensor:
        """MSPatchEmbed and CSNet; returns logits (B, 1, H/4, W/4)."""
        logits: Tensor = self.csnet(features, self.patch_embed(interaction))
        return logits
