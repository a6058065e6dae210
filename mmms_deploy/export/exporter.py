"""From a checkpoint to a bundle: export the whole, cut, write, pass the gate, rename into place."""

from __future__ import annotations

import datetime
import platform
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TypeAlias

import msgspec
import onnx_ir as ir

from mmms_deploy.bundle import (
    GOLDEN_NAME,
    SCHEMA,
    Bundle,
    BundleWriter,
    GateCheck,
    Manifest,
    Precision,
    Provenance,
    Rate,
    Stage,
)
from mmms_deploy.bundle.card import checked_license
from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.engines.wheels import require_onnxruntime
from mmms_deploy.errors import ExportError
from mmms_deploy.export.absmax import Peaks
from mmms_deploy.export.batched import checked_batches, compare_batches, with_batches
from mmms_deploy.export.comparison import Worst, difference
from mmms_deploy.export.cut import Cut, StageModel, choose_cuts, cut
from mmms_deploy.export.gate import PROBABILITY_LIMIT, Golden, compare_graphs, compare_session, record_golden
from mmms_deploy.export.graphs import save_graph, write_stages
from mmms_deploy.export.half.export import HALF_STEPS, Float32, add_half
from mmms_deploy.export.half.gate import FeatureRecorder, Features
from mmms_deploy.export.half.precision import reduced_precisions
from mmms_deploy.export.int8.calibration import calibration_files
from mmms_deploy.export.int8.export import INT8_STEPS, add_int8
from mmms_deploy.export.int8.precision import Int8Options
from mmms_deploy.export.int8.quantisation import import_nncf
from mmms_deploy.export.labelled import recurrent_network
from mmms_deploy.export.listed import with_sizes
from mmms_deploy.export.network import OPSET, RecurrentNetwork, export_whole
from mmms_deploy.export.operations import UncountedError, count_flops
from mmms_deploy.export.rewrites import BACKBONE, remaining
from mmms_deploy.export.rewrites.deploy import deploy_form
from mmms_deploy.export.rewrites.gate import compare_forms
from mmms_deploy.export.samples import NAMES, Sample, sample_images
from mmms_deploy.export.source import DEMOS, Source, SourcedNetwork, demo_checkpoint, open_source
from mmms_deploy.export.steps import announce, counted
from mmms_deploy.files import PathLike, writing
from mmms_deploy.hub import reference_of
from mmms_deploy.imaging.io import load_rgb
from mmms_deploy.models.network import InteractiveNetwork
from mmms_deploy.progress import OnProgress
from mmms_deploy.replay.golden import save_golden

__all__ = ["DEMOS", "Cut", "ExportReport", "Source", "count_steps", "demo_checkpoint", "export_bundle"]

_PACKAGES = (
    *("mmms-deploy", "torch", "timm", "onnx", "onnx-ir", "onnxscript", "nncf"),
    *("onnxruntime", "onnxruntime-gpu", "numpy"),
)

Gate: TypeAlias = Callable[[Bundle, InteractiveNetwork], Sequence[GateCheck]]
"""A further gate. It takes the finished bundle in its temporary folder, and the network in the paper's form."""


@dataclass(frozen=True)
class ExportReport:
    """What an export did.

    Attributes:
        bundle: The bundle at its final place.
        nodes: ONNX nodes of each graph, by the name of its file.
    """

    bundle: Bundle
    nodes: dict[str, int]


def count_steps(samples: int = len(NAMES), precisions: Collection[Precision] = ()) -> int:
    """Return how many steps :func:`export_bundle` reports, its further gates' left out.

    Args:
        samples: Number of pictures that the gate clicks on.
        precisions: The requested precisions.
    """
    half = sum(HALF_STEPS[precision] for precision in reduced_precisions(precisions))
    return 11 + samples + half + (INT8_STEPS if Precision.INT8 in precisions else 0)


