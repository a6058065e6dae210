"""Adding a reduced precision to a bundle that is being written: export, cut, write, pass the gate."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import msgspec

from mmms_deploy.bundle import (
    GOLDEN_NAME,
    BundleWriter,
    GateCheck,
    Manifest,
    Precision,
    Rate,
    StageGraph,
    TensorSpec,
)
from mmms_deploy.bundle.contract import ClickMemory
from mmms_deploy.engines.onnxruntime import cpu as onnxruntime_cpu
from mmms_deploy.errors import ExportError
from mmms_deploy.export.batched import Array, compare_batches, with_batches
from mmms_deploy.export.comparison import Worst
from mmms_deploy.export.cut import Cut, StageModel, cut
from mmms_deploy.export.gate import Golden
from mmms_deploy.export.graphs import save_graph, write_stages
from mmms_deploy.export.half.gate import Features, compare_disks, compare_listed, compare_native, compare_rounded
from mmms_deploy.export.half.network import OPSETS, half_network
from mmms_deploy.export.half.precision import REDUCED, other_precisions
from mmms_deploy.export.half.rounded import rounded
from mmms_deploy.export.listed import with_sizes
from mmms_deploy.export.network import export_whole
from mmms_deploy.export.rewrites.deployed import Deployed
from mmms_deploy.export.steps import announce
from mmms_deploy.files import writing
from mmms_deploy.models import InteractiveNetwork
from mmms_deploy.progress import OnProgress

HALF_STEPS: Mapping[Precision, int] = MappingProxyType(
    {precision: 4 if precision in onnxruntime_cpu.SOURCES else 3 for precision in OPSETS}
)
"""How many steps :func:`add_half` reports."""


@dataclass(frozen=True)
class Float32:
    """The network in float32: a reduced precision is made of it and compared with it.

    Attributes:
        paper: The network in the paper's form.
        deployed: The rewritten network.
        stages: Its stages in float32.
        golden: The torch reference's answers.
        features: The features that the float32 graphs computed, by image.
    """

    paper: InteractiveNetwork
    deployed: Deployed
    stages: Sequence[StageModel]
    golden: Golden
    features: Sequence[Features]


@dataclass(frozen=True)
class Added:
    """What was added.

    Attributes:
        manifest: The manifest with the new graphs.
        gate: What was measured.
        nodes: ONNX nodes of each new graph, by the name of its file.
    """

    manifest: Manifest
    gate: list[GateCheck]
    nodes: dict[str, int]


def add_half(
    writer: BundleWriter,
    manifest: Manifest,
    original: Float32,
    precision: Precision,
    cuts: Collection[Cut],
    batches: Sequence[int] = (),
    on_progress: OnProgress | None = None,
) -> Added:
    """Write a network's graphs in a reduced precision, and compare them with float32 and with the checkpoint.

    Args:
        writer: The bundle, with its float32 graphs and golden replay written.
        manifest: Its manifest so far.
        original: The network in float32.
        precision: FP16 or BF16.
        cuts: Where it is cut, beside the cut where clicks come in.
        batches: How many objects further click stages answer for in one run, rising.
        on_progress: Receives every step as it starts.

    Returns:
        The new manifest, and what was measured.

    Raises:
        ExportError: It cannot be exported.
        GateError: It differs too much from float32.
        OutputWriteError: It cannot be written.
    """
    announce(on_progress, f"{precision}: exporting the network to ONNX")
    network = half_network(original.deployed, original.paper, precision, cuts)
    export = partial(export_whole, opset=OPSETS[precision])
    stages = with_sizes(network, cut(export(network), network.rates()), export)
    stages = with_batches(network, stages, export, batches)
    _check_borders(stages, original.stages, network.feature_outputs(), precision)
    announce(on_progress, f"{precision}: writing the graphs")
    graphs = write_stages(writer, network, stages, precision)
    nodes = {graph.file: stage.model.graph.num_nodes() for graph, stage in zip(graphs, stages, strict=True)}
    half_opsets = {**manifest.provenance.half_opsets, precision: OPSETS[precision]}
    added = msgspec.structs.replace(
        manifest,
        provenance=msgspec.structs.replace(manifest.provenance, half_opsets=half_opsets),
        stages=tuple(
            msgspec.structs.replace(stage, graphs={**stage.graphs, precision: graph})
            for stage, graph in zip(manifest.stages, graphs, strict=True)
        ),
    )
    announce(on_progress, f"gate: {precision} against float32")
    gate = []
    for half, exact in zip(stages, original.stages, strict=True):
        if manifest.clicks.objects > 1:
            continue  # its clicks draw nothing
        if half.batch is not None:
            continue  # it is compared with the stage for one object
        if manifest.clicks.memory is ClickMemory.CLICKS:
            gate += compare_listed(half, exact, manifest, original.golden, precision)
        elif half.rate is Rate.CLICK:
            gate.append(compare_disks(half, exact, manifest, original.golden, precision))
    gate += _compare_rounded(writer, added, original, stages, precision, network.feature_outputs())
    if precision in onnxruntime_cpu.SOURCES:
        announce(on_progress, f"gate: replaying the clicks through a session in {precision}")
        gate += compare_native(writer.seal(added), original.golden, precision)
    return Added(added, gate, nodes)


def _check_borders(
    half: Sequence[StageModel], float32: Sequence[StageModel], features: frozenset[str], precision: Precision
) -> None:
    """Check that the cut found the same stages, each with the same features."""
    found, wanted = (
        {stage.name: sorted(features & set(stage.outputs)) for stage in stages} for stages in (half, float32)
    )
    if found != wanted:
        raise ExportError(
            f"in {precision} the network is cut into {found}",
            expected=f"the same stages and features as in float32: {wanted}",
            fix="pass precisions=[Precision.FP32], and please report the network",
            command_fix="pass --precision fp32, and please report the network",
        )


def _compare_rounded(
    writer: BundleWriter,
    manifest: Manifest,
    original: Float32,
    stages: Sequence[StageModel],
    precision: Precision,
    features: frozenset[str],
) -> list[GateCheck]:
    """Compare the rounding form of the graphs, in a temporary bundle beside the one that is written."""
    with (
        writing(writer.out),
        tempfile.TemporaryDirectory(prefix=".rounded.", dir=writer.out.parent) as folder,
        BundleWriter(Path(folder) / "rounded") as scratch,
    ):
        shutil.copyfile(writer.path(GOLDEN_NAME), scratch.path(GOLDEN_NAME))
        described = []
        for stage, model in zip(manifest.stages, stages, strict=True):
            graph = stage.graphs[precision]
            data = save_graph(rounded(model.model), scratch.path(graph.file), writer.out)
            inputs, outputs = _widened(graph.inputs), _widened(graph.outputs)
            wide = StageGraph(file=graph.file, data=data, inputs=inputs, outputs=outputs)
            described.append(msgspec.structs.replace(stage, graphs={Precision.FP32: wide}))
        bundle = scratch.seal(msgspec.structs.replace(manifest, stages=tuple(described)))
        gate = compare_rounded(bundle, original.golden, original.features, precision, features)
        files = {stage.name: scratch.path(stage.graphs[Precision.FP32].file) for stage in described}
        return gate + _compare_batches(bundle.manifest, files, original, precision)


def _compare_batches(
    manifest: Manifest, files: Mapping[str, Path], original: Float32, precision: Precision
) -> list[GateCheck]:
    """Compare the click stages for several objects with the one for one object, every result rounded."""
    if not manifest.batches:
        return []
    name = f"stages for several objects in {precision} against one, every result rounded"
    measure = "largest 1 - IoU of the mask"
    worst = Worst(name, measure, REDUCED[precision].mask, *other_precisions(precision))
    threshold = manifest.clicks.threshold

    def apart(found: Array, wanted: Array) -> float:
        ours, theirs = found > threshold, wanted > threshold
        union = int((ours | theirs).sum())
        return 1.0 - int((ours & theirs).sum()) / union if union else 0.0

    features = {name: array for name, (_, array) in original.features[0].items()}
    case = original.golden.cases[0]
    return compare_batches(manifest, files, features, case, answers=worst, measure=apart)


def _widened(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    half = ("float16", "bfloat16")
    return tuple(msgspec.structs.replace(s, dtype="float32") if s.dtype in half else s for s in specs)
