"""The click stage for several objects of one image at once.

Every object has state, click and answer of its own, under the names of the single click stage with ``@1``, ``@2``, ...
behind them (:func:`~mmms_deploy.bundle.names.of_object`): the values that a session holds for an object go in and come
out as they are, whichever objects run together, and nothing is copied between layouts on any device. Inside, what the
network sees of the objects is stacked along the batch axis, and the features of the image, which all objects share,
stay one row that operations broadcast.

Where fewer objects are clicked than a stage takes, the rest of its rows are without a click, and nothing reads their
answers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor

from mmms_deploy.bundle import GateCheck, Manifest, Rate, Role
from mmms_deploy.bundle.contract import ClickContract, ClickMemory
from mmms_deploy.bundle.manifest import MOST_BATCH
from mmms_deploy.bundle.names import CLICK, LABELS_NEXT, MAPS_NEXT, PROB, RGB, of_object, without_object
from mmms_deploy.errors import ExportError, GateError
from mmms_deploy.export.comparison import Worst, difference
from mmms_deploy.export.cut import Cut, StageModel
from mmms_deploy.export.gate import OnnxGraph
from mmms_deploy.export.listed import like
from mmms_deploy.export.network import RecurrentNetwork
from mmms_deploy.imaging.coordinates import to_network
from mmms_deploy.imaging.preprocess import prepare
from mmms_deploy.replay.golden import GoldenCase

Array = npt.NDArray[Any]

HAIR = 1e-3
"""A label is certain where the probability is farther than this from the threshold."""


def checked_batches(batches: Collection[int], rule: ClickContract, name: str) -> tuple[int, ...]:
    """Return how many objects click stages take at once, rising, checked.

    Args:
        batches: Numbers of objects, each 2 or more.
        rule: The network's click contract.
        name: What the network is called, for messages.

    Raises:
        ExportError: A number is out of range, or the network's click stage answers for no batch.
    """
    wrong = [number for number in batches if not 2 <= number <= MOST_BATCH]
    if wrong:
        raise ExportError(
            f"a click stage for {wrong[0]} objects at once",
            expected=f"from 2 to {MOST_BATCH} objects; the click stage for one is always there",
            fix="pass batches=(4, 16)",
            command_fix="pass --batch 4",
        )
    obstacle = _obstacle(rule)
    if batches and obstacle is not None:
        raise ExportError(
            f"a click stage for several objects at once was asked of {name}, {obstacle}",
            expected="a network whose click stage keeps the disks of the clicks or a map of labels, and runs once a"
            " click",
            fix="leave out batches",
            command_fix="leave out --batch",
        )
    return tuple(sorted(set(batches)))


def _obstacle(rule: ClickContract) -> str | None:
    if rule.objects > 1:
        return "which answers for all objects in one run already"
    if rule.listed is not None:
        return "which takes all clicks as a list"
    if rule.points is not None:
        return "which takes clicks as points of one object"
    if rule.modulation is not None:
        return "whose previous mask is changed outside of its graph at every click"
    if rule.first_pass:
        return "which answers a first click twice"
    return None


class BatchedNetwork(RecurrentNetwork):
    """The click stage of a network for several objects, without the rest of the network.

    Args:
        single: The network for one object.
        count: N, how many objects it takes.
        features: What the click stage takes of slower stages and of the image, in the order of the network's features.
    """

    def __init__(self, single: RecurrentNetwork, count: int, features: Mapping[str, Tensor]) -> None:
        # The backbone is no part of it, so that one in an ONNX file is not put before it.
        super().__init__(single.network, {*single.cuts, Cut.BLACK_BOX}, single.state)
        self.single, self.count, self.given = single, count, dict(features)

    @property
    def objects(self) -> range:
        """Numbers of the objects, from 1."""
        return range(1, self.count + 1)

    def extra_repr(self) -> str:
        """Return what tells two of them apart that have the same modules."""
        return f"objects={self.count}"

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """One click on each of several objects.

        Args:
            *inputs: In the order of :meth:`input_names`: the features; and for every object its state, such as ``maps``
                (1, 2, H, W) and ``prev`` (1, 1, H, W), and its ``click`` (1, 4), as for :class:`RecurrentNetwork`.

        Returns:
            In the order of :meth:`output_names`: for every object its next state, ``prob`` and ``mask``, likewise.
        """
        given = dict(zip(self.input_names(), inputs, strict=True))
        features = tuple(given[name] for name in self.given)
        drawn = []
        for number in self.objects:
            state = {name: given[of_object(name, number)] for name in self.single.state_names()}
            drawn.append(self.single.draw(state, given[of_object(CLICK, number)]))
        seen = torch.cat([self.single.sees(one) for one in drawn])
        logits = torch.chunk(self.network.respond(features, seen), self.count)
        return tuple(value for one, row in zip(drawn, logits, strict=True) for value in self.single.outcome(one, row))

    def input_names(self) -> list[str]:
        """Names of the graph's inputs, in order."""
        own = (*self.single.state_names(), CLICK)
        return [*self.given, *(of_object(name, number) for number in self.objects for name in own)]

    def output_names(self) -> list[str]:
        """Names of the graph's outputs, in order."""
        return [of_object(name, number) for number in self.objects for name in self.single.click_names()]

    def role(self, name: str) -> Role:
        """The role of an input or output of the stage."""
        return self.single.role(without_object(name))

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Zeros in the shapes of the graph's inputs; the state as it starts."""
        state = self.single.start()
        own = [*(state[name] for name in self.single.state_names()), torch.zeros(1, 4)]
        return (*self.given.values(), *(tensor.clone() for _ in self.objects for tensor in own))


