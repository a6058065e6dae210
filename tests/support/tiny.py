"""The toy network of the export tests: the full topology, narrow, at 64 x 96."""

from __future__ import annotations

import msgspec

from mmms_deploy.bundle import Bundle, Manifest
from mmms_deploy.bundle.contract import ClickContract, ModalitySpec, to_builtins
from mmms_deploy.models import BackboneConfig, EncoderConfig, FuserConfig, MMMSConfig

ENCODER = EncoderConfig(heads=(1, 2, 2, 2), depths=(1, 1, 1, 1))


def tiny_config(*modalities: ModalitySpec, size: tuple[int, int] = (64, 96), **fields) -> MMMSConfig:
    """A network of 0.2 M parameters; keyword arguments replace fields of its configuration."""
    settings = {
        "size": size,
        "widths": (8, 16, 16, 32),
        "head_width": 16,
        "modalities": modalities,
        "csnet": ENCODER,
        "fuser": FuserConfig(encoder=ENCODER),
        "clicks": ClickContract(),
        "backbone": BackboneConfig(
            name="timm:vit_tiny_patch16_224",
            overrides={"patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2},
        ),
    }
    return MMMSConfig(**(settings | fields))


HIERA = BackboneConfig(
    name="sam2_hiera_t", overrides={"embed_dim": 8, "stages": (1, 2, 2, 1), "global_att_blocks": (4,)}
)
"""SAM 2's encoder, narrow: windows of 8, 4 and 14 tokens, which are padded, and a global block."""
PYRAMIDS = {
    "hiera": HIERA,
    "hiera_neck": BackboneConfig(name="sam2_hiera_t", maps="neck", overrides=HIERA.overrides),
    "timm_sam2": BackboneConfig(name="timm:sam2_hiera_tiny", overrides=HIERA.overrides),
    "convnext": BackboneConfig(name="timm:convnext_atto", overrides={"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}),
    "swin": BackboneConfig(
        name="timm:swin_tiny_patch4_window7_224",
        overrides={"embed_dim": 8, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 2, 4)},
    ),
    "pvt": BackboneConfig(
        name="timm:pvt_v2_b0",
        overrides={"embed_dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 4)},
    ),
    "timm_hiera": BackboneConfig(name="timm:hiera_tiny_224", overrides={"embed_dim": 8, "stages": (1, 1, 2, 1)}),
}
"""Pyramid backbones, narrow, by the kind of network."""

DEPTH = ModalitySpec(name="depth", channels=1, scale=0.1, mean=(0.5,), std=(0.25,))
EVENT = ModalitySpec(name="event", channels=3)


def described(bundle: Bundle, *modalities: ModalitySpec) -> Manifest:
    """A manifest that describes its network, and leaves the normalisation to its graphs."""
    config = tiny_config(*modalities)
    provenance = msgspec.structs.replace(bundle.manifest.provenance, description=to_builtins(config), random_seed=3)
    image = msgspec.structs.replace(config.image, scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    return msgspec.structs.replace(
        bundle.manifest, provenance=provenance, image=image, modalities=modalities, clicks=config.clicks
    )
