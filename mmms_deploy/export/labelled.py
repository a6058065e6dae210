"""The recurrent form of a network that sees a map of labels, and the choice of a network's form for the export."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from mmms_deploy.bundle import StateLink
from mmms_deploy.bundle.contract import ClickLabel, ClickMemory
from mmms_deploy.bundle.names import LABELS, LABELS_NEXT
from mmms_deploy.export.cut import Cut
from mmms_deploy.export.listed import ListedNetwork
from mmms_deploy.export.network import RecurrentNetwork
from mmms_deploy.export.proposing import ProposingNetwork
from mmms_deploy.models import InteractiveNetwork


class LabelledNetwork(RecurrentNetwork):
    """A network whose state is one map of labels, ``click_labels`` (1, 1, H, W) uint8.

    Between input and output the labels are float32, whole numbers that float32 holds exactly: engines on GPUs take
    uint8 at the border of a graph only.
    """

    links = (StateLink(input=LABELS, output=LABELS_NEXT, start=ClickLabel.UNKNOWN),)

    def start(self) -> dict[str, Tensor]:
        """Return the state before the first click, by name: unknown everywhere."""
        return {LABELS: torch.full((1, 1, *self.network.config.size), int(ClickLabel.UNKNOWN), dtype=torch.uint8)}

    def draw(self, state: Mapping[str, Tensor], click: Tensor, modulated: Tensor | None = None) -> dict[str, Tensor]:
        """Return the labels with one more click in them, (1, 1, H, W) float32, before the network's answer."""
        x, y, positive, present = click.reshape(4, 1, 1, 1).unbind(0)
        squared = (self.get_buffer("columns") - x) ** 2 + (self.get_buffer("rows") - y) ** 2
        reach = torch.where(present > 0.5, self.network.config.clicks.radius**2, -1.0)
        label = torch.where(positive > 0.5, float(ClickLabel.OBJECT), float(ClickLabel.BACKGROUND))
        return {LABELS: torch.where(squared <= reach, label, state[LABELS].float())}

    def sees(self, drawn: Mapping[str, Tensor]) -> Tensor:
        """Return the labels."""
        return drawn[LABELS]

    def outcome(self, drawn: Mapping[str, Tensor], logits: Tensor) -> tuple[Tensor, ...]:
        """Return the next labels (1, 1, H, W) uint8, the probability and the mask; see ``ClickLabel``."""
        prob = torch.sigmoid(logits).to(self.state)
        inside = prob.float() > self.network.config.clicks.threshold
        labels = drawn[LABELS]
        up = torch.clamp(labels + 1, max=float(ClickLabel.LIKELY_OBJECT))
        down = torch.clamp(labels - 1, min=float(ClickLabel.LIKELY_BACKGROUND))
        by_click = (labels < ClickLabel.BACKGROUND + 0.5) | (labels > ClickLabel.OBJECT - 0.5)
        moved = torch.where(by_click, labels, torch.where(inside, up, down))
        return moved.to(torch.uint8), prob, inside.to(torch.uint8)


def recurrent_network(
    network: InteractiveNetwork, cuts: Collection[Cut] = (), state: torch.dtype = torch.float32
) -> RecurrentNetwork:
    """Return a network in the form for an export, as its click contract says.

    Args:
        network: The network, in evaluation mode.
        cuts: Where it is cut, beside the cut where clicks come in.
        state: Element type of the probability, and of disks and a previous mask.

    Raises:
        CutError: The network cannot be cut there.
    """
    clicks = network.config.clicks
    if clicks.answers is not None and clicks.answers.proposals:
        return ProposingNetwork(network, cuts, state)
    kinds = {
        ClickMemory.MAPS: RecurrentNetwork,
        ClickMemory.LABELS: LabelledNetwork,
        ClickMemory.CLICKS: ListedNetwork,
    }
    return kinds[clicks.memory](network, cuts, state)
