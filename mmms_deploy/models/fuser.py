"""MMFuser: fuses depth, lidar, event, thermal, ... images into the pyramid (paper section IV)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.models.config import FuserConfig, Scales
from mmms_deploy.models.fpn import SCALES
from mmms_deploy.models.segformer import NORM_EPS, EfficientAttention, MixVisionTransformer, as_map, tokens


class MixerMLP(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class CrossBlock(nn.Module):
    """One scale of the fusion.

    q = LN_q(f_img);  h = f_img + sum_m [EffCA_m(q, LN_m(f_mod_m)) + f_mod_m];  f_mix = h + MLP(LN(h)).

    Args:
        dim: C_i.
        scale: Index of the scale, 0..3.
        names: Names of the modalities.
        config: Which parts are on (paper table VII switches them off one by one).
    """

    def __init__(self, dim: int, scale: int, names: Sequence[str], config: FuserConfig) -> None:
        super().__init__()
        self.names = tuple(names)
        self.effca = config.effca
        self.with_mlp = config.mlp
        if config.effca:
            heads, reduction = config.encoder.heads[scale], config.encoder.reductions[scale]
            self.norm_q = nn.LayerNorm(dim, eps=NORM_EPS)
            self.norm_kv = nn.ModuleDict({name: nn.LayerNorm(dim, eps=NORM_EPS) for name in names})
            self.attn = nn.ModuleDict({name: EfficientAttention(dim, heads, reduction) for name in names})
        if config.mlp:
            self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
            self.mlp = MixerMLP(dim, dim * config.encoder.mlp_ratio)

    def forward(
        self, image: Tensor, modalities: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Fuse one scale.

        Args:
            image: f_img^i, (B, C_i, H/i, W/i).
            modalities: f_mod_m^i by name, same shape; the sum goes over those that are given.
            present: By name, a bool tensor of shape (): whether a modality counts; without an entry it does.

        Returns:
            f_mix^i, same shape.
        """
        height, width = image.shape[2:]
        h = tokens(image)
        query = self.norm_q(h) if self.effca else None
        for name in self.names:
            if name not in modalities:
                continue
            term = m = tokens(modalities[name])
            if query is not None:
                term = self.attn[name](query, self.norm_kv[name](m), height, width) + m
            h = torch.where(present[name], h + term, h) if present and name in present else h + term
        if self.with_mlp:
            h = h + self.mlp(self.norm(h))
        return as_map(h, height, width)


class MMFuser(nn.Module):
    """One SegFormer encoder per modality, one CrossBlock per scale.

    Args:
        modalities: The extra modalities, at least one.
        widths: C_i.
        config: Encoder, and which parts of the CrossBlocks are on.
    """

    def __init__(self, modalities: Sequence[ModalitySpec], widths: Scales, config: FuserConfig) -> None:
        super().__init__()
        names = [modality.name for modality in modalities]
        self.names = tuple(names)
        self.optional = frozenset(modality.name for modality in modalities if modality.optional)
        self.encoders = nn.ModuleDict(
            {m.name: MixVisionTransformer(m.channels, widths, config.encoder) for m in modalities}
        )
        for scale, (number, width) in enumerate(zip(SCALES, widths, strict=True)):
            self.add_module(f"cross_{number}", CrossBlock(width, scale, names, config))

    def forward(
        self,
        pyramid: tuple[Tensor, ...],
        modalities: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, ...]:
        """Fuse all scales. Without any modality the pyramid is returned unchanged.

        Args:
            pyramid: f_img, four maps (B, C_i, H/i, W/i).
            modalities: Images by name, (B, C_m, H, W) normalised float32; optional ones may be left out.
            present: By name, a bool tensor of shape (): whether a given modality counts, for a graph that always has
                all inputs; without an entry it does.

        Returns:
            f_mix, four maps of the same shapes.

        Raises:
            KeyError: A modality that is not optional was left out.
        """
        given = [name for name in self.names if name in modalities or name not in self.optional]
        if not given:
            return pyramid
        encoded = {name: self.encoders[name](modalities[name]) for name in given}
        return tuple(
            self.get_submodule(f"cross_{number}")(image, {name: encoded[name][i] for name in given}, present)
            for i, (number, image) in enumerate(zip(SCALES, pyramid, strict=True))
        )
