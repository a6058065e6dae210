"""The toy network of the export tests: the full topology, narrow, at 64 x 96."""

from __future__ import annotations

from mmms_deploy.bundle.contract import ClickContract, ModalitySpec
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


DEPTH = ModalitySpec(name="depth", channels=1, scale=0.1, mean=(0.5,), std=(0.25,))
EVENT = ModalitySpec(name="event", channels=3)