def export_bundle(
    source: Source,
    out: Path,
    *,
    overwrite: bool = False,
    cuts: Collection[Cut] = (),
    no_rewrite: Collection[str] = (),
    precisions: Collection[Precision] = (Precision.FP32,),
    batches: Collection[int] = (),
    int8: Int8Options | None = None,
    gates: Sequence[Gate] = (),
    on_progress: OnProgress | None = None,
) -> ExportReport:
    """Export a network as a bundle, or leave nothing behind.

    Args:
        source: The checkpoint or random weights, and the description.
        out: The bundle's folder.
        overwrite: Whether to replace an existing bundle, once the new one is complete.
        cuts: Where to cut, beside the cut where clicks come in; ``late`` is added where a modality is optional.
        no_rewrite: Names of exact rewrites to leave out (``mmms_deploy.export.rewrites.NAMES``), or ``all``.
        precisions: Precisions to write the graphs in; float32 is always written.
        batches: How many objects of one image further click stages answer for in one run, such as (4, 16); each has
            graphs in every precision.
        int8: How the graphs in ``Precision.INT8`` are made; None for the defaults, or without such graphs.
        gates: Further gates, which run after all others; the manifest keeps their checks.
        on_progress: Receives every step as it starts: its name as ``task``, how many steps are over as ``done``, and
            how many there are as ``total``.

    Returns:
        The bundle and some facts about it.

    Raises:
        CheckpointError: The checkpoint or its description cannot be used.
        HubError: It cannot be fetched from the hub.
        WeightsError: It lacks the backbone's weights, which are published, and no source has them.
        BundleError: The licence is no identifier.
        SizeError: The network size does not fit.
        CutError: A cut makes no sense for this network.
        ExportError: ``batches`` are out of range, or the network's click stage answers for one object alone; or graphs
            in 8 bits are requested without NNCF, or with a folder without pictures; or ``int8`` comes without them.
        ImageError: A picture to calibrate on cannot be read.
        OutputExistsError: The folder exists.
        OutputWriteError: The folder cannot be written.
        GateError: The graphs do not compute what the checkpoint computes.
        EngineUnavailableError: There is no engine for the gate.
        ValueError: No rewrite has a name in ``no_rewrite``.
    """
    _check_request(source, no_rewrite, precisions, int8, cuts)
    source = source.fetched(on_progress)
    on_progress = counted(on_progress, count_steps(precisions=precisions))
    require_onnxruntime()
    with BundleWriter(out, overwrite=overwrite) as writer:
        announce(on_progress, "reading the checkpoint")
        black_box = Cut.BLACK_BOX in cuts
        sourced = open_source(source, black_box=black_box)
        batches = checked_batches(batches, sourced.network.config.clicks, sourced.network.config.family)
        cuts = choose_cuts(cuts, sourced.network.config.modalities, frozen=sourced.network.frozen is not None)
        samples = sample_images(sourced.network.config.modalities)
        listed = sourced.network.config.clicks.listed
        if listed is not None:
            samples = [replace(sample, clicks=sample.clicks[: listed.sizes[-1]]) for sample in samples]
        deployed, applied = deploy_form(sourced.network, {*no_rewrite, *(BACKBONE if black_box else ())})
        announce(on_progress, "gate: rewritten network against the paper's form")
        gate = compare_forms(sourced.network, deployed, applied, samples[0])
        network = recurrent_network(deployed, cuts)
        announce(on_progress, "exporting the whole network to ONNX")
        whole = export_whole(network)
        announce(on_progress, "cutting it into stages")
        stages = with_sizes(network, cut(whole, network.rates()), export_whole)
        stages = with_batches(network, stages, export_whole, batches)
        announce(on_progress, "writing the graphs")
        graphs = write_stages(writer, network, stages, Precision.FP32)
        manifest_stages = tuple(
            Stage(
                name=stage.name,
                rate=stage.rate,
                graphs={Precision.FP32: graph},
                bypass=_bypass(stage, network),
                rows=stage.rows,
                flops=_flops(writer.path(graph.file)),
                batch=msgspec.UNSET if stage.batch is None else stage.batch,
            )
            for stage, graph in zip(stages, graphs, strict=True)
        )
        files = [writer.path(graph.file) for graph in graphs]
        gate += _compare(writer, network, whole, list(zip(stages, files, strict=True)), samples[0], on_progress)
        nodes = {file.name: stage.model.graph.num_nodes() for file, stage in zip(files, stages, strict=True)}
        peaks = Peaks(sourced.network, applied)
        with peaks.watching():
            golden = record_golden(sourced.network, samples, on_progress, black_box=black_box)
        with writing(out):
            save_golden(writer.path(GOLDEN_NAME), golden.cases)
        manifest = _manifest(out.name, source, sourced, network, applied, manifest_stages, gate)
        manifest = msgspec.structs.replace(manifest, activations=() if black_box else peaks.found())
        announce(on_progress, "gate: replaying the clicks through a session")
        with FeatureRecorder(writer.seal(manifest), network.feature_outputs()) as recorder:
            gate += compare_session(recorder.bundle, golden, recorder)
        gate += _compare_batches(writer, manifest, golden, recorder.features)
        original = Float32(sourced.network, deployed, stages, golden, recorder.features)
        for precision in _reduced(precisions):
            if precision is Precision.INT8:
                added = add_int8(writer, manifest, network, stages, golden, int8 or Int8Options(), on_progress)
            else:
                added = add_half(writer, manifest, original, precision, cuts, batches, on_progress)
            manifest, gate, nodes = added.manifest, gate + added.gate, nodes | added.nodes
        for further in gates:
            gate += further(writer.seal(manifest), sourced.network)
        announce(on_progress, "moving the bundle into place")
        bundle = writer.commit(msgspec.structs.replace(manifest, gate=tuple(gate)))
    return ExportReport(bundle, nodes)


def _reduced(precisions: Collection[Precision]) -> tuple[Precision, ...]:
    """Return the precisions that are made of float32, in order."""
    return (*reduced_precisions(precisions), *((Precision.INT8,) if Precision.INT8 in precisions else ()))


def _check_request(
    source: Source,
    no_rewrite: Collection[str],
    precisions: Collection[Precision],
    int8: Int8Options | None,
    cuts: Collection[Cut],
) -> None:
    """Check what would show after minutes."""
    remaining(no_rewrite)
    checked_license(source.license)
    _check_int8(precisions, int8, cuts)


