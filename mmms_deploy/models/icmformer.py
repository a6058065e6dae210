"""iCMFormer (Li, Vosselman, Yang; WACV 2024): an image stream and a click stream that meet in cross-modality blocks.

Both streams run through the same weights. Everything of the image stream, the keys and values of the cross-modality
blocks among it, depends on the image alone and is computed once an image; see
:mod:`mmms_deploy.models.cross_modality`. Modules have the names of the official checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mmms_deploy.models.cross_modality import CrossBlock
from mmms_deploy.models.icmformer_config import ICMFormerConfig
from mmms_deploy.models.network import InteractiveNetwork


class ICMFormer(InteractiveNetwork):
    """What both kinds of the network share: the image's part, and the way from logits to the answer.

    Attributes:
        backbone: The weights of both streams; its ``blocks2`` are the cross-modality blocks.
        head: SimpleClick's all-MLP head.
    """

    config: ICMFormerConfig
    head: nn.Module

    def cross_blocks(self) -> list[CrossBlock]:
        """The cross-modality blocks, in order."""
        return [block for block in self.backbone.get_submodule("blocks2").children() if isinstance(block, CrossBlock)]

    def name_features(self, *streams: str) -> None:
        """Name what :meth:`mix` returns: the image stream's results, and every block's keys and values."""
        numbers = range(1, len(self.cross_blocks()) + 1)
        self.feature_names = (*streams, *(name for n in numbers for name in (f"keys_{n}", f"values_{n}")))

    def grouped(self, number: int, x: Tensor) -> Tensor:
        """Bring tokens (B, N, d), rows first, into the order in which a cross-modality block works.

        Args:
            number: The block, counted from 1.
            x: The tokens.

        Returns:
            (B', N', d): the same tokens; B' counts windows where the block works in windows.
        """
        return x

    def mix(
        self, maps: tuple[Tensor, ...], modalities: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """Add the keys (B', heads, d / heads, N') and values (B', heads, N', d / heads) of every cross-modality block.

        B' counts windows where the blocks work in windows.
        """
        pairs = [block.keys_values(self.grouped(n, maps[-1])) for n, block in enumerate(self.cross_blocks(), start=1)]
        return (*maps, *(tensor for pair in pairs for tensor in pair))

    def crossed(self, clicks: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Run the clicks' tokens through the cross-modality blocks.

        Args:
            clicks: The tokens, (B, N, d), rows first.
            features: Keys and values of every block in turn, as :meth:`mix` returns them at its end.

        Returns:
            (B, N, d), rows first.
        """
        for block, keys, values in zip(self.cross_blocks(), features[::2], features[1::2], strict=True):
            clicks = block(clicks, keys, values)
        return clicks
