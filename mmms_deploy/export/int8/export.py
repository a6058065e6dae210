"""Adding graphs in 8 bits to a bundle that is being written: calibrate, quantise, choose the layers, write, compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata

import msgspec
import onnx_ir as ir

from mmms_deploy.bundle import Bundle, BundleWriter, GateCheck, Manifest, Precision, Quantisation, Rate
from mmms_deploy.engines import registry
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import EngineError, GateError
from mmms_deploy.export.cut import Cut, StageModel
from mmms_deploy.export.gate import Golden
from mmms_deploy.export.graphs import Roles, write_stages
from mmms_deploy.export.half.export import Added
from mmms_deploy.export.int8.calibration import Call, calibration_samples, record_calls
from mmms_deploy.export.int8.layers import Layer, named_weights
from mmms_deploy.export.int8.precision import Int8Options
from mmms_deploy.export.int8.quantisation import import_nncf, quantise
from mmms_deploy.export.int8.replaying import Substitutes
from mmms_deploy.export.int8.selection import Search, share
from mmms_deploy.export.steps import announce
from mmms_deploy.progress import OnProgress, Progress
from mmms_deploy.replay.verification import LIMITS, VerificationReport, replay

INT8_STEPS = 4
"""How many steps :func:`add_int8` reports."""
_TRIES = 5
"""How often graphs are made with more layers in float32: engines differ a little from what was measured."""


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
        on_progress: Receives every step as it starts; measuring a layer and replaying a click are steps of depth 1.

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
    black_box = Cut.BLACK_BOX in manifest.provenance.cuts
    samples = [] if black_box else calibration_samples(manifest.modalities, options.calibration)
    calls = record_calls(bundle, golden.cases, samples)
    announce(on_progress, "int8: quantising the graphs")
    source = _Source(manifest, {stage.name: stage.model for stage in stages}, calls)
    first = {name: source.quantised(name) for name in source.measured}
    announce(on_progress, "int8: finding the layers that masks need in float32")
    with Substitutes(bundle) as engine:
        least, on_layer = LIMITS[Precision.INT8], _each(on_progress)
        search = Search(first, source.original, engine.likeness, iou=options.iou, least=least, on_layer=on_layer)
        count, failure = search.smallest(), None
        announce(on_progress, "int8: writing and comparing the graphs")
        for number in range(_TRIES):
            if number:
                if count >= search.most:
                    break
                count = search.smallest(from_count=min(count + max(1, search.total // 16), search.most))
            left = search.left(count) if count else {name: [] for name in source.measured}
            final = source.all_quantised(left) if count else source.completed(first, left)
            if count == 0 or search.passes(engine.likeness({name: final[name] for name in source.measured})):
                made = Quantisation(
                    tool=f"NNCF {metadata.version('nncf')}",
                    pictures=(*golden.names, *(sample.name for sample in samples)),
                    iou=options.iou,
                    layers=search.total,
                    share={name: round(share(search.layers[name], left[name]), 4) for name in source.measured},
                    float_layers={name: tuple(one.weight for one in layers) for name, layers in left.items() if layers},
                )
                written = [replace(stage, model=final[stage.name]) for stage in stages]
                try:
                    return _written(writer, manifest, network, written, made, golden, on_progress)
                except GateError as error:
                    failure = error
    raise failure or search.refusal(count)


@dataclass(frozen=True)
class _Source:
    """What graphs in 8 bits are made of.

    Attributes:
        manifest: The bundle's manifest.
        original: The graphs in float32, by stage.
        calls: What they are called with.
    """

    manifest: Manifest
    original: Mapping[str, ir.Model]
    calls: Mapping[str, Sequence[Call]]

    @property
    def measured(self) -> list[str]:
        """Names of the stages that golden clicks run: those for one object and the shortest list of clicks."""
        return [name for name in self.original if name not in self.manifest.larger]

    def quantised(self, name: str, left: Sequence[str] = ()) -> ir.Model:
        """Return a stage in 8 bits, with some nodes in float32."""
        sees_pixels = self.manifest.stage(name).rate < Rate.FIRST_CLICK
        return quantise(self.original[name], self.calls[name], left, sees_pixels=sees_pixels)

    def all_quantised(self, left: Mapping[str, Sequence[Layer]]) -> dict[str, ir.Model]:
        """Return all stages in 8 bits, with some layers in float32."""
        found = {name: self.quantised(name, [layer.node for layer in layers]) for name, layers in left.items()}
        return self.completed(found, left)

    def completed(self, found: Mapping[str, ir.Model], left: Mapping[str, Sequence[Layer]]) -> dict[str, ir.Model]:
        """Return stages in 8 bits with those for longer lists and several objects, which leave out the same weights."""
        stage_of, larger = self.manifest.stage, {}
        for name in self.original.keys() - found.keys():
            rate = stage_of(name).rate
            names = {one.weight for stage, layers in left.items() if stage_of(stage).rate is rate for one in layers}
            weights = named_weights(self.original[name].graph)
            larger[name] = self.quantised(name, [node for node, weight in weights.items() if weight in names])
        return {**found, **larger}


def _written(
    writer: BundleWriter,
    manifest: Manifest,
    network: Roles,
    stages: Sequence[StageModel],
    made: Quantisation,
    golden: Golden,
    on_progress: OnProgress | None,
) -> Added:
    """Write graphs in 8 bits, and compare them in sessions: with BF16 for the rest, or else with float32.

    Raises:
        GateError: Masks differ too much.
    """
    graphs = write_stages(writer, network, stages, Precision.INT8)
    nodes = {graph.file: stage.model.graph.num_nodes() for graph, stage in zip(graphs, stages, strict=True)}
    described = tuple(
        msgspec.structs.replace(stage, graphs={**stage.graphs, Precision.INT8: graph})
        for stage, graph in zip(manifest.stages, graphs, strict=True)
    )
    failure: GateError | None = None
    for others in _others():
        quantisation = msgspec.structs.replace(made, others=others)
        provenance = msgspec.structs.replace(manifest.provenance, quantisation=quantisation)
        added = msgspec.structs.replace(manifest, provenance=provenance, stages=described)
        try:
            return Added(added, compare_int8(writer.seal(added), golden, made.iou, on_progress), nodes)
        except GateError as error:
            failure = error
    assert failure is not None
    raise failure


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


def _replayed(on_progress: OnProgress | None, engine: str) -> OnProgress:
    def show(step: Progress) -> None:
        if on_progress is not None:
            on_progress(replace(step, task=f"int8: replaying the clicks through a session on {engine}", depth=1))

    return show


def compare_int8(
    bundle: Bundle, golden: Golden, least: float, on_progress: OnProgress | None = None
) -> list[GateCheck]:
    """Click through sessions that execute the graphs in 8 bits, with every engine for CPUs that is installed.

    Args:
        bundle: The bundle.
        golden: The torch reference's answers.
        least: The mean IoU that must be reached.
        on_progress: Receives every click as a step of depth 1.

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
        gate += _checks(replay(bundle, request, on_progress=_replayed(on_progress, backend.name)), golden, least)
    return gate


def _checks(report: VerificationReport, golden: Golden, least: float) -> list[GateCheck]:
    worst, masks = report.worst, report.checks
    name = f"session in int8 ({report.engine.name}) against torch, closed loop"
    where = f"stage click, image {golden.names[worst.case]}, click {worst.click + 1}"
    mean = sum(check.iou for check in masks) / len(masks)
    checks = [
        GateCheck(
            name=name,
            measure="mean 1 - IoU of the masks on certain pixels",
            worst=1 - mean,
            limit=1 - least,
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
