"""The reference of a network with proposals, and the choice of a network's reference."""

from __future__ import annotations

import torch

from mmms_deploy.bundle.contract import ClickMemory
from mmms_deploy.export.reference import HAIR, Answer, TorchReference, resized
from mmms_deploy.models.disnet import DISNet, selected
from mmms_deploy.models.disnet_proposals import Proposals, best_proposal, object_scores
from mmms_deploy.models.network import InteractiveNetwork


class ProposalReference(TorchReference):
    """Answers clicks with a torch network that proposes masks for the first click, in the paper's form.

    It goes on from the proposal of the largest score, or from the one that is chosen. Logits are resized to the image's
    size, and not probabilities.

    Args:
        network: The network, in evaluation mode, float32.

    Attributes:
        choice: Which proposal later clicks refine; None before the first click.
        scores: (N,) float32: the proposals' scores.
    """

    network: DISNet

    def reset(self) -> None:
        """Forget the clicks, keep the picture and its features."""
        super().reset()
        self.choice: int | None = None

    @torch.no_grad()
    def click(self, x: float, y: float, positive: bool) -> Answer:
        """Answer a click at image pixel (x, y), after all clicks before it."""
        self._clicks.append((*self.to_network(x, y), positive))
        if self.choice is None:
            self._proposals: Proposals = self.network.propose(self.features[0], self.listed()[:, 0])
            self.scores = object_scores(self._proposals.classes)[0]
            self.choice = int(best_proposal(self._proposals.classes))
        return self._answered(self.choice)

    @torch.no_grad()
    def choose(self, index: int) -> Answer:
        """Take a proposal (from 0) in the place of the best one; return the answer to the clicks so far."""
        self.choice = index
        return self._answered(index)

    def listed(self) -> torch.Tensor:
        """All clicks, (1, K, 4) float32, as the network takes them; no row is empty."""
        return torch.tensor([[(x, y, float(positive), 1.0) for x, y, positive in self._clicks]])

    def _answered(self, choice: int) -> Answer:
        token, logits = selected(self._proposals, torch.tensor([choice]))
        if len(self._clicks) > 1:
            logits = self.network.answer(token, self._proposals.features, torch.sigmoid(logits), self.listed())
        at_image = torch.sigmoid(resized(logits, self.image_size, self.contract.mask_resize))[0, 0]
        return Answer(
            probability=at_image.numpy(),
            mask=(at_image > self.contract.threshold).numpy(),
            certain=((at_image - self.contract.threshold).abs() > HAIR).numpy(),
            network_probability=torch.sigmoid(logits),
            logits=logits,
        )


def reference_for(network: InteractiveNetwork) -> TorchReference:
    """Return what answers clicks with a network in PyTorch, as its click contract says.

    Args:
        network: The network, in evaluation mode, float32.
    """
    listed = network.config.clicks.memory is ClickMemory.CLICKS
    return (ProposalReference if listed else TorchReference)(network)
