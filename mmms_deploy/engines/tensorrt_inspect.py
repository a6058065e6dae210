"""What a TensorRT plan really computes in: read from the list of its kernels, because a graph's types are only a wish.

The list comes from the engine inspector where there is a GPU, as JSON, and from the build's own messages where a plan
is compiled ahead of time. Each kernel says which operations of the ONNX graph it stands for, and of which type its
operands are; so every convolution and matrix product of the graph can be looked up, and whether an attention (matrix
product, softmax, matrix product) became one kernel.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from mmms_deploy.bundle import Precision
from mmms_deploy.contract import Struct
from mmms_deploy.errors import PlanPrecisionError

WIDE = Precision.FP32
_TYPES = {
    "half": Precision.FP16.value,
    "fp16": Precision.FP16.value,
    "bfloat16": Precision.BF16.value,
    "bf16": Precision.BF16.value,
    "float": Precision.FP32.value,
    "fp32": Precision.FP32.value,
}
_TYPE = re.compile(r"\b(bfloat16|bf16|half|fp16|float|fp32|int8|uint8|int32|int64|bool|fp8)\b", re.IGNORECASE)
_MEMORY = re.compile(r"^Total (Activation|Weights) Memory: (\d+) bytes", re.MULTILINE)
_ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_MOVING = frozenset({"kgen", "Reformat", "NoOp", "Move", "Shuffle", "Constant"})
"""Kinds of kernels that compute no matrix product, unless it is a fused attention."""
_TENSOR = re.compile(r"\{ Name: (.+?), Dimensions: \[([\d,\s-]*)\].*?Datatype: (\w+)")
_LINE = re.compile(
    r"^Name: (?P<name>.+?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\]"
    r"(?:, Constants: \[(?P<constants>.*?)\])?, Outputs: \[(?P<outputs>.*?)\], TacticName: (?P<tactic>.*?), StreamId:"
    r"(?P<rest>.*)$",
    re.MULTILINE,
)


class Tensor(Struct, frozen=True, kw_only=True):
    """An operand of a kernel: its type (``fp32``, ``fp16``, ``int32``, ...) and number of elements."""

    dtype: str
    elements: int
    rank: int


class Kernel(Struct, frozen=True, kw_only=True):
    """A kernel of a compiled plan.

    Attributes:
        name: Its name.
        kind: The library's name of its kind, e.g. ``gemm``.
        origins: Names of the ONNX nodes that it stands for.
        inputs: What it reads.
        constants: The weights that it reads, where the library lists them apart.
        outputs: What it writes.
    """

    name: str
    kind: str
    origins: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def operand(self) -> str:
        """What it multiplies in: the type of its weights, or of the wider of the two largest things that it reads."""
        weights = [tensor for tensor in self.constants if tensor.rank > 1 and tensor.elements > 1]
        if weights:
            return max(weights, key=lambda tensor: tensor.elements).dtype
        largest = sorted(self.inputs, key=lambda tensor: -tensor.elements)[:2]
        wide = [tensor for tensor in largest if tensor.dtype == WIDE]
        return (wide or largest)[0].dtype if largest else ""


class Network(Struct, frozen=True, kw_only=True):
    """What the library read from an ONNX graph, before it compiled anything.

    Attributes:
        matrices: Type of every convolution and matrix product, by ONNX node.
        attentions: For every attention its softmax, by ONNX node.
    """

    matrices: dict[str, str]
    attentions: tuple[str, ...]


class PlanReport(Struct, frozen=True, kw_only=True):
    """What a plan is.

    Attributes:
        kernels: How many kernels a run launches; 0 when the library listed none.
        types: How many of them write which type.
        matrices: How many convolutions and matrix products its kernels hold, by the type they multiply in. Without a
            list of kernels, those of the typed graph.
        wide: Names of the convolutions and matrix products that are done in float32.
        attentions: How many attentions the graph has.
        fused: How many of them became one kernel.
        activation_bytes: Scratch memory of one run on the GPU; None when unknown.
        weight_bytes: Weights on the GPU; None when unknown.
        listed: Where the list of kernels comes from, ``inspector`` or ``build``; empty when there is none.
    """

    kernels: int
    types: dict[str, int]
    matrices: dict[str, int]
    wide: tuple[str, ...]
    attentions: int
    fused: int
    activation_bytes: int | None = None
    weight_bytes: int | None = None
    listed: str = ""

    def evidence(self, precision: Precision) -> str:
        """Return what proves the precision, e.g. ``82 of 82 matrix operations in fp16, 8 of 8 attentions fused``."""
        done, total = self.matrices.get(precision, 0), sum(self.matrices.values())
        source = "" if self.listed else ", as its typed graph says (the library lists no kernels)"
        fused = f", {self.fused} of {self.attentions} attentions fused" if self.attentions and self.listed else ""
        return f"{done} of {total} matrix operations in {precision}{fused}{source}"


def prove_precision(report: PlanReport, precision: Precision, stage: str, library: str) -> None:
    """Refuse a plan that is not what was asked for.

    Raises:
        PlanPrecisionError: A convolution or matrix product is not computed in the precision.
    """
    other = {dtype: count for dtype, count in report.matrices.items() if dtype != precision}
    if not other:
        return
    listed = ", ".join(f"{count} in {dtype or 'an unknown type'}" for dtype, count in sorted(other.items()))
    names = f" ({', '.join(report.wide[:5])}{', ...' if len(report.wide) > 5 else ''})" if report.wide else ""
    raise PlanPrecisionError(
        f"{library} compiled stage {stage!r} with {listed} of {sum(report.matrices.values())} matrix operations{names}",
        expected=f"all of them in {precision}",
        fix="export the checkpoint again with this version; if that does not help, use another precision",
    )


# --- reading lists of kernels -----------------------------------------------------------------------------------------


def kernels_of_messages(details: Iterable[str]) -> tuple[Kernel, ...]:
    """Return the kernels that a build listed in its messages.

    Args:
        details: Messages of severity VERBOSE; several lists can be among them, for several kinds of GPU, of which the
            first is taken.
    """
    for message in details:
        found = [
            Kernel(
                name=match["name"],
                kind=match["kind"],
                origins=tuple(_ORIGIN.findall(match["rest"])),
                inputs=_tensors(match["inputs"]),
                constants=_tensors(match["constants"] or ""),
                outputs=_tensors(match["outputs"]),
            )
            for match in _LINE.finditer(message)
        ]
        if found:
            return tuple(found)
    return ()


def _tensors(text: str) -> tuple[Tensor, ...]:
    found = []
    for _, sizes, dtype in _TENSOR.findall(text):
        shape = [int(size) for size in sizes.split(",") if size.strip()]
        found.append(Tensor(dtype=type_name(dtype), elements=math.prod(shape), rank=len(shape)))
    return tuple(found)


def kernels_of_inspector(text: str) -> tuple[Kernel, ...]:
    """Return the kernels of an engine inspector's JSON, of any version from 10.12.

    A tensor's type is in ``Datatype``, or in the words of ``Format/Datatype`` (``Row major linear FP16 format``).
    Weights are in ``Constants``, or in ``Weights`` with type and number.
    """
    layers = json.loads(text).get("Layers", [])
    found = []
    for layer in layers:
        if not isinstance(layer, Mapping):  # a name alone: the plan was built without details
            continue
        constants = [_tensor(item) for item in layer.get("Constants", [])]
        weights = layer.get("Weights")
        if isinstance(weights, Mapping) and weights.get("Count"):
            constants.append(Tensor(dtype=type_name(str(weights.get("Type"))), elements=int(weights["Count"]), rank=2))
        found.append(
            Kernel(
                name=str(layer.get("Name", "")),
                kind=str(layer.get("LayerType", "")),
                origins=tuple(_ORIGIN.findall(str(layer.get("Metadata", "")))),
                inputs=tuple(_tensor(item) for item in layer.get("Inputs", [])),
                constants=tuple(constants),
                outputs=tuple(_tensor(item) for item in layer.get("Outputs", [])),
            )
        )
    return tuple(found)


def _tensor(item: Mapping[str, Any]) -> Tensor:
    shape = [int(size) for size in item.get("Dimensions", [])]
    dtype = str(item.get("Datatype") or item.get("Format/Datatype") or item.get("Format") or "")
    return Tensor(dtype=type_name(dtype), elements=math.prod(shape), rank=len(shape))


def type_name(words: str) -> str:
    """Return a type by the name that a precision has, of the names that the library has for it; empty for no type."""
    match = _TYPE.search(words)
    return _TYPES.get(match[1].lower(), match[1].lower()) if match else ""


def memory_of_messages(details: Iterable[str]) -> tuple[int | None, int | None]:
    """Return the bytes of scratch memory and of weights that a build says its plan needs; None when it does not say."""
    found = {match[1]: int(match[2]) for text in details for match in _MEMORY.finditer(text)}
    return found.get("Activation"), found.get("Weights")


# --- judging them -----------------------------------------------------------------------------------------------------


def summarise(
    network: Network,
    kernels: tuple[Kernel, ...],
    *,
    listed: str,
    activation_bytes: int | None = None,
    weight_bytes: int | None = None,
) -> PlanReport:
    """Count what a plan's kernels do.

    Args:
        network: The graph, as the library read it.
        kernels: The kernels; none when the library listed none.
        listed: Where they come from.
        activation_bytes: Scratch memory of one run.
        weight_bytes: Weights on the GPU.
    """
    homes = {name: home for name in network.matrices if (home := _home(name, kernels)) is not None}
    # Some may have been computed once and for all at build time. Without most of them the list means nothing.
    known = bool(kernels) and 2 * len(homes) >= len(network.matrices)
    types = {name: home.operand for name, home in homes.items()} if known else network.matrices
    return PlanReport(
        kernels=len(kernels),
        types=dict(Counter(_result(kernel) for kernel in kernels)),
        matrices=dict(Counter(types.values())),
        wide=tuple(name for name, dtype in types.items() if dtype == WIDE),
        attentions=len(network.attentions),
        fused=sum(_fused(softmax, kernels, network) for softmax in network.attentions) if known else 0,
        activation_bytes=activation_bytes,
        weight_bytes=weight_bytes,
        listed=listed if known else "",
    )


def _home(node: str, kernels: tuple[Kernel, ...]) -> Kernel | None:
    """Return the kernel that computes an ONNX node; others may name it because they move what it reads or writes."""
    found = [kernel for kernel in kernels if node in kernel.origins]
    return min(found, key=lambda kernel: kernel.kind in _MOVING and "mha" not in kernel.name, default=None)


def _fused(softmax: str, kernels: tuple[Kernel, ...], network: Network) -> bool:
    """Return whether a softmax and the two matrix products around it are one kernel."""
    return any(
        softmax in kernel.origins and sum(origin in network.matrices for origin in kernel.origins) >= 2
        for kernel in kernels
    )


def _result(kernel: Kernel) -> str:
    """Return the type that a kernel is counted under: what it writes."""
    return kernel.outputs[0].dtype if kernel.outputs else ""
