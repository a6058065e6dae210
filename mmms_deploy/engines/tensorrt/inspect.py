"""The types that a TensorRT plan really computes in, read from the list of its kernels.

The types of the ONNX graph alone do not show it. With a GPU, the list comes from the engine inspector, as JSON; for a
plan that is compiled ahead of time, it comes from the messages of the build. Each kernel names the operations of the
ONNX graph that it computes, and the types of its operands. So each convolution and matrix product of the graph can be
looked up, and whether an attention (matrix product, softmax, matrix product) became one kernel.

Neither list has a documented form, and releases differ in what they show. So a plan is refused only for a kernel that
names another type for its product. Where no kernel names a type, the type in the parsed graph counts, and the report
says so.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mmms_deploy.bundle import Precision
from mmms_deploy.bundle.contract import Struct
from mmms_deploy.errors import MMMSDeployWarning, PlanPrecisionError

WIDE = Precision.FP32
UNPROVEN = "precision not proven"
"""What is said of a plan whose kernels show another type than the requested one, where such a plan is allowed."""
_MOST_DOUBTS, _MOST_SHOWN = 40, 5
_TYPES = {
    "half": Precision.FP16.value,
    "fp16": Precision.FP16.value,
    "bfloat16": Precision.BF16.value,
    "bf16": Precision.BF16.value,
    "float": Precision.FP32.value,
    "fp32": Precision.FP32.value,
}
_FLOATS = frozenset(_TYPES.values())
_TYPE = re.compile(r"\b(bfloat16|bf16|half|fp16|float|fp32|int8|uint8|int32|int64|bool|fp8)\b", re.IGNORECASE)
_MEMORY = re.compile(r"^Total (Activation|Weights) Memory: (\d+) bytes", re.MULTILINE)
_ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_MOVING = frozenset({"kgen", "reformat", "noop", "move", "shuffle", "constant", "myelinreformat", "myelinshuffle"})
"""Kinds of kernels that compute no matrix product, unless their names show one: they prepare operands and move results,
and carry the names of the operations that they serve."""
_MULTIPLIES = re.compile(r"mha|gemm|conv|_Fc|MulSum", re.IGNORECASE)
_IDLE = frozenset({"noop", "constant", "signal", "wait", "trainstation"})
"""Kinds of layers that launch no kernel."""
_OPAQUE = frozenset({"myelin", "safetymyelin", "foreignnode"})
"""Kinds of layers that stand for a whole region of the graph, whose kernels are not listed."""
_SHORT = {"f16": Precision.FP16, "bf16": Precision.BF16, "f32": Precision.FP32, "tf32": Precision.FP32}
_TACTIC = re.compile(r"_(bf16|f16|tf32|f32)\1_|gemm_(bf16|f16|tf32|f32)_\2_")
"""The type of both factors in the name of a library's kernel (``sm80_xmma_gemm_f16f16_f16f32_...``,
``cutlass3x_sm90_tensorop_gemm_f16_f16_f32_...``)."""
_TENSOR = re.compile(r"\{ Name: (.+?), (?:Location: \w+, )?Dimensions: \[([\d,\s-]*)\].*?Datatype: ([^,}]+)")
_LINE = re.compile(
    r"^Name: (?P<name>.+?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\]"
    r"(?:, Constants: \[(?P<constants>.*?)\])?, Outputs: \[(?P<outputs>(?:.*?\})?\s*)\], (?P<middle>.*?)"
    r"TacticName: (?P<tactic>.*?), (?:TacticValue: \w+, )?StreamId:(?P<rest>.*)$",
    re.MULTILINE,
)
_WEIGHTS = re.compile(r'Weights: \{"Type": "(\w+)", "Count": (\d+)\}')


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
        origins: Names of the ONNX nodes that it computes or serves.
        inputs: What it reads.
        constants: The weights that it reads, where the library lists them separately.
        outputs: What it writes.
        tactic: The library's name of its implementation.
    """

    name: str
    kind: str
    origins: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    tactic: str = ""

    @property
    def opaque(self) -> bool:
        """Whether it is a region of several kernels instead of one kernel."""
        return self.kind.lower() in _OPAQUE or self.name.startswith("{ForeignNode[")

    @property
    def multiplies(self) -> bool:
        """Whether it computes a convolution or matrix product, instead of only moving data for one."""
        return self.kind.lower() not in _MOVING or _MULTIPLIES.search(self.name) is not None

    @property
    def operand(self) -> str:
        """The type of its factors, by its tactic, its weights, or all its inputs; empty where none of them shows it.

        Other inputs than the two factors (a bias, a summand) may have another type.
        """
        if found := _TACTIC.search(self.tactic):
            return _SHORT[found[1] or found[2]].value
        weights = [tensor for tensor in self.constants if tensor.rank > 1 and tensor.elements > 1]
        if weights:
            return max(weights, key=lambda tensor: tensor.elements).dtype
        read = {tensor.dtype for tensor in self.inputs if tensor.elements > 1 and tensor.dtype in _FLOATS}
        return read.pop() if len(read) == 1 else ""


