"""The cut: from a whole ONNX graph and the rates of its inputs to a pipeline of stages.

A node's rate is the fastest rate among its inputs. The nodes of one rate are a stage, and the tensors that cross from a
slower stage to a faster one are features that stay resident. Nothing here knows a network: the late-fusion boundary of
MMMS is found by data flow, and so is that of any other graph.

:class:`Cut` names the further cuts that a user can choose. ``mmms-export --help`` lists them where onnx is not
installed, so the functions that cut import it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from mmms_deploy.bundle import Rate
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.errors import CutError
from mmms_deploy.export.subgraphs import subgraphs

if TYPE_CHECKING:
    import onnx_ir as ir

    ValueRates = dict[ir.Value, Rate]
    NodeRates = dict[ir.Node, Rate | None]


class Cut(StrEnum):
    """A further cut, beside the one where clicks come in.

    ``late``: the nodes that depend on the modalities become a stage of their own, so that a modality that arrives later
    or changes is fused without running the backbone again. ``black-box``: the backbone is left out; a provider computes
    its four feature maps (paper appendix B).
    """

    LATE = "late"
    BLACK_BOX = "black-box"


def choose_cuts(
    requested: Collection[Cut], modalities: Collection[ModalitySpec], *, frozen: bool = True
) -> frozenset[Cut]:
    """Return the cuts to make: the requested ones, and ``late`` where a modality is optional.

    Args:
        requested: The requested cuts.
        modalities: The network's modalities.
        frozen: Whether the network has a frozen backbone, which sees the image alone.

    Raises:
        CutError: ``late`` is requested, and there is no modality; or ``black-box``, and there is no frozen backbone.
    """
    if Cut.BLACK_BOX in requested and not frozen:
        raise CutError(
            f"the cut {Cut.BLACK_BOX} for a network that clicks go through as a whole",
            expected="a network with a frozen backbone, which a provider can run (MMMS, SkipClick)",
            fix="leave Cut.BLACK_BOX out of cuts",
            command_fix="leave out --cut black-box",
        )
    if Cut.LATE in requested and not modalities:
        raise CutError(
            f"the cut {Cut.LATE} for a network without extra modalities",
            expected="a network with at least one modality that can come later",
            fix="leave Cut.LATE out of cuts",
            command_fix="leave out --cut late",
        )
    optional = any(modality.optional for modality in modalities)
    return frozenset(requested) | ({Cut.LATE} if optional else set())


# Evaluated in another stage, or twice, these would draw other numbers than the whole graph does.
_RANDOM_OPS = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


@dataclass(frozen=True)
class StageModel:
    """A stage as a graph of its own.

    Attributes:
        rate: How often it runs.
        model: Its graph; shares weights with the whole graph.
        inputs: Names of its inputs: graph inputs and features of slower stages.
        outputs: Names of its outputs: graph outputs and features for faster stages.
        features: Those of its outputs that faster stages read.
        rows: Rows of the list of clicks that it takes; None where it takes none.
        larger: Whether another stage of its rate takes a smaller list.
        batch: How many objects it answers for in one run; None for one.
    """

    rate: Rate
    model: ir.Model
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    features: tuple[str, ...]
    rows: int | None = None
    larger: bool = False
    batch: int | None = None

    @property
    def name(self) -> str:
        """Its name in a bundle: its rate, and for a larger list the number of rows, or of objects for several."""
        if self.batch is not None:
            return f"{self.rate.name.lower()}_batch_{self.batch}"
        return f"{self.rate.name.lower()}_{self.rows}" if self.larger else self.rate.name.lower()


def cut(model: ir.Model, rates: Mapping[str, Rate]) -> tuple[StageModel, ...]:
    """Cut a graph into one stage per rate.

    Evaluated in order, each stage on the graph's inputs and the outputs of the stages before it, the stages compute
    exactly what the whole graph computes. Nodes that depend on no input are copied to every stage that reads them.
    Inputs that nothing reads are dropped, and so are nodes that no output needs.

    Args:
        model: The whole graph; its local functions are inlined in place.
        rates: The rate of every graph input, by name.

    Returns:
        The stages, slowest first; rates at which nothing is computed have none.

    Raises:
        CutError: A rate is missing or names no input, or a node draws random numbers.
    """
    from onnx_ir.passes.common import InlinePass, ShapeInferencePass

    InlinePass()(model)
    graph = model.graph
    graph.sort()
    _check_rates(graph, rates)
    value_rates, node_rates = _propagate(graph, rates)
    _name_direct_outputs(graph, value_rates, node_rates)
    borders = _find_borders(graph, value_rates, node_rates)
    crossing = [value for border in borders for value in (*border.inputs, *border.outputs)]
    if any(value.type is None or value.shape is None for value in crossing):
        ShapeInferencePass()(model)
    return tuple(_extract(model, border) for border in borders)


def _check_rates(graph: ir.Graph, rates: Mapping[str, Rate]) -> None:
    names = {value.name for value in graph.inputs}
    if names != set(rates):
        raise CutError(
            f"rates were given for {sorted(rates)}",
            expected=f"one rate for each graph input: {sorted(str(name) for name in names)}",
            fix="name every input once",
        )
    random = sorted({node.op_type for node in graph.all_nodes() if node.op_type in _RANDOM_OPS})
    if random:
        raise CutError(
            f"the graph draws random numbers ({', '.join(random)})",
            expected="a deterministic graph, whose stages can be evaluated one by one",
            fix="export the network in evaluation mode",
        )


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """Yield the values that a node reads, those that its subgraphs capture included."""
    yield from (value for value in node.inputs if value is not None)
    for graph in subgraphs(node):
        for inner in graph:
            yield from _reads(inner)
        # A branch may return a captured value without a node in between.
        yield from graph.outputs


def _propagate(graph: ir.Graph, rates: Mapping[str, Rate]) -> tuple[ValueRates, NodeRates]:
    """Give every value and node its rate; constants have none."""
    value_rates: ValueRates = {value: rates[str(value.name)] for value in graph.inputs}
    node_rates: NodeRates = {}
    for node in graph:
        read = [value_rates[value] for value in _reads(node) if value in value_rates]
        node_rates[node] = max(read, default=None)
        if read:
            value_rates.update((value, max(read)) for value in node.outputs)
    return value_rates, node_rates


def _name_direct_outputs(graph: ir.Graph, value_rates: ValueRates, node_rates: NodeRates) -> None:
    """Put an Identity before every graph output that no node computes, so that some stage has it as output."""
    import onnx_ir as ir

    for i, value in enumerate(graph.outputs):
        if value.producer() is not None:
            continue
        rate = value_rates.get(value)
        name = f"{value.name}_out"
        identity = ir.node("Identity", [value], outputs=[ir.val(name, dtype=value.dtype, shape=value.shape)])
        graph.append(identity)
        output = identity.outputs[0]
        graph.outputs[i] = output
        node_rates[identity] = rate
        if rate is not None:
            value_rates[output] = rate


@dataclass(frozen=True)
class _Border:
    rate: Rate
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    features: tuple[ir.Value, ...]


def _find_borders(graph: ir.Graph, value_rates: ValueRates, node_rates: NodeRates) -> list[_Border]:
    needed = _needed(graph)
    present = {rate for node, rate in node_rates.items() if rate is not None and node in needed}
    slowest = min(present, default=Rate.IMAGE)
    reads: dict[Rate, dict[ir.Value, None]] = {rate: {} for rate in sorted(present | {slowest})}
    crossing: dict[ir.Value, None] = {}
    for node, rate in node_rates.items():
        if rate is None or node not in needed:
            continue
        for value in _reads(node):
            source = value_rates.get(value)
            if source is None:
                continue
            if value.producer() is None or source < rate:
                reads[rate][value] = None
            if source < rate and value.producer() is not None:
                crossing[value] = None
    borders = []
    for rate, read in reads.items():
        features = tuple(value for value in crossing if value_rates[value] == rate)
        own = [value for value in graph.outputs if value_rates.get(value, slowest) == rate]
        outputs = tuple(dict.fromkeys([*own, *features]))
        order = {value: i for i, value in enumerate(graph.inputs)}
        inputs = tuple(sorted(read, key=lambda value: order.get(value, -1)))
        if outputs:
            borders.append(_Border(rate, inputs, outputs, features))
    return borders


def _needed(graph: ir.Graph) -> set[ir.Node]:
    """Return the nodes that some graph output depends on."""
    needed: set[ir.Node] = set()
    pending = [value.producer() for value in graph.outputs]
    while pending:
        node = pending.pop()
        if node is None or node in needed or node.graph is not graph:
            continue
        needed.add(node)
        pending.extend(value.producer() for value in _reads(node))
    return needed


def _extract(model: ir.Model, border: _Border) -> StageModel:
    import onnx_ir as ir

    graph = ir.convenience.extract(model.graph, border.inputs, border.outputs)
    graph.name = border.rate.name.lower()
    graph.opset_imports.update(model.graph.opset_imports)
    _order_initializers(graph)
    stage = ir.Model(graph, ir_version=model.ir_version, producer_name="mmms-deploy")
    return StageModel(
        border.rate,
        stage,
        tuple(str(value.name) for value in border.inputs),
        tuple(str(value.name) for value in border.outputs),
        tuple(str(value.name) for value in border.features),
    )


def _order_initializers(graph: ir.Graph) -> None:
    """List weights as nodes read them, so that the same export gives the same file; the extraction lists a set."""
    weights = dict(graph.initializers)
    names = dict.fromkeys(str(value.name) for node in graph for value in _reads(node) if value.name in weights)
    graph.initializers.clear()
    graph.initializers.update({name: weights[name] for name in (*names, *sorted(weights.keys() - names.keys()))})
