"""Descriptions of files of backbone weights, for errors that say what was found and what was expected."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from torch import Tensor

Names = Collection[str]


def _has(*parts: str) -> Callable[[Names], bool]:
    """Return a check that, for each part, some name begins with it."""
    return lambda names: all(any(name.startswith(part) for name in names) for part in parts)


_FAMILIES: tuple[tuple[str, Callable[[Names], bool]], ...] = (
    ("SAM 2's image encoder (facebookresearch/sam2)", _has("image_encoder.trunk.")),
    ("the trunk of SAM 2's image encoder under timm's names", _has("pos_embed_window", "blocks.")),
    ("SAM (facebookresearch/segment-anything)", _has("image_encoder.blocks.0.attn.rel_pos_h")),
    ("SAM's image encoder alone (facebookresearch/segment-anything)", _has("blocks.0.attn.rel_pos_h")),
    ("I-JEPA's predictor (facebookresearch/ijepa)", _has("predictor_blocks.")),
    ("DINOv2 with registers (facebookresearch/dinov2)", _has("register_tokens")),
    ("a ViT with registers under timm's names", _has("reg_token")),
    ("DINOv2 without registers (facebookresearch/dinov2)", _has("blocks.0.ls1.gamma", "mask_token")),
    ("the ViT of an InterFormer (YouHuang67/InterFormer)", _has("patch_embed.projection.", "layers.0.gamma_1")),
    ("MAE with its decoder (facebookresearch/mae)", _has("cls_token", "decoder_blocks.")),
    ("a plain ViT with class token, such as MAE's (facebookresearch/mae)", _has("cls_token", "blocks.0.attn.qkv.")),
    (
        "a plain ViT without class token, such as I-JEPA's (facebookresearch/ijepa)",
        _has("pos_embed", "blocks.0.attn.qkv."),
    ),
    ("a model converted for transformers", _has("embeddings.")),
    ("a model converted for transformers", _has("encoder.layer.")),
    ("a training checkpoint of DINOv2 (facebookresearch/dinov2)", _has("backbone.", "dino_head.")),
)
"""Kinds of weights, and a check of names that only they have; the first that fits is right."""


def describe_layout(state: Mapping[str, Tensor]) -> str:
    """Describe which release these weights look like, and their size.

    Args:
        state: Weights by their names in a file.

    Returns:
        For example ``DINOv2 with registers (facebookresearch/dinov2), width 768, 12 blocks, patches of 14 x 14``.
    """
    family = next((kind for kind, fits in _FAMILIES if fits(state.keys())), None)
    if family is None:
        family = f"weights of an unknown kind (the first is {min(state)})" if state else "no weights"
    facts = [family]
    embedding = next((t for n, t in state.items() if n.endswith("patch_embed.proj.weight") and t.ndim == 4), None)
    if embedding is not None:
        facts.append(f"width {embedding.shape[0]}")
    numbers = [
        int(match[1])
        for match in (re.match(r"(?:image_encoder\.)?(?:trunk\.)?blocks\.(\d+)\.", n) for n in state)
        if match
    ]
    if numbers:
        facts.append(f"{max(numbers) + 1} blocks")
    if embedding is not None:
        facts.append(f"patches of {embedding.shape[2]} x {embedding.shape[3]}")
    return ", ".join(facts)
