"""Names of the weights of SAM 2's image encoder, as its release and timm have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

TRUNK = "image_encoder.trunk."
"""What the release's names of the trunk's weights begin with."""


def released_names(state: Mapping[str, T]) -> dict[str, T]:
    """Bring timm's names of a trunk to the release's; weights that have the release's names already stay as they are.

    Args:
        state: Weights, or anything else, by name.
    """
    if "pos_embed_window" not in state:
        return dict(state)
    return {name if name.startswith("head.") else TRUNK + released_mlp(name): value for name, value in state.items()}


def released_mlp(name: str) -> str:
    """Return the release's name for a weight of timm's; the layers of an MLP are called otherwise."""
    return name.replace(".mlp.fc1.", ".mlp.layers.0.").replace(".mlp.fc2.", ".mlp.layers.1.")
