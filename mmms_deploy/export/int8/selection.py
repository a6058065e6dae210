"""Which layers of the quantised graphs stay in float32: as few as masks allow, found by their masks.

A tensor that differs says little: some layers can be wrong by percents without moving an outline, and others move it at
once. So each layer is measured alone, in 8 bits among layers in float32, by the golden clicks' masks. The layers that
cost most come first, and the shortest beginning of that list is left in float32 with which all others together keep the
limit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from mmms_deploy.errors import GateError
from mmms_deploy.export.int8.layers import Layer, named_weights, quantised_layers, with_float_layers
from mmms_deploy.export.int8.precision import LEAST_SHARE
from mmms_deploy.export.int8.replaying import Likeness

Measure = Callable[[Mapping[str, ir.Model], int | None], Likeness]
"""Replays golden clicks with these graphs in the place of float32 ones: so many of every picture, or all."""
ALONE_CLICKS = 4
"""Clicks of every picture by which a layer is measured alone; all of them would take twice as long."""


@dataclass(frozen=True)
class Cost:
    """What a layer in 8 bits costs alone.

    Attributes:
        stage: Name of its stage.
        layer: The layer.
        loss: 1 - mean IoU of the masks, from 0 to 1.
    """

    stage: str
    layer: Layer
    loss: float


class Search:
    """Finds the layers that stay in float32.

    Args:
        quantised: The quantised graph of every stage that is measured.
        original: The graphs in float32 that they were made of, by stage.
        measure: Measures graphs by their masks.
        iou: The mean IoU to reach.
        least: The smallest IoU that any mask may have.
        on_layer: Called before a layer is measured, with its number from 1 and how many there are.
    """

    def __init__(
        self,
        quantised: Mapping[str, ir.Model],
        original: Mapping[str, ir.Model],
        measure: Measure,
        *,
        iou: float,
        least: float,
        on_layer: Callable[[int, int], None] = lambda number, total: None,
    ) -> None:
        self._quantised, self._original = quantised, original
        self._measure = measure
        self._iou, self._least = iou, least
        self._on_layer = on_layer
        self.layers = {
            stage: quantised_layers(model.graph, named_weights(original[stage].graph))
            for stage, model in quantised.items()
        }
        """The layers that are in 8 bits before any is left out, by stage."""
        self._costs: list[Cost] = []

    @property
    def total(self) -> int:
        """How many layers can be in 8 bits."""
        return sum(map(len, self.layers.values()))

    @property
    def most(self) -> int:
        """How many of them may stay in float32."""
        return int(self.total * (1 - LEAST_SHARE))

    def passes(self, likeness: Likeness) -> bool:
        """Whether masks are alike enough."""
        return likeness.mean >= self._iou and likeness.least >= self._least

    def costs(self) -> Sequence[Cost]:
        """Return what every layer costs alone, those first that cost most."""
        if not self._costs:
            found: list[Cost] = []
            for stage, layers in self.layers.items():
                for layer in layers:
                    self._on_layer(len(found) + 1, self.total)
                    alone = {stage: self._with(stage, {layer.node})}
                    found.append(Cost(stage, layer, 1.0 - self._measure(alone, ALONE_CLICKS).mean))
            self._costs = sorted(found, key=lambda cost: -cost.loss)
        return self._costs

    def _with(self, stage: str, kept: Collection[str]) -> ir.Model:
        return with_float_layers(self._quantised[stage], kept, self._original[stage].graph)

    def left(self, count: int) -> dict[str, list[Layer]]:
        """Return the first layers of :meth:`costs`, by stage."""
        return {
            stage: [cost.layer for cost in self.costs()[:count] if cost.stage == stage] for stage in self._quantised
        }

    def graphs(self, count: int) -> dict[str, ir.Model]:
        """Return the quantised graphs with the first layers of :meth:`costs` in float32."""
        found = {}
        for stage, layers in self.left(count).items():
            out = {layer.node for layer in layers}
            kept = [layer.node for layer in self.layers[stage] if layer.node not in out]
            found[stage] = self._with(stage, kept)
        return found

    def smallest(self, from_count: int = 0) -> int:
        """Return how many layers have to stay in float32.

        Args:
            from_count: At least so many.

        Raises:
            GateError: Too many would have to.
        """
        if from_count == 0 and self.passes(self._measure(self._quantised, None)):
            return 0
        low, high = max(from_count, 1), (most := self.most)
        if low > most or not self.passes(last := self._measure(self.graphs(most), None)):
            raise self.refusal(most, None if low > most else last)
        while low < high:
            middle = (low + high) // 2
            if self.passes(self._measure(self.graphs(middle), None)):
                high = middle
            else:
                low = middle + 1
        return high

    def refusal(self, most: int, last: Likeness | None = None) -> GateError:
        """Return the error of masks that are not alike enough.

        Args:
            most: How many layers were left in float32.
            last: How alike the masks were with them; None where that is not known.
        """
        worst, total = self.costs()[0], len(self.costs())
        reached = "" if last is None else f" the mean IoU is {last.mean:.4f} and the smallest {last.least:.4f};"
        return GateError(
            f"int8 against the checkpoint: with {most} of {total} layers in float32,{reached} alone, layer"
            f" {worst.layer.weight} of stage {worst.stage} costs {worst.loss:.4f} of the masks' IoU, the most of all",
            expected=f"a mean IoU of at least {self._iou:g}, and {self._least:g} of every mask",
            fix="pass a lower Int8Options(iou=...), or leave Precision.INT8 out of precisions; nothing was written",
            command_fix="pass a lower --int8-iou, or leave int8 out of --precision; nothing was written",
        )


def share(layers: Collection[Layer], left: Collection[Layer]) -> float:
    """Return which share of the layers' multiply-adds is computed in 8 bits, from 0 to 1."""
    total = sum(layer.macs for layer in layers)
    return 1 - sum(layer.macs for layer in left) / total if total else 0.0