def with_batches(
    network: RecurrentNetwork,
    stages: Sequence[StageModel],
    export: Callable[[RecurrentNetwork], ir.Model],
    batches: Sequence[int],
) -> tuple[StageModel, ...]:
    """Return a network's stages with click stages for several objects behind them.

    Args:
        network: The network that the stages were cut from.
        stages: Its stages; the click stage comes last.
        export: Exports a recurrent network as one graph.
        batches: How many objects each takes, rising, checked.

    Raises:
        ExportError: The network cannot be exported with several objects.
    """
    if not batches:
        return tuple(stages)
    click = stages[-1]
    taken = {str(value.name): like(value) for value in click.model.graph.inputs}
    features = {name: taken[name] for name in network.network.feature_names if name in taken}
    own = {*features, *network.state_names(), CLICK}
    # What the network's features end with are inputs as they came: the image.
    features |= {name: tensor for name, tensor in taken.items() if name not in own}
    missing = [name for name in network.network.feature_names if name not in taken]
    if missing or set(taken) - own - {RGB}:
        raise ExportError(
            f"the click stage takes {', '.join(taken)}",
            expected=f"the features {', '.join(network.network.feature_names)}, the state and the click",
            fix="leave out batches",
            command_fix="leave out --batch",
        )
    found = list(stages)
    for count in batches:
        batched = BatchedNetwork(network, count, features)
        model = export(batched)
        inputs, outputs = (
            tuple(str(value.name) for value in side) for side in (model.graph.inputs, model.graph.outputs)
        )
        model.graph.name = f"{Rate.CLICK.name.lower()}_batch_{count}"
        model.producer_name = "mmms-deploy"
        found.append(StageModel(Rate.CLICK, model, inputs, outputs, (), batch=count))
    return tuple(found)


# --- the gate ---------------------------------------------------------------------------------------------------------