class Network(Struct, frozen=True, kw_only=True):
    """What the library read from an ONNX graph, before it compiled anything.

    Attributes:
        matrices: Type of every convolution and matrix product, by ONNX node.
        attentions: The ONNX node of the softmax of every attention.
    """

    matrices: dict[str, str]
    attentions: tuple[str, ...]


class PlanReport(Struct, frozen=True, kw_only=True):
    """What a plan computes in, and what memory it needs.

    Attributes:
        kernels: Number of kernels that a run launches, without those of ``regions``; 0 when the library listed none.
        types: Number of these kernels by the type that they write.
        matrices: Number of convolutions and matrix products by the type that they multiply in. Without a list of
            kernels, those of the typed graph.
        wide: Names of the convolutions and matrix products in float32.
        attentions: Number of attentions in the graph.
        fused: Number of attentions that became one kernel.
        activation_bytes: Scratch memory of one run on the GPU; None when unknown.
        weight_bytes: Weights on the GPU; None when unknown.
        listed: Source of the list of kernels, ``inspector`` or ``build``; empty when there is no list, or one with too
            little in it.
        unproven: Number of convolutions and matrix products that are counted by the typed graph, because no kernel
            shows the type that it multiplies in.
        regions: Number of parts of the graph that the library lists as one, without their kernels.
        doubts: The kernels of convolutions and matrix products that show another type than the graph's, or none: each
            with its kind, its names, the type that was read, and the ONNX nodes. The first 40.
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
    unproven: int = 0
    regions: int = 0
    doubts: tuple[str, ...] = ()

    def proven(self, precision: Precision) -> bool:
        """Return whether no kernel shows another type than a precision. A kernel that shows none does not count."""
        return all(dtype == precision for dtype in self.matrices)

    def evidence(self, precision: Precision) -> str:
        """Return what the inspection found, e.g. ``82 of 82 matrix operations in fp16, 8 of 8 attentions fused``."""
        done, total = self.matrices.get(precision, 0), sum(self.matrices.values())
        fused = f", {self.fused} of {self.attentions} attentions fused" if self.attentions and self.listed else ""
        unproven = "" if self.proven(precision) else f"; {UNPROVEN}"
        return f"{done} of {total} matrix operations in {precision}{fused}{self._doubt()}{unproven}"

    def _doubt(self) -> str:
        if not self.listed:
            return ", as its typed graph says (the library lists no kernels)"
        hidden = f", {self.regions} parts of it without their kernels" if self.regions else ""
        if not self.unproven:
            return hidden
        return f", {self.unproven} of them as its typed graph says (their kernels do not show it{hidden})"


def check_precision(
    report: PlanReport, precision: Precision, stage: str, library: str, *, allow_unproven: bool = False
) -> None:
    """Refuse a plan that does not compute in the requested precision, or warn of it where that is allowed.

    Args:
        report: What was read from the plan.
        precision: The requested precision.
        stage: Name of the stage, for the message.
        library: Name and version of the library, for the message.
        allow_unproven: Whether to warn instead of refusing it.

    Raises:
        PlanPrecisionError: A convolution or matrix product is not computed in the precision.

    Warns:
        MMMSDeployWarning: The same, where it is allowed.
    """
    if report.proven(precision):
        return
    other = {dtype: count for dtype, count in report.matrices.items() if dtype != precision}
    listed = ", ".join(f"{count} in {dtype or 'an unknown type'}" for dtype, count in sorted(other.items()))
    names = f" ({', '.join(report.wide[:5])}{', ...' if len(report.wide) > 5 else ''})" if report.wide else ""
    given = (
        f"{library} compiled stage {stage!r} with {listed} of {sum(report.matrices.values())} matrix operations{names}"
    )
    if allow_unproven:
        doubts = "".join(f"\n  {doubt}" for doubt in report.doubts[:_MOST_SHOWN])
        warnings.warn(f"{given}: {UNPROVEN}{doubts}", MMMSDeployWarning, stacklevel=2)
        return
    usual = "export the checkpoint again with this version; if that does not help, use another precision"
    raise PlanPrecisionError(
        given,
        expected=f"all of them in {precision}",
        fix=f"{usual}, or look at it with CudaOptions(allow_unproven=True)",
        command_fix=f"{usual}, or look at it: mmms-build, mmms-verify and mmms-bench take --allow-unproven",
    )


# --- reading lists of kernels -----------------------------------------------------------------------------------------


def kernels_of_messages(details: Iterable[str]) -> tuple[Kernel, ...]:
    """Return the kernels that a build listed in its messages.

    Args:
        details: Messages of severity VERBOSE. They can hold several lists, for several kinds of GPU; the first counts.
    """
    for message in details:
        found = [_kernel(match) for match in _LINE.finditer(message)]
        if found:
            return tuple(found)
    return ()


def _kernel(line: re.Match[str]) -> Kernel:
    constants = _tensors(line["constants"] or "")
    if weights := _WEIGHTS.search(line["middle"]):
        constants = (*constants, Tensor(dtype=type_name(weights[1]), elements=int(weights[2]), rank=2))
    return Kernel(
        name=line["name"],
        kind=line["kind"],
        origins=tuple(_ORIGIN.findall(line["rest"])),
        inputs=_tensors(line["inputs"]),
        constants=constants,
        outputs=_tensors(line["outputs"]),
        tactic=line["tactic"],
    )


def _tensors(text: str) -> tuple[Tensor, ...]:
    found = []
    for _, sizes, dtype in _TENSOR.findall(text):
        shape = [int(size) for size in sizes.split(",") if size.strip()]
        found.append(Tensor(dtype=type_name(dtype), elements=math.prod(shape), rank=len(shape)))
    return tuple(found)


def kernels_of_inspector(text: str) -> tuple[Kernel, ...]:
    """Return the kernels of an engine inspector's JSON, of any version from 10.12.

    A tensor's type is in ``Datatype``, or in the words of ``Format/Datatype`` (``Row major linear FP16 format``).
    Weights are in ``Constants``, in ``Weights`` with type and number, among ``Inputs``, or nowhere. Other text yields
    no kernels: the plan was built without details, or a release writes another list.
    """
    try:
        # Not strict: some releases put control characters between the names of ONNX nodes.
        content = json.loads(text or "{}", strict=False)
    except json.JSONDecodeError:
        return ()
    layers = content.get("Layers") if isinstance(content, dict) else None
    if not isinstance(layers, list):
        return ()
    found = []
    for layer in layers:
        if not isinstance(layer, Mapping):  # a name alone: the plan was built without details
            continue
        constants = list(_items(layer.get("Constants")))
        weights = layer.get("Weights")
        if isinstance(weights, Mapping) and weights.get("Count"):
            constants.append(Tensor(dtype=type_name(str(weights.get("Type"))), elements=int(weights["Count"]), rank=2))
        found.append(
            Kernel(
                name=str(layer.get("Name", "")),
                kind=str(layer.get("LayerType", "")),
                origins=tuple(_ORIGIN.findall(str(layer.get("Metadata", "")))),
                inputs=_items(layer.get("Inputs")),
                constants=tuple(constants),
                outputs=_items(layer.get("Outputs")),
                tactic=str(layer.get("TacticName", "")),
            )
        )
    return tuple(found)


def _items(items: Any) -> tuple[Tensor, ...]:
    return tuple(_tensor(item) for item in items or () if isinstance(item, Mapping))


def _tensor(item: Mapping[str, Any]) -> Tensor:
    shape = [int(size) for size in item.get("Dimensions") or ()]
    dtype = str(item.get("Datatype") or item.get("Format/Datatype") or item.get("Format") or "")
    return Tensor(dtype=type_name(dtype), elements=math.prod(shape), rank=len(shape))


def type_name(words: str) -> str:
    """Return the name that a precision has for the library's name of a type; empty for no type."""
    match = _TYPE.search(words)
    return _TYPES.get(match[1].lower(), match[1].lower()) if match else ""


