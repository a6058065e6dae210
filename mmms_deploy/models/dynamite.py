"""DynaMITe (Rana et al., ICCV 2023, arXiv 2304.06668): clicks are queries, and all objects are answered at once.

The network sees no disks and no previous mask. Its whole memory is the list of clicks, each with its object and its
running number. Modules have the names that the official checkpoints use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.models.backbone import check_size
from mmms_deploy.models.dynamite_config import DynaMITeConfig
from mmms_deploy.models.dynamite_transformer import LEVELS, InteractiveTransformer
from mmms_deploy.models.masked_attention import wide
from mmms_deploy.models.network import InteractiveNetwork
from mmms_deploy.models.pixel_decoder import PixelDecoder
from mmms_deploy.models.segformer import MixVisionTransformer, tokens
from mmms_deploy.models.swin import SwinTransformer

STRIDES = (4, 8, 16, 32)
CLICK_FIELDS = 5
"""A click: x, y, running number, object, present."""
MOST_OBJECTS = 255
"""A label is one byte, and 0 is the background."""


class Labelled(NamedTuple):
    """An answer for all objects.

    Attributes:
        labels: (B, 1, H, W) uint8: 0 background, i object i.
        objects: (B, O, H, W), each object's logit: the maximum over its clicks; -inf of one without a click.
        background: (B, 1, H, W), the maximum over background clicks and learned background queries.
    """

    labels: Tensor
    objects: Tensor
    background: Tensor


class SegmentationHead(nn.Module):
    """Everything after the backbone.

    Args:
        config: The network's description.
        padded: Height and width of the filled-up picture, multiples of 32.
    """

    def __init__(self, config: DynaMITeConfig, padded: tuple[int, int]) -> None:
        super().__init__()
        grids = [(padded[0] // stride, padded[1] // stride) for stride in STRIDES]
        self.pixel_decoder = PixelDecoder(
            config.widths,
            grids,
            config.width,
            depth=config.pixel_depth,
            hidden=config.pixel_hidden,
            heads=config.heads,
            points=config.points,
            refine=True,
        )
        self.interactive_transformer = InteractiveTransformer(config, grids)


class DynaMITe(InteractiveNetwork):
    """The network.

    The interaction of :meth:`respond` is a list of clicks, (B, Q, 5) float32: x and y in network pixels, the running
    number t (0 for the first click on the image), the object (0 background, from 1 on objects), 1 for a click or 0 for
    none. The order of the rows does not matter, and rows without a click change nothing.

    Args:
        config: The network's description.

    Attributes:
        padded: Height and width of the filled-up picture.

    Raises:
        SizeError: The size is not positive.
    """

    config: DynaMITeConfig

    def __init__(self, config: DynaMITeConfig) -> None:
        super().__init__()
        check_size(config.size, None, 1)
        self.config = config
        self.fuser = None
        self.padded = config.padded
        if config.mit is not None:
            self.backbone = MixVisionTransformer(3, config.mit.widths, config.mit)
        else:
            swin = config.swin
            self.backbone = SwinTransformer(
                self.padded, swin.width, swin.depths, swin.heads, swin.window, swin.mlp_ratio
            )
        self.sem_seg_head = SegmentationHead(config, self.padded)
        levels = [f"level_{stride}" for stride in STRIDES[:0:-1]]
        pairs = [f"{kind}_{n}" for n in range(1, config.query_depth + 1) for kind in ("keys", "values")]
        self.feature_names = ("pixels", "pixel_tokens", *levels, "pixel_queries", *pairs)

    def fold(self, most: int | None = None) -> None:
        """Let pixels attend to queries in the folded form; see :meth:`InteractiveTransformer.fold`."""
        self.sem_seg_head.interactive_transformer.fold(most)

    def watched(self) -> list[nn.Module]:
        """The backbone's blocks."""
        stages: Any = self.backbone
        if self.config.mit is not None:
            return [block for number in range(1, 5) for block in stages.get_submodule(f"block{number}")]
        return [block for layer in stages.layers for block in layer.blocks]

    def encode(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """Run the backbone.

        Args:
            rgb: (B, 3, H, W) float32, normalised.

        Returns:
            Maps (B, C_i, H'/i, W'/i), i = 4, 8, 16, 32, of the filled-up picture.
        """
        below, beside = (whole - side for whole, side in zip(self.padded, self.config.size, strict=True))
        maps: tuple[Tensor, ...] = self.backbone(F.pad(rgb, (0, beside, 0, below)))
        return maps

    def mix(
        self, maps: tuple[Tensor, ...], modalities: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """Run the pixel decoder, and compute keys and values for the queries of clicks.

        Args:
            maps: From :meth:`encode`.
            modalities: None of them.
            present: Nothing.

        Returns:
            The pixel embeddings as the masks of queries read them (B, d, H'/4 * W'/4), and as tokens
            (B, H'/4 * W'/4, d); three maps (B, d, H'/i, W'/i), i = 32, 16, 8, at least float32; and what
            :meth:`InteractiveTransformer.of_image` returns.
        """
        pixels, levels = self.sem_seg_head.pixel_decoder(maps)
        of_image = self.sem_seg_head.interactive_transformer.of_image(pixels, levels)
        # The maps are sampled at places that are at least float32, and so must they be.
        return (pixels.flatten(2), tokens(pixels), *map(wide, levels), *of_image)

    def coarse_logits(self, features: tuple[Tensor, ...], interaction: Tensor) -> Tensor:
        """Answer a list of clicks on the pixels' grid.

        Args:
            features: From :meth:`mix`.
            interaction: (B, Q, 5), the clicks.

        Returns:
            (B, Q + learned, H'/4, W'/4): logits of every click, then of every learned background query. Those of rows
            without a click mean nothing.
        """
        pixels, levels, of_image = features[:2], features[2 : 2 + LEVELS], features[2 + LEVELS :]
        clicks = torch.where(interaction[..., 4:] > 0.5, interaction, 0.0)
        logits: Tensor = self.sem_seg_head.interactive_transformer(*pixels, levels, of_image, clicks, self.padded)
        return logits

    def enlarge_logits(self, logits: Tensor) -> Tensor:
        """Bring logits (B, n, H'/4, W'/4) to the filled-up size, and cut them to the network's, (B, n, H, W)."""
        corners = self.config.logits_resize.align_corners
        whole = F.interpolate(logits, size=self.padded, mode="bilinear", align_corners=corners)
        return whole[..., : self.config.size[0], : self.config.size[1]]

    def label(self, logits: Tensor, clicks: Tensor, objects: int) -> Labelled:
        """Decide between all objects and the background.

        A tie between objects is the first one's, and a tie of an object with the background is the object's, as in the
        official code.

        Args:
            logits: (B, Q + learned, H, W), from :meth:`respond`.
            clicks: (B, Q, 5), the clicks.
            objects: O, the number of objects, 1 to 255. Clicks on other objects are left out of the decision.

        Raises:
            ValueError: That number is impossible.
        """
        if not 1 <= objects <= MOST_OBJECTS:
            raise ValueError(f"objects must be from 1 to {MOST_OBJECTS}, got {objects}")
        learned = self.config.background_queries
        owner = F.pad(torch.where(clicks[..., 4] > 0.5, clicks[..., 3], -1.0), (0, learned))[..., None, None]
        # Background first; padding made it the owner of the learned queries.
        every = [torch.where(owner == number, logits, -torch.inf).amax(dim=1) for number in range(objects + 1)]
        found, background = torch.stack(every[1:], dim=1), every[0].unsqueeze(1)
        best, number = found.max(dim=1, keepdim=True)
        labels = torch.where(best >= background, number + 1, 0).to(torch.uint8)
        return Labelled(labels, found, background)
