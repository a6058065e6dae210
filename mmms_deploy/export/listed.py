"""The recurrent form of a network that takes all clicks as a list: nothing recurs, and the click stage has sizes.

The click stage is a pure function of the features and of the list. It is exported once for every size of the list. The
smallest is cut from the whole network, as for any other. A larger one is exported alone, with the features as its
inputs: the rest of the network has no size, and would be the same again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir
import torch
from torch import Tensor

from mmms_deploy.bundle import Rate, Role, StateLink
from mmms_deploy.bundle.contract import ClickList
from mmms_deploy.bundle.names import CLICK_LIST, RGB, ROW_LOGITS
from mmms_deploy.export.cut import Cut, StageModel, cut
from mmms_deploy.export.network import RecurrentNetwork
from mmms_deploy.models import InteractiveNetwork

Features = Mapping[str, Tensor]
"""Features by name, whose types and shapes count."""


@dataclass(frozen=True)
class ClickPart:
    """That the click stage is exported alone, for a list of another size.

    Attributes:
        rows: Rows of the list.
        features: What it takes of slower stages.
    """

    rows: int
    features: Features


class ListedNetwork(RecurrentNetwork):
    """A network that answers a list of clicks on several objects with logits of every row.

    Args:
        network: The network, in evaluation mode.
        cuts: Where it is cut, beside the cut where clicks come in.
        state: Without meaning: there is no state, and logits are float32 in every precision.
        part: What to take of the network; None for all of it, with the smallest list.
    """

    links: tuple[StateLink, ...] = ()

    def __init__(
        self,
        network: InteractiveNetwork,
        cuts: Collection[Cut] = (),
        state: torch.dtype = torch.float32,
        part: ClickPart | None = None,
    ) -> None:
        super().__init__(network, cuts, state)
        self.part = part

    @property
    def listed(self) -> ClickList:
        """What the rows of the list are."""
        listed = self.network.config.clicks.listed
        assert listed is not None
        return listed

    @property
    def length(self) -> int:
        """Rows of the list."""
        return self.listed.sizes[0] if self.part is None else self.part.rows

    def extra_repr(self) -> str:
        """Return what tells two of them apart that have the same modules."""
        return f"rows={self.length}{'' if self.part is None else ', clicks alone'}"

    def larger(self, rows: int, features: Features) -> ListedNetwork:
        """Return its click stage alone, for a larger list.

        Args:
            rows: Rows of the list.
            features: What the click stage takes of slower stages.
        """
        return type(self)(self.network, self.cuts, self.state, ClickPart(rows, features))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """All clicks at once.

        Args:
            *inputs: In the order of :meth:`input_names`: ``rgb`` (1, 3, H, W) float32, normalised, or the features; and
                ``click_list`` (1, Q, 5) float32, see :class:`~mmms_deploy.bundle.contract.ClickList`.

        Returns:
            In the order of :meth:`output_names`: the network's features, and ``row_logits`` (1, Q + L, h, w) float32.
        """
        given = dict(zip(self.input_names(), inputs, strict=True))
        if self.part is not None:
            features = tuple(given[name] for name in self.network.feature_names)
            return self.answered(features, given)
        encoded = self.network.encode(given[RGB])
        features = self.network.mix(encoded, {})
        return (*self.computed(features), *self.answered(features, given))

    def answered(self, features: tuple[Tensor, ...], given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the outputs of :meth:`click_names`.

        Args:
            features: The network's features.
            given: The other inputs, by name.
        """
        return (self.network.coarse_logits(features, given[CLICK_LIST]),)

    def start(self) -> dict[str, Tensor]:
        """Return the state before the first click: there is none."""
        return {}

    def input_names(self) -> list[str]:
        """Names of the graph's inputs, in order."""
        given = self.image_names() if self.part is None else self.network.feature_names
        return [*given, CLICK_LIST]

    def click_names(self) -> tuple[str, ...]:
        """Names of the outputs of the click stage, in order."""
        return (ROW_LOGITS,)

    def output_names(self) -> list[str]:
        """Names of the graph's outputs, in order."""
        return [*(self.network.feature_names if self.part is None else ()), *self.click_names()]

    def rates(self) -> dict[str, Rate]:
        """The rate of each input; where the click stage is exported alone, all of it is the click stage's."""
        return {
            name: Rate.IMAGE if self.part is None and name in self.image_names() else Rate.CLICK
            for name in self.input_names()
        }

    def role(self, name: str) -> Role:
        """The role of an input or output of a stage; a tensor that crosses a cut is a feature."""
        return {CLICK_LIST: Role.CLICK, ROW_LOGITS: Role.ROWS}.get(name) or super().role(name)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Zeros in the shapes of the graph's inputs."""
        shapes: dict[str, tuple[int, ...]] = {RGB: (1, 3, *self.network.config.size)}
        shapes[CLICK_LIST] = (1, self.length, self.listed.fields)
        features = {} if self.part is None else self.part.features
        return tuple(features[n] if n in features else torch.zeros(shapes[n]) for n in self.input_names())


def with_sizes(
    network: RecurrentNetwork, stages: Sequence[StageModel], export: Callable[[RecurrentNetwork], ir.Model]
) -> tuple[StageModel, ...]:
    """Return a network's stages with those for larger lists of clicks.

    Args:
        network: The network that the stages were cut from.
        stages: Its stages; the click stage comes last.
        export: Exports a recurrent network as one graph.

    Returns:
        The same stages, where the network takes no list.
    """
    if not isinstance(network, ListedNetwork):
        return tuple(stages)
    *before, click = stages
    listed = [*before, replace(click, rows=network.length)]
    features = {
        str(value.name): like(value)
        for stage in before
        for value in stage.model.graph.outputs
        if value.name in network.feature_outputs()
    }
    for rows in network.listed.sizes[1:]:
        larger = network.larger(rows, features)
        (found,) = cut(export(larger), larger.rates())
        listed.append(replace(found, rows=rows, larger=True))
    return tuple(listed)


def like(value: ir.Value) -> Tensor:
    """Return zeros of the type and shape of a value."""
    assert value.dtype is not None
    assert value.shape is not None
    types = {
        ir.DataType.FLOAT: torch.float32,
        ir.DataType.FLOAT16: torch.float16,
        ir.DataType.BFLOAT16: torch.bfloat16,
        ir.DataType.UINT8: torch.uint8,
    }
    return torch.zeros(value.shape.numpy(), dtype=types[value.dtype])