def memory_of_messages(details: Iterable[str]) -> tuple[int | None, int | None]:
    """Return the bytes of scratch memory and of weights that a build reports; None where it does not report them."""
    found = {match[1]: int(match[2]) for text in details for match in _MEMORY.finditer(text)}
    return found.get("Activation"), found.get("Weights")


# --- summarising them -------------------------------------------------------------------------------------------------


def summarise(
    network: Network,
    kernels: tuple[Kernel, ...],
    *,
    listed: str,
    activation_bytes: int | None = None,
    weight_bytes: int | None = None,
) -> PlanReport:
    """Count what the kernels of a plan compute.

    Args:
        network: The graph, as the library read it.
        kernels: The kernels; none when the library listed none.
        listed: Source of the list, ``inspector`` or ``build``.
        activation_bytes: Scratch memory of one run.
        weight_bytes: Weights on the GPU.
    """
    shown = tuple(kernel for kernel in kernels if not kernel.opaque)
    launched = tuple(kernel for kernel in shown if kernel.kind.lower() not in _IDLE)
    hidden = {origin for kernel in kernels if kernel.opaque for origin in kernel.origins}
    computing = {name: kernel for name in network.matrices if (kernel := _computing(name, shown)) is not None}
    # A list that lacks most of them shows nothing.
    known = bool(shown) and 2 * len(computing) >= len(network.matrices)
    found = {name: kernel.operand for name, kernel in computing.items() if kernel.multiplies and kernel.operand}
    shown_types = found if known else {}
    # The others were computed at build time.
    counted = [name for name in network.matrices if not known or name in computing or name in hidden]
    types = {name: shown_types.get(name, network.matrices[name]) for name in counted}
    return PlanReport(
        kernels=len(launched),
        types=dict(Counter(_result(kernel) for kernel in launched)),
        matrices=dict(Counter(types.values())),
        wide=tuple(name for name, dtype in types.items() if dtype == WIDE),
        attentions=len(network.attentions),
        fused=sum(_fused(softmax, shown, network) for softmax in network.attentions) if known else 0,
        activation_bytes=activation_bytes,
        weight_bytes=weight_bytes,
        listed=listed if known else "",
        unproven=len(types) - len(shown_types) if known else 0,
        regions=len(kernels) - len(shown),
        doubts=tuple(_doubts(network, computing))[:_MOST_DOUBTS] if known else (),
    )


