"""What the rest of a network knows of FM_RGB: the names of its weights, and the shapes of its maps."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmms_deploy.models.backbone_names import NameStyle

__all__ = ["FrozenBackbone", "Shape"]

Shape = tuple[int, int, int]
"""Channels, height and width of a map."""


class FrozenBackbone(nn.Module):
    """FM_RGB, a black box: an image goes in, and maps F^(1..4) come out.

    Attributes:
        part: Name of the submodule that holds the weights.
        names: How the release names these weights.
        patch: Height and width, in network pixels, of one entry of the position table.
        strides: Pixels of the backbone's image for one pixel of each map, rising; None for a ViT, whose maps all have
            one size.
    """

    part: str
    names: NameStyle
    patch: tuple[int, int]
    strides: tuple[int, ...] | None = None

    @property
    def model(self) -> Any:
        """The module that holds the weights."""
        return getattr(self, self.part)

    def map_shapes(self) -> tuple[Shape, ...]:
        """Channels, height and width of F^(1..4), finest first."""
        raise NotImplementedError

    def watched(self) -> list[nn.Module]:
        """The modules whose largest activations an export records, in the order in which they run."""
        raise NotImplementedError

    def forward(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) float32, normalised -> F^(1..4), each (B, C, h, w) of its :meth:`map_shapes`."""
        raise NotImplementedError
