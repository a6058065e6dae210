"""The form for an export of a network that answers the first click with proposals, and later ones from a list."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import torch
from torch import Tensor

from mmms_deploy.bundle import Rate, Role
from mmms_deploy.bundle.names import CANDIDATES, CHOICE, CLICK_LIST, FIRST_CLICK, LOGITS, RGB, SCORES
from mmms_deploy.errors import CutError
from mmms_deploy.export.cut import Cut
from mmms_deploy.export.listed import ClickPart, ListedNetwork
from mmms_deploy.models import InteractiveNetwork
from mmms_deploy.models.disnet_proposals import Proposals, object_scores

TOKENS, PIXELS = "f_tokens", "f_pixels"
"""Features of the first click: Q, the proposals' tokens (1, N, d), and F (1, d, h*w), rows first."""
_READ = (CANDIDATES, TOKENS, PIXELS)
"""What the click stage reads of the first click's."""


class Proposing(Protocol):
    """What a network with proposals adds to an :class:`~mmms_deploy.models.InteractiveNetwork`; DISNet is one."""

    def propose(self, patches: Tensor, click: Tensor) -> Proposals:
        """Propose masks for a first click (1, 4)."""
        ...

    def decision_margin(self, patches: Tensor, click: Tensor) -> float:
        """Return how far the logits that decide what a proposal's query sees are from their threshold."""
        ...

    def answer(self, token: Tensor, features: Tensor, mask: Tensor, clicks: Tensor) -> Tensor:
        """Answer all clicks (1, K, 4) from what one of them became; logits (1, 1, h, w)."""
        ...


class ProposingNetwork(ListedNetwork):
    """A network whose inputs are image, first click, choice and the list of all clicks. It has no state.

    Rates are found by data flow: the proposals depend on the first click, and the refinement of the chosen one on the
    choice and on the list.

    Args:
        network: The network, in evaluation mode; a :class:`Proposing` one.
        cuts: None: there is no further cut.
        state: Without meaning: there is no state, and logits are float32 in every precision.
        part: What to take of the network; None for all of it, with the smallest list.

    Raises:
        CutError: A further cut is requested.
    """

    def __init__(
        self,
        network: InteractiveNetwork,
        cuts: Collection[Cut] = (),
        state: torch.dtype = torch.float32,
        part: ClickPart | None = None,
    ) -> None:
        super().__init__(network, cuts, state, part)
        if self.cuts:
            raise CutError(
                f"the cut {min(self.cuts)} for a network with proposals",
                expected="no further cut: its image stage is one layer",
                fix="leave out cuts",
                command_fix="leave out --cut",
            )

    @property
    def proposing(self) -> Proposing:
        """The network, as what it adds to others."""
        network: Proposing = self.network  # type: ignore[assignment]
        return network

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """All clicks from scratch.

        Args:
            *inputs: In the order of :meth:`input_names`: ``rgb`` (1, 3, H, W) float32, normalised, and ``first_click``
                (1, 4): x, y in network pixels, 1 and 1; or what the click stage reads of slower ones. ``choice``
                (1, 1), the number of a proposal; ``click_list`` (1, Q, 4), a row as ``first_click`` for each click, the
                first one included, and zeros.

        Returns:
            In the order of :meth:`output_names`: the image's features; ``candidates`` (1, N, h, w), logits; their
            ``scores`` (1, N), from 0 to 1; the first click's features; ``logits`` (1, 1, h, w).
        """
        given = dict(zip(self.input_names(), inputs, strict=True))
        if self.part is not None:
            return self.answered(tuple(given[name] for name in _READ), given)
        features = self.network.mix(self.network.encode(given[RGB]), {})
        proposed = self.propose(features, given[FIRST_CLICK])
        return (*self.computed(features), *proposed, *self.answered(self.read(proposed), given))

    def propose(self, features: tuple[Tensor, ...], first: Tensor) -> tuple[Tensor, ...]:
        """Return candidates, scores, tokens and F from the image's features and the first click (1, 4)."""
        proposals = self.proposing.propose(features[0], first)
        scores = object_scores(proposals.classes.float())
        # F is read in one form alone: another one would be a second feature of its size.
        return proposals.masks.float(), scores, proposals.tokens, proposals.features.flatten(2)

    @staticmethod
    def read(proposed: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return what the click stage reads of :meth:`propose`'s: candidates, tokens and F."""
        candidates, _, tokens, pixels = proposed
        return candidates, tokens, pixels

    def answered(self, features: tuple[Tensor, ...], given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the logits (1, 1, h, w) float32 for all clicks.

        Args:
            features: From :meth:`read`.
            given: ``choice`` and ``click_list``, by name.
        """
        candidates, tokens, pixels = features
        index = given[CHOICE].reshape(1).to(torch.int64)
        mask = torch.sigmoid(candidates.index_select(1, index))
        token = tokens.index_select(1, index)[:, 0]
        return (self.proposing.answer(token, pixels, mask, given[CLICK_LIST]).float(),)

    def input_names(self) -> list[str]:
        """Names of the graph's inputs, in order."""
        return [*((RGB, FIRST_CLICK) if self.part is None else _READ), CHOICE, CLICK_LIST]

    def click_names(self) -> tuple[str, ...]:
        """Names of the outputs of the click stage, in order."""
        return (LOGITS,)

    def output_names(self) -> list[str]:
        """Names of the graph's outputs, in order."""
        before = (*self.network.feature_names, CANDIDATES, SCORES, TOKENS, PIXELS) if self.part is None else ()
        return [*before, LOGITS]

    def feature_outputs(self) -> frozenset[str]:
        """Names of the graph's outputs that are features, the proposals included."""
        return frozenset((*self.network.feature_names, CANDIDATES, SCORES, TOKENS, PIXELS))

    def rates(self) -> dict[str, Rate]:
        """The rate of each input; where the click stage is exported alone, all of it is the click stage's."""
        slower = {RGB: Rate.IMAGE, FIRST_CLICK: Rate.FIRST_CLICK}
        return {name: slower.get(name, Rate.CLICK) for name in self.input_names()}

    def role(self, name: str) -> Role:
        """The role of an input or output of a stage; a tensor that crosses a cut is a feature."""
        roles = {
            **{FIRST_CLICK: Role.CLICK, CHOICE: Role.CHOICE},
            **{CANDIDATES: Role.CANDIDATES, SCORES: Role.SCORES, LOGITS: Role.LOGITS},
        }
        return roles.get(name) or super().role(name)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Inputs in the shapes of the graph's: the first click, and nothing else that is not zero."""
        first = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        clicks = torch.zeros(1, self.length, 4)
        clicks[:, 0] = first
        tensors = {RGB: torch.zeros(1, 3, *self.network.config.size), FIRST_CLICK: first}
        tensors |= {CHOICE: torch.zeros(1, 1), CLICK_LIST: clicks, **({} if self.part is None else self.part.features)}
        return tuple(tensors[name] for name in self.input_names())
