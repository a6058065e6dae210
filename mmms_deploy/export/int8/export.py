"""Adding graphs in 8 bits to a bundle that is being written: calibrate, quantise, choose the layers, write, compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata

import msgspec

from mmms_deploy.bundle import Bundle, BundleWriter, GateCheck, Manifest, Precision, Quantisation
from mmms_deploy.engines import registry
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import EngineError, GateError
from mmms_deploy.export.cut import Cut, StageModel
from mmms_deploy.export.gate import Golden
from mmms_deploy.export.graphs import Roles, write_stages
from mmms_deploy.export.half.export import Added
from mmms_deploy.export.int8.calibration import calibration_samples, record_calls
from mmms_deploy.export.int8.layers import Layer, named_weights
from mmms_deploy.export.int8.precision import Int8Options
from mmms_deploy.export.int8.quantisation import import_nncf, quantise
from mmms_deploy.export.int8.replaying import Substitutes
from mmms_deploy.export.int8.selection import Search, share
from mmms_deploy.export.steps import announce
from mmms_deploy.progress import OnProgress, Progress
from mmms_deploy.replay.verification import LIMITS, VerificationReport, replay

INT8_STEPS = 5
"""How many steps :func:`add_int8` reports."""
_TRIES = 4
"""How often further layers are left in float32 after the graphs were made again without those that were chosen."""


def add_int8(
    writer: BundleWriter,
    manifest: Manifest,
    network: Roles,
    stages: Sequence[StageModel],
    golden: Golden,
    options: Int8Options,
    on_progress: OnProgress | None = None,
) -> Added:
    """Write a network's graphs in 8 bits, and compare their masks with the checkpoint's.

    Args:
        writer: The bundle, with its float32 graphs and golden replay written.
        manifest: Its manifest so far.
        network: What knows the roles of the stages' tensors.
        stages: The stages in float32.
        golden: The torch reference's answers.
        options: How graphs are quantised.
        on_progress: Receives every step as it starts; measuring a layer is a step of depth 1.

    Returns:
        The new manifest, and what was measured.

    Raises:
        ExportError: NNCF is not installed or cannot quantise a graph, or the folder of pictures holds none.
        GateError: Masks differ too much, however many layers stay in float32; the message names the worst one.
        OutputWriteError: It cannot be written.
    """
    import_nncf()
    bundle = writer.seal(manifest)
    announce(on_progress, "int8: answering clicks in float32 to calibrate")
    samples = (
        []
        if Cut.BLACK_BOX in manifest.provenance.cuts
        else calibration_samples(manifest.modalities, options.calibration)
    )
    calls = record_calls(bundle, golden.cases, samples)
    announce(on_progress, "int8: quantising the graphs")
    original = {stage.name: stage.model for stage in stages}
    measured = [name for name in original if name not in manifest.larger]
    weights = {name: named_weights(model.graph) for name, model in original.items()}
    first = {name: quantise(original[name], calls[name]) for name in measured}
    announce(on_progress, "int8: finding the layers that masks need in float32")
    with Substitutes(bundle) as engine:
        search = Search(
            first,
            original,
            engine.likeness,
            iou=options.iou,
            least=LIMITS[Precision.INT8],
            on_layer=_each(on_progress),
        )
        count = search.smallest()
        final = first
        for _ in range(_TRIES):
            if count == 0:
                break
            final = {
                name: quantise(original[name], calls[name], [layer.node for layer in left])
                for name, left in search.left(count).items()
            }
            if search.passes(engine.likeness(final)):
                break
            count = search.smallest(from_count=count + max(1, count // 8))
    left = search.left(count) if count else {name: [] for name in measured}
    for name in manifest.larger:
        final[name] = quantise(original[name], calls[name], _same(name, manifest, left, weights))
    announce(on_progress, "int8: writing the graphs")
    written = [replace(stage, model=final[stage.name]) for stage in stages]
    graphs = write_stages(writer, network, written, Precision.INT8)
    nodes = {graph.file: stage.model.graph.num_nodes() for graph, stage in zip(graphs, written, strict=True)}
    quantisation = Quantisation(
        tool=f"NNCF {metadata.version('nncf')}",
        pictures=(*golden.names, *(sample.name for sample in samples)),
        iou=options.iou,
        layers=sum(map(len, search.layers.values())),
        share={name: round(share(search.layers[name], left[name]), 4) for name in measured},
        float_layers={name: tuple(layer.weight for layer in layers) for name, layers in left.items() if layers},
    )
    added = msgspec.structs.replace(
        manifest,
        provenance=msgspec.structs.replace(manifest.provenance, quantisation=quantisation),
        stages=tuple(
            msgspec.structs.replace(stage, graphs={**stage.graphs, Precision.INT8: graph})
            for stage, graph in zip(manifest.stages, graphs, strict=True)
        ),
    )
    announce(on_progress, "gate: replaying the clicks through sessions in int8")
    for others in _others():
        chosen = msgspec.structs.replace(quantisation, others=others)
        added = msgspec.structs.replace(
            added, provenance=msgspec.structs.replace(added.provenance, quantisation=chosen)
        )
        try:
            gate = compare_int8(writer.seal(added), golden, options)
        except GateError:
            if others is Precision.FP32:
                raise
        else:
            return Added(added, gate, nodes)
    raise AssertionError("fp32 is always tried")


def _others() -> tuple[Precision, ...]:
    """Return what the operations beside the layers in 8 bits may be computed in here, the fastest first."""
    try:
        from mmms_deploy.engines.openvino.library import bf16_capable

        fast = bf16_capable()
    except EngineError:
        fast = False
    return (Precision.BF16, Precision.FP32) if fast else (Precision.FP32,)


def _each(on_progress: OnProgress | None) -> Callable[[int, int], None]:
    def show(number: int, total: int) -> None:
        if on_progress is not None:
            task = "int8: measuring each layer alone"
            on_progress(Progress(task, number - 1, total, depth=1, finished=number == total))

    return show


def _same(
    name: str, manifest: Manifest, left: Mapping[str, Sequence[Layer]], weights: Mapping[str, dict[str, str]]
) -> list[str]:
    """Return the nodes of a stage for longer lists or several objects whose weights stay in float32."""
    rates = {stage.name: stage.rate for stage in manifest.stages}
    names = {layer.weight for stage, layers in left.items() if rates[stage] is rates[name] for layer in layers}
    return [node for node, weight in weights[name].items() if weight in names]


def compare_int8(bundle: Bundle, golden: Golden, options: Int8Options) -> list[GateCheck]:
    """Click through sessions that execute the graphs in 8 bits, with every engine for CPUs that is installed.

    Args:
        bundle: The bundle.
        golden: The torch reference's answers.
        options: The mean IoU that must be reached.

    Returns:
        What was measured: for every engine the mean and the worst of all masks.

    Raises:
        GateError: A limit is exceeded.
    """
    gate: list[GateCheck] = []
    for backend in registry.BACKENDS:
        if backend.device != "cpu" or Precision.INT8 not in backend.computes:
            continue
        try:
            backend.installed()
        except EngineError:
            continue
        request = EngineRequest(device="cpu", engine=backend.name, precision=Precision.INT8, strict=True)
        gate += _checks(replay(bundle, request), golden, options)
    return gate


def _checks(report: VerificationReport, golden: Golden, options: Int8Options) -> list[GateCheck]:
    worst, masks = report.worst, report.checks
    name = f"session in int8 ({report.engine.name}) against torch, closed loop"
    where = f"stage click, image {golden.names[worst.case]}, click {worst.click + 1}"
    mean = sum(check.iou for check in masks) / len(masks)
    checks = [
        GateCheck(
            name=name,
            measure="mean 1 - IoU of the masks on certain pixels",
            worst=1 - mean,
            limit=1 - options.iou,
            where=where,
            samples=len(masks),
        ),
        GateCheck(
            name=name,
            measure="largest 1 - IoU of the mask on certain pixels",
            worst=1 - worst.iou,
            limit=1 - LIMITS[Precision.INT8],
            where=where,
            samples=len(masks),
        ),
    ]
    for check in checks:
        if not check.worst <= check.limit:
            raise GateError(
                f"{check.name}: {check.measure} is {check.worst:.3g}, the worst at {check.where}",
                expected=f"at most {check.limit:.3g}",
                fix="pass a lower Int8Options(iou=...), or leave Precision.INT8 out of precisions; nothing was written",
                command_fix="pass a lower --int8-iou, or leave int8 out of --precision; nothing was written",
            )
    return checks