def _doubts(network: Network, computing: Mapping[str, Kernel]) -> Iterator[str]:
    """Yield each kernel whose type is not the one of the graph's operations that it computes, with its names."""
    nodes: dict[str, list[str]] = {}
    for node, kernel in computing.items():
        read = kernel.operand if kernel.multiplies else ""
        if read != network.matrices[node]:
            names = f"{kernel.kind} {kernel.name!r}, {kernel.tactic or 'without a tactic'}"
            nodes.setdefault(f"{names}: {read or 'no type'}", []).append(node)
    for words, named in nodes.items():
        yield f"{words} for {', '.join(named)}"


def _computing(node: str, kernels: tuple[Kernel, ...]) -> Kernel | None:
    """Return the kernel that computes an ONNX node; others may name the node because they move its operands."""
    found = [kernel for kernel in kernels if node in kernel.origins]
    return min(found, key=lambda kernel: not kernel.multiplies, default=None)


def _fused(softmax: str, kernels: tuple[Kernel, ...], network: Network) -> bool:
    """Return whether a softmax and the two matrix products around it are one kernel."""
    return any(
        softmax in kernel.origins and sum(origin in network.matrices for origin in kernel.origins) >= 2
        for kernel in kernels
    )


def _result(kernel: Kernel) -> str:
    """Return the type that a kernel writes; kernels are counted by it."""
    return kernel.outputs[0].dtype if kernel.outputs else ""
