"""What OpenVINO really computes in, read from the compiled graph: a hint does not bind it.

With the BF16 hint the CPU plugin converts every node of a graph, except what lies between the last convolution or
matrix multiplication and an output. Click coordinates and squared distances need float32: up to 2 * 448**2, they lose
whole pixels in BF16 at the rim of a disk. So the comparisons that draw the disks are found in the graph before it is
compiled, and everything that feeds them is looked up in the compiled graph. Of a network that takes clicks as a list,
these are the places where it samples maps, and the angles of its sine codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmms_deploy.bundle import Precision

_HEAVY = frozenset({"MatMul", "Convolution", "GroupConvolution", "ConvolutionBackpropData"})
"""Operations with approximate results; what follows them need not be exact."""
_PLACES = {"GridSample": 1, "Sin": 0, "Cos": 0}
"""Operations that read coordinates, and which of their inputs those are."""
_MATRIX = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})
"""The same, as the CPU plugin names the nodes of a compiled graph."""
_NARROW = frozenset({"bf16", "f16"})
_NAMES = {
    Precision.FP32: frozenset({"f32"}),
    Precision.BF16: frozenset({"bf16"}),
    Precision.FP16: frozenset({"f16"}),
    Precision.INT8: frozenset({"i8", "u8"}),
}
"""How OpenVINO names the precisions; of a product in 8 bits it names the type of the activations."""


@dataclass(frozen=True)
class Node:
    """A node of a compiled graph.

    Attributes:
        type: The CPU plugin's name of its kind.
        precision: What it computes in.
        primitive: The kernel that computes it, e.g. ``brgconv_avx512_amx_bf16``.
        origins: Its name, and the names of the operations of the model that it stands for.
        inputs: Indices of the nodes that it reads.
    """

    type: str
    precision: str
    primitive: str
    origins: frozenset[str]
    inputs: tuple[int, ...]


@dataclass(frozen=True)
class CompareOperation:
    """A comparison, or coordinates, that must be exact.

    Attributes:
        output: The output in the model that has to be float32, or depends on nothing else.
        names: Its name and those of the operations that read it; a compiled graph may keep only the last one.
    """

    output: Any
    names: frozenset[str]


def compiled_nodes(compiled: Any) -> tuple[Node, ...]:
    """Return the nodes of an ``openvino.CompiledModel``, in the order in which they run."""
    operations = compiled.get_runtime_model().get_ordered_ops()
    index = {operation.get_name(): i for i, operation in enumerate(operations)}
    nodes = []
    for operation in operations:
        facts = operation.get_rt_info()
        nodes.append(
            Node(
                type=str(facts["layerType"].value),
                precision=str(facts["runtimePrecision"].value),
                primitive=str(facts["primitiveType"].value),
                origins=frozenset((*str(facts["originalLayersNames"].value).split(","), operation.get_friendly_name())),
                inputs=tuple(index[source.get_name()] for source in _sources(operation)),
            )
        )
    return tuple(nodes)


def exact_comparisons(model: Any) -> dict[str, CompareOperation]:
    """Return the comparisons of floats that depend on inputs, without a convolution or matrix product in between.

    In a click stage these draw the disks and threshold the previous mask. Coordinates that are read (``_PLACES``) count
    as comparisons do.

    Args:
        model: An ``openvino.Model``.

    Returns:
        The comparisons, by the names of their operations.
    """
    approximate: dict[str, bool] = {}
    variable: dict[str, bool] = {}
    found = {}
    for operation in model.get_ordered_ops():
        sources = [source.get_name() for source in _sources(operation)]
        name = operation.get_name()
        approximate[name] = operation.get_type_name() in _HEAVY or any(approximate[source] for source in sources)
        variable[name] = operation.get_type_name() == "Parameter" or any(variable[source] for source in sources)
        compares = operation.get_output_size() == 1 and operation.get_output_element_type(0).get_type_name() in (
            "boolean",
            "bool",
        )
        floats = any(value.get_element_type().is_real() for value in operation.inputs())
        if compares and floats and variable[name] and not approximate[name]:
            output = operation.output(0)
            readers = (reader.get_node().get_friendly_name() for reader in output.get_target_inputs())
            found[operation.get_friendly_name()] = CompareOperation(
                output, frozenset({operation.get_friendly_name(), *readers})
            )
        if operation.get_type_name() in _PLACES:
            read = operation.input_value(_PLACES[operation.get_type_name()])
            source = read.get_node()
            if variable[source.get_name()] and not approximate[source.get_name()]:
                names = {operation.get_friendly_name(), source.get_friendly_name()}
                found[operation.get_friendly_name()] = CompareOperation(read, frozenset(names))
    return found


def not_exact(nodes: tuple[Node, ...], comparisons: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Return those comparisons that are not computed in float32 in a compiled graph, or that cannot be found in it.

    Args:
        nodes: The compiled graph.
        comparisons: The names of each, by the first of them.
    """
    exact = frozenset[str]().union(*(node.origins for node in _wide(nodes)))
    return frozenset(name for name, names in comparisons.items() if not names & exact)


def names_after_import(nodes: tuple[Node, ...], comparisons: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """Return under which names the comparisons are found in a compiled graph that was exported and imported.

    Where several operations became one node, only one name survives; so all names of the node are returned.

    Args:
        nodes: The compiled graph, before it is exported; every comparison is exact in it.
        comparisons: The names of each, by the first of them.
    """
    wide = _wide(nodes)
    return {
        name: names.union(*(node.origins for node in wide if node.origins & names))
        for name, names in comparisons.items()
    }


def _wide(nodes: tuple[Node, ...]) -> list[Node]:
    """Return the nodes that compute in float32, and so does everything before them."""
    narrow = [False] * len(nodes)
    for i, node in enumerate(nodes):
        narrow[i] = node.precision in _NARROW or any(narrow[source] for source in node.inputs)
    return [node for i, node in enumerate(nodes) if not narrow[i]]


def matrix_precisions(nodes: tuple[Node, ...], precision: Precision) -> tuple[int, int]:
    """Return how many convolutions and matrix products of a compiled graph run in ``precision``, and how many run."""
    names = _NAMES[precision]
    found = [node.precision in names for node in nodes if node.type in _MATRIX]
    return sum(found), len(found)


def narrow_nodes(nodes: tuple[Node, ...]) -> int:
    """Return how many nodes of a compiled graph run in 16 bits."""
    return sum(node.precision in _NARROW for node in nodes)


def _sources(operation: Any) -> Iterator[Any]:
    """Yield the operations that an operation of an OpenVINO graph reads."""
    get: Callable[[], list[Any]] = operation.inputs
    for value in get():
        yield value.get_source_output().get_node()