class RowComparison:
    """Compares every row of a click stage for several objects with the stage for one.

    Rows have the states and clicks of one after the other of a series of clicks; the last row is blank.

    Args:
        manifest: The bundle's manifest.
        single: Runs the stage for one object.
        features: What the click stage takes of the image, by name.
        clicks: (N, 3) x and y in image pixels, 1 or 0.
        size: (H0, W0) of their image.
    """

    def __init__(
        self,
        manifest: Manifest,
        single: Callable[[Mapping[str, Array]], dict[str, Array]],
        features: Mapping[str, Array],
        clicks: Array,
        size: tuple[int, int],
    ) -> None:
        self._manifest, self._single, self._features = manifest, single, dict(features)
        specs = {
            spec.name: spec for stage in manifest.stages for graph in stage.graphs.values() for spec in graph.inputs
        }
        state: dict[str, Array] = {}
        for link in manifest.state:
            # Graphs in half precision are compared in a form that takes float32.
            dtype = np.uint8 if specs[link.input].dtype == "uint8" else np.float32
            state[link.input] = np.full(specs[link.input].shape, link.start, dtype=dtype)
        self._blank = {**state, CLICK: np.zeros((1, 4), dtype=np.float32)}
        self._series: list[tuple[dict[str, Array], dict[str, Array]]] = []
        for x, y, positive in clicks.tolist():
            rule = manifest.clicks.coordinates
            place = to_network(x, y, image=size, network=manifest.size, rule=rule)
            feed = {**state, CLICK: np.array([[*place, positive, 1.0]], dtype=np.float32)}
            answer = single({**self._features, **feed})
            self._series.append((feed, answer))
            state = {link.input: answer[link.output] for link in manifest.state}

    def see(
        self,
        batched: Callable[[Mapping[str, Array]], dict[str, Array]],
        count: int,
        *,
        answers: Worst,
        states: Worst,
        measure: Callable[[Array, Array], float],
    ) -> None:
        """Run the stage for several objects, and compare.

        Args:
            batched: Runs it.
            count: How many objects it takes.
            answers: Takes the differences of probabilities.
            states: Takes the differences of what clicks draw.
            measure: Returns the difference of two probabilities.

        Raises:
            GateError: Something differs.
        """
        rows = [self._series[number % len(self._series)] for number in range(count - 1)]
        feed = dict(self._features)
        for number, row in enumerate([*(row for row, _ in rows), self._blank], start=1):
            feed |= {of_object(name, number): array for name, array in row.items()}
        found = batched(feed)
        for number, (_, expected) in enumerate(rows, start=1):
            for name, wanted in expected.items():
                got = found[of_object(name, number)]
                where = f"stage for {count} objects, tensor {name}, object {number}"
                if name == MAPS_NEXT:
                    states.see(difference(got, wanted), where)
                elif name == LABELS_NEXT:
                    threshold = self._manifest.clicks.threshold
                    certain = np.abs(expected[PROB].astype(np.float64) - threshold) > HAIR
                    states.see(difference(got * certain, wanted * certain), where)
                elif name == PROB:
                    if not np.isfinite(got).all():
                        raise GateError(f"{answers.name}: numbers that are not finite at {where}", expected="numbers")
                    answers.see(measure(got, wanted), where)


def compare_batches(
    manifest: Manifest,
    files: Mapping[str, Path],
    features: Mapping[str, Array],
    case: GoldenCase,
    *,
    answers: Worst,
    measure: Callable[[Array, Array], float],
) -> list[GateCheck]:
    """Compare the click stages for several objects with the one for one object, row by row.

    Args:
        manifest: The bundle's manifest.
        files: A graph for every stage that ONNX Runtime executes on the CPU, by the stage's name.
        features: What the image's stages computed of the case's image, by name.
        case: A picture and clicks.
        answers: Takes the differences of probabilities.
        measure: Returns the difference of two probabilities.

    Returns:
        What was measured; nothing for a bundle without such stages.

    Raises:
        GateError: Something differs.
    """
    if not manifest.batches:
        return []
    (single,) = (stage.name for stage in manifest.stages if stage.rate is Rate.CLICK and not stage.batch)
    height, width, _ = case.image.shape
    picture = {RGB: prepare(case.image, manifest.image, manifest.size)}
    run = OnnxGraph(files[single], optimised=True).run
    rows = RowComparison(manifest, run, {**picture, **features}, case.clicks, (height, width))
    labelled = manifest.clicks.memory is ClickMemory.LABELS
    what = "the labels on certain pixels" if labelled else "the disks"
    states = Worst(answers.name, f"largest difference of {what}", 0.0, answers.fix, answers.command_fix)
    for count, stage in manifest.batches.items():
        batched = OnnxGraph(files[stage], optimised=True).run
        rows.see(batched, count, answers=answers, states=states, measure=measure)
    return [states.check(), answers.check()]
