"""What torch computes on one picture, click by click: the inputs and outputs that the gate compares graphs with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from mmms_deploy.bundle.names import (
    CHOICE,
    CLICK,
    CLICK_LIST,
    FIRST_CLICK,
    MODULATED,
    PRESENT,
    PREV,
    RGB,
    ROW_LOGITS,
)
from mmms_deploy.export.comparison import logit_scale
from mmms_deploy.export.cut import StageModel
from mmms_deploy.export.joint import list_steps
from mmms_deploy.export.listed import ListedNetwork
from mmms_deploy.export.modulation import modulated
from mmms_deploy.export.network import BACKBONE, RecurrentNetwork
from mmms_deploy.export.proposing import ProposingNetwork
from mmms_deploy.export.reference import TorchReference
from mmms_deploy.export.samples import Sample

Array = npt.NDArray[Any]

OPEN_LOOP_CLICKS = 2
DECIDED = 2e-5
"""A proposal's query looks where its own mask is above a threshold. A click whose nearest logit is at least this far
from it, over the largest one, is answered alike by all that compute the same sums in another order."""


@dataclass(frozen=True)
class Trace:
    """What torch computed on one picture.

    Attributes:
        feeds: The inputs of the whole graph at each click.
        outputs: Its outputs.
        labels: A name for each click, for messages.
        scale: What differences of logits are divided by.
        threshold: Above it, a pixel belongs to the mask.
        rows: Rows of the larger list of clicks that each entry is for; None for one that the whole graph takes, which
            come first. Empty where all of them are.
        told: For each entry, the rows of its answer that mean something, of a network that answers for every row.
    """

    feeds: list[dict[str, Array]]
    outputs: list[dict[str, Array]]
    labels: list[str]
    scale: float
    threshold: float
    rows: Sequence[int | None] = ()
    told: Sequence[Array] = ()

    @property
    def whole(self) -> int:
        """How many entries the whole graph takes."""
        return sum(rows is None for rows in self.rows) if self.rows else len(self.feeds)

    def numbers(self, stage: StageModel) -> Iterable[int]:
        """Return the entries that a stage takes."""
        if not stage.larger:
            return range(self.whole)
        return [number for number, rows in enumerate(self.rows) if rows == stage.rows]

    def where(self, number: int, sample: Sample) -> str:
        """Return the picture and the click of a number, for messages."""
        return f"image {sample.name}, {self.labels[number]}"


def torch_trace(network: RecurrentNetwork, sample: Sample) -> Trace:
    """Run a network in torch at each of a sample's first clicks.

    Args:
        network: The network, in the form that is exported.
        sample: The picture.
    """
    if isinstance(network, ProposingNetwork):
        return _proposing_trace(network, sample)
    if isinstance(network, ListedNetwork):
        return _list_trace(network, sample)
    return _recurrent_trace(network, sample)


@torch.no_grad()
def _recurrent_trace(network: RecurrentNetwork, sample: Sample) -> Trace:
    """Run the recurrent network in torch at each of the sample's first clicks.

    Where some modalities may be missing, one more click is answered without them.
    """
    reference = TorchReference(network.network)
    reference.set_image(sample.image, sample.modalities)
    state = network.start()
    encoded = reference.backbone_maps
    image = {RGB: reference.rgb} | dict(zip(BACKBONE, encoded, strict=False))
    plain = network.network.mix(encoded, {}) if network.bypassable else ()
    steps = [
        (f"click {number}", place, frozenset[str]())
        for number, place in enumerate(sample.clicks[:OPEN_LOOP_CLICKS].tolist(), start=1)
    ]
    if network.partial:
        absent = frozenset(sorted(network.optional)[::2])
        steps.append((f"click {len(steps) + 1} without {', '.join(sorted(absent))}", steps[-1][1], absent))
    feeds, outputs, logits, clicks = [], [], [], []
    rule = network.network.config.clicks.modulation
    for _, (x, y, positive), absent in steps:
        clicks.append((*reference.to_network(x, y), positive > 0.5))
        click = torch.tensor([[*clicks[-1], 1.0]])
        changed = None if rule is None else modulated(state[PREV], clicks, rule)
        there = {name: tensor for name, tensor in reference.modalities.items() if name not in absent}
        features = network.network.mix(encoded, there) if absent else reference.features
        feed = {**image, **reference.modalities, **state, CLICK: click}
        if changed is not None:
            feed[MODULATED] = changed
        if network.partial:
            feed[PRESENT] = torch.tensor([[float(name in there) for name in network.names]])
        drawn = network.draw(state, click, changed)
        logits.append(network.network.respond(features, network.sees(drawn)))
        values = (*network.computed(features), *plain, *network.outcome(drawn, logits[-1]))
        named = dict(zip(network.output_names(), values, strict=True))
        feeds.append({name: tensor.numpy() for name, tensor in feed.items()})
        outputs.append({name: tensor.numpy() for name, tensor in named.items()})
        state = {link.input: named[link.output] for link in network.links}
    threshold = network.network.config.clicks.threshold
    return Trace(feeds, outputs, [label for label, _, _ in steps], logit_scale(logits), threshold)


def _list_trace(network: ListedNetwork, sample: Sample) -> Trace:
    """Run a network that answers for every row of a list of clicks."""
    steps = list_steps(network, sample)
    return Trace(
        feeds=[step.feed for step in steps],
        outputs=[step.outputs for step in steps],
        labels=[step.label for step in steps],
        scale=logit_scale(torch.from_numpy(step.outputs[ROW_LOGITS][0, step.told]) for step in steps),
        threshold=network.network.config.clicks.threshold,
        rows=[step.rows for step in steps],
        told=[step.told for step in steps],
    )


@torch.no_grad()
def _proposing_trace(network: ProposingNetwork, sample: Sample) -> Trace:
    """Run a network with proposals in torch: with the best proposal and two clicks, and with another one and three.

    Every larger list has one more entry, which begins with the features of the others.
    """
    reference = TorchReference(network.network)
    reference.set_image(sample.image, sample.modalities)
    order = decided_clicks(network, reference, sample)
    feeds, outputs, labels = [], [], []
    logits: list[Tensor] = []
    start = torch.tensor(order[:1])
    proposed = network.propose(reference.features, start)
    best, count = int(proposed[1].argmax()), proposed[1].shape[1]
    steps: list[tuple[int | None, int]] = [(None, 2 + number) for number in range(OPEN_LOOP_CLICKS)]
    steps += [(rows, len(order)) for rows in network.listed.sizes[1:]]
    for number, (rows, wanted) in enumerate(steps):
        clicks = torch.zeros(1, rows or network.length, 4)
        listed = order[: min(wanted, clicks.shape[1])]
        clicks[0, : len(listed)] = torch.tensor(listed)
        choice = torch.tensor([[float((best + number) % count)]])
        feed = {CHOICE: choice, CLICK_LIST: clicks}
        logits += network.answered(network.read(proposed), feed)
        named = dict(zip(network.click_names(), logits[-1:], strict=True))
        if rows is None:
            feed |= {RGB: reference.rgb, FIRST_CLICK: start}
            values = (*network.computed(reference.features), *proposed, logits[-1])
            named = dict(zip(network.output_names(), values, strict=True))
        feeds.append({name: tensor.numpy() for name, tensor in feed.items()})
        outputs.append({name: tensor.numpy() for name, tensor in named.items()})
        labels.append(f"{len(listed)} clicks, proposal {int(choice) + 1}")
    return Trace(
        feeds=feeds,
        outputs=outputs,
        labels=labels,
        scale=logit_scale(logits),
        threshold=network.network.config.clicks.threshold,
        rows=[rows for rows, _ in steps],
    )


def decided_clicks(
    network: ProposingNetwork, reference: TorchReference, sample: Sample
) -> list[tuple[float, float, float, float]]:
    """Return a sample's clicks as a network with proposals takes them, of which the first is decided.

    Args:
        network: The network.
        reference: What has the sample's picture.
        sample: The sample.

    Returns:
        A row for each click. Before the others comes the first positive one that is decided (:data:`DECIDED`), or the
        one that is nearest to it.
    """
    rows = [(*reference.to_network(x, y), float(positive > 0.5), 1.0) for x, y, positive in sample.clicks.tolist()]
    margins: dict[int, float] = {}
    for place, row in enumerate(rows):
        if row[2] and max(margins.values(), default=0.0) < DECIDED:
            margins[place] = network.proposing.decision_margin(reference.features[0], torch.tensor([row]))
    first = max(margins, key=lambda place: margins[place])
    return [rows[first], *(row for place, row in enumerate(rows) if place != first)]
