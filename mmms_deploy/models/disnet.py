"""DISNet: proposals for the ambiguous first click, and a light refinement for every later one, reconstructed.

"Interactive Segmentation by Considering First-Click Intentional Ambiguity" (MM 2024) has no public code and no public
weights, and its manuscript lacks the supplement. This network is our reading of the manuscript, and its choices where
the manuscript says nothing are numbered (:mod:`mmms_deploy.models.disnet_config`). Nothing shows that the authors'
network is equal to it, and its weights have names of ours.

Structure that is chosen here: the image and the first click's disk have patch embeddings of their own, which are added,
as in PiClick (U2; the manuscript: RGB "combined with" the map); the neck is PiClick's, which is SimpleClick's (U3); the
selected mask stays at F's grid (U11).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmms_deploy.models.disnet_config import DISNetConfig
from mmms_deploy.models.disnet_pixels import PixelDecoder
from mmms_deploy.models.disnet_proposals import ProposalDecoder, Proposals, best_proposal
from mmms_deploy.models.disnet_refinement import Refinement
from mmms_deploy.models.masked_attention import mask_logits
from mmms_deploy.models.pixel_decoder import resized
from mmms_deploy.models.segformer import as_map
from mmms_deploy.models.simpleclick import PatchNetwork
from mmms_deploy.models.skipclick import SkipNeck
from mmms_deploy.models.windowed_vit import PatchEmbedding, WindowedViT


class DISNet(PatchNetwork):
    """The network, at three rates.

    :meth:`encode` runs once an image. :meth:`propose` runs at the first click. One of its proposals is chosen, by the
    user or by :func:`~mmms_deploy.models.disnet_proposals.best_proposal`; the chosen mask is the answer to the first
    click. :meth:`answer` answers every later click; it takes what was chosen and all clicks, and no previous mask.

    :meth:`respond` runs the last two in one go.

    Args:
        config: The network's description.

    Raises:
        SizeError: The network size does not fit the patches, the windows or the neck.
        DescriptionError: The ViT's widths do not fit together.
    """

    config: DISNetConfig
    in_float32 = ("rows", "columns")
    rows: Tensor
    columns: Tensor

    def __init__(self, config: DISNetConfig) -> None:
        super().__init__()
        self.config = config
        self.fuser = None
        vit, dim = config.vit, config.width
        self.backbone = WindowedViT(vit, config.size)
        self.patch_embed_first = PatchEmbedding(1, vit.dim, vit.patch)
        self.neck = SkipNeck(vit.dim, config.neck_widths, config.neck_hidden)
        height, width = self.backbone.grid
        grids = ((height // 2, width // 2), (height, width), (2 * height, 2 * width))
        self.grid = (4 * height, 4 * width)
        self.pixel_decoder = PixelDecoder(dim, config.neck_widths, grids, config.pixel_decoder)
        self.proposal = ProposalDecoder(dim, grids, config.proposals)
        self.refine = Refinement(dim, config.size, self.grid, config.refinement)
        for name, length in zip(("rows", "columns"), config.size, strict=True):
            self.register_buffer(name, torch.arange(length, dtype=torch.float32), persistent=False)

    def disk(self, click: Tensor) -> Tensor:
        """Draw the first click.

        Args:
            click: (B, C) float32, C at least 2: x and y in network pixels, not rounded.

        Returns:
            (B, 1, H, W): 1 where the squared distance is at most the squared radius, else 0.
        """
        across = self.columns - click[:, 0, None, None].float()
        down = self.rows[:, None] - click[:, 1, None, None].float()
        inside = across * across + down * down <= self.config.disk_radius**2
        return inside[:, None].to(click.dtype)

    def propose(self, patches: Tensor, click: Tensor) -> Proposals:
        """Propose masks for the first click.

        Args:
            patches: From :meth:`encode`, (B, H/P * W/P, d).
            click: As for :meth:`disk`; taken for a positive one.
        """
        disk = self.disk(click).to(patches.dtype)
        x = self.backbone(patches + self.patch_embed_first(disk))
        features, levels = self.pixel_decoder(self.neck(as_map(x, *self.backbone.grid), ()))
        proposals: Proposals = self.proposal(features, levels)
        return proposals

    def decision_margin(self, patches: Tensor, click: Tensor) -> float:
        """Return how safe the decisions are on which places a proposal's query sees.

        A query looks where its own mask's logits are above 0, layer after layer. Where one of them is nearly 0, sums in
        another order may decide otherwise.

        Args:
            patches: From :meth:`encode`, of one picture.
            click: As for :meth:`disk`.

        Returns:
            The smallest absolute logit that decides, over the largest one.
        """
        embeddings: list[Tensor] = []
        handle = self.proposal.mask_embed.register_forward_hook(lambda *call: embeddings.append(call[2]))
        try:
            features = self.propose(patches, click).features
        finally:
            handle.remove()
        grids = self.proposal.grids
        seen = [
            resized(mask_logits(embedding, features), grids[layer % len(grids)]).abs()
            for layer, embedding in enumerate(embeddings[:-1])
        ]
        return min(float(x.min()) for x in seen) / max(float(x.max()) for x in seen)

    def answer(self, token: Tensor, features: Tensor, mask: Tensor, clicks: Tensor) -> Tensor:
        """Answer a click after the first.

        Keys, values and scores of the refinement's first attention, and the mask's logarithm, depend on ``token``,
        ``features`` and ``mask`` alone.

        Args:
            token: Q_s of the selected proposal, (B, d).
            features: F, (B, d, H/4, W/4), or the same with all places in one axis, rows first.
            mask: M_s, the selected proposal's probabilities, (B, 1, H/4, W/4) float32.
            clicks: (B, K, 4) float32, K at least 2, oldest first: x, y in network pixels; 1 positive or 0 negative; 1
                for a click or 0 for none. The first one is positive. Rows that hold none change nothing.

        Returns:
            Logits (B, 1, H/4, W/4).
        """
        logits: Tensor = self.refine(token, features, mask, clicks)
        return logits

    def coarse_logits(self, features: tuple[Tensor, ...], interaction: Tensor) -> Tensor:
        """Answer from scratch, with the best proposal.

        Args:
            features: From :meth:`mix`.
            interaction: (B, K, 4), the clicks as for :meth:`answer`, of any K.

        Returns:
            Logits (B, 1, H/4, W/4): the selected proposal's where there is one click, else the refined ones.
        """
        proposals = self.propose(features[0], interaction[:, 0])
        token, logits = selected(proposals, best_proposal(proposals.classes))
        if interaction.shape[1] < 2:
            return logits
        refined = self.answer(token, proposals.features, logits.sigmoid(), interaction)
        return torch.where((interaction[:, 1:, 3] > 0.5).any(1)[:, None, None, None], refined, logits)


def selected(proposals: Proposals, index: Tensor) -> tuple[Tensor, Tensor]:
    """Take one proposal of each.

    Args:
        proposals: From :meth:`DISNet.propose`.
        index: (B,) int64, from 0 to N - 1.

    Returns:
        Q_s (B, d), and its logits (B, 1, H/4, W/4); M_s is their sigmoid.
    """
    token = proposals.tokens.gather(1, index[:, None, None].expand(-1, 1, proposals.tokens.shape[2]))[:, 0]
    logits = proposals.masks.gather(1, index[:, None, None, None].expand(-1, 1, *proposals.masks.shape[2:]))
    return token, logits