def _check_int8(precisions: Collection[Precision], int8: Int8Options | None, cuts: Collection[Cut]) -> None:
    """Check how graphs in 8 bits are requested, and the pictures to calibrate on, which are read after minutes."""
    if Precision.INT8 not in precisions:
        if int8 is not None:
            raise ExportError(
                f"int8={int8!r} without graphs in 8 bits",
                expected="Int8Options together with Precision.INT8",
                fix="put Precision.INT8 into precisions, or leave int8 out",
            )
        return
    import_nncf()
    if int8 is None or int8.calibration is None:
        return
    if Cut.BLACK_BOX in cuts:
        raise ExportError(
            f"pictures to calibrate on, {int8.calibration}, and a network that takes a provider's features",
            expected="a network that takes pictures",
            fix="leave calibration out: the golden clicks calibrate it",
            command_fix="leave --calibration out: the golden clicks calibrate it",
        )
    for file in calibration_files(int8.calibration):
        load_rgb(file)


def _compare_batches(
    writer: BundleWriter, manifest: Manifest, golden: Golden, features: Sequence[Features]
) -> list[GateCheck]:
    """Compare the click stages for several objects with the one for one object in float32."""
    if not manifest.batches:
        return []
    worst = Worst(
        "stages for several objects against one",
        "largest difference of prob, over a quarter of the largest logit",
        PROBABILITY_LIMIT,
    )
    files = {stage.name: writer.path(stage.graphs[Precision.FP32].file) for stage in manifest.stages}
    scale = golden.scales[0]
    return compare_batches(
        manifest,
        files,
        {name: array for name, (_, array) in features[0].items()},
        golden.cases[0],
        answers=worst,
        measure=lambda found, wanted: 4 * difference(found, wanted) / scale,
    )


def _flops(file: Path) -> float | None:
    """Count a graph's operations; None for a graph, such as a foreign encoder's, that cannot be counted."""
    try:
        return count_flops(file)
    except UncountedError:
        return None


def _bypass(stage: StageModel, network: RecurrentNetwork) -> dict[str, str]:
    """Return the feature that replaces each output of the modalities' stage when no modality is there."""
    if stage.rate is not Rate.MODALITY or not network.bypassable:
        return {}
    detour = network.bypass()
    foreign = [name for name in stage.outputs if name not in detour]
    if foreign:
        raise ExportError(
            f"the fuser cannot be bypassed: beside the features its stage gives {', '.join(foreign)}",
            expected="features that can all be computed without a modality",
            fix="declare the modalities as required ('optional = false' in the description)",
        )
    return {name: detour[name] for name in stage.outputs}


def _compare(
    writer: BundleWriter,
    network: RecurrentNetwork,
    whole: ir.Model,
    stages: list[tuple[StageModel, Path]],
    sample: Sample,
    on_progress: OnProgress,
) -> list[GateCheck]:
    """Compare the graphs; the whole one is written beside the bundle, and removed again."""
    with writing(writer.out), tempfile.TemporaryDirectory(prefix=".whole.", dir=writer.out.parent) as folder:
        file = Path(folder) / "whole.onnx"
        save_graph(whole, file, writer.out)
        return compare_graphs(network, file, stages, sample, on_progress)


def _manifest(
    name: str,
    source: Source,
    sourced: SourcedNetwork,
    network: RecurrentNetwork,
    rewrites: tuple[str, ...],
    stages: tuple[Stage, ...],
    gate: list[GateCheck],
) -> Manifest:
    config = sourced.network.config
    return Manifest(
        schema=SCHEMA,
        name=name,
        size=config.size,
        image=network.network.config.image,
        modalities=config.modalities,
        clicks=config.clicks,
        published=config.published,
        stages=stages,
        state=network.links,
        provenance=Provenance(
            checkpoint=_file_name(source.checkpoint),
            checkpoint_sha256=sourced.hashes.get("checkpoint"),
            weights=sourced.weights,
            averaged=sourced.averaged,
            checkpoint_source=_origin(source.checkpoint),
            backbone_checkpoint=_file_name(source.backbone_checkpoint or source.backbone_onnx or sourced.backbone),
            backbone_checkpoint_sha256=sourced.hashes.get("backbone"),
            backbone_checkpoint_source=_origin(source.backbone_checkpoint),
            license=checked_license(source.license),
            random_seed=source.random_seed,
            description=to_builtins(config),
            parameters=sum(parameter.numel() for parameter in sourced.network.parameters()),
            opset=OPSET,
            rewrites=rewrites,
            cuts=tuple(sorted(network.cuts)),
            packages=versions(),
            created=now(),
        ),
        gate=tuple(gate),
    )


def versions() -> dict[str, str]:
    """Return the versions of the packages that make a bundle."""
    packages = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            packages[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return packages


def now() -> str:
    """Return the time in UTC, in ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _file_name(file: PathLike | None) -> str | None:
    return None if file is None else Path(file).name


def _origin(file: PathLike | None) -> str | None:
    """Return where on the hub a file in its cache comes from."""
    reference = None if file is None else reference_of(Path(file))
    return None if reference is None else str(reference)
