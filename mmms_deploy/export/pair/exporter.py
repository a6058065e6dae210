"""From an encoder and a decoder in files to a bundle: write the stages, pass the gate, rename into place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from mmms_deploy.bundle import (
    GOLDEN_NAME,
    SCHEMA,
    BundleWriter,
    GateCheck,
    Manifest,
    Precision,
    Provenance,
    Stage,
)
from mmms_deploy.bundle.card import checked_license
from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.engines.onnxruntime.cpu import OnnxRuntimeCpu
from mmms_deploy.engines.wheels import require_onnxruntime
from mmms_deploy.export.cut import StageModel
from mmms_deploy.export.exporter import ExportReport, now, versions
from mmms_deploy.export.gate import compare_session
from mmms_deploy.export.graphs import write_stages
from mmms_deploy.export.pair.description import PairDescription
from mmms_deploy.export.pair.files import PairFiles
from mmms_deploy.export.pair.gate import compare_pair, record_pair
from mmms_deploy.export.pair.graphs import PairRoles, stage_models, state_links
from mmms_deploy.export.samples import NAMES, sample_images
from mmms_deploy.export.steps import announce, counted
from mmms_deploy.files import writing
from mmms_deploy.progress import OnProgress
from mmms_deploy.replay.golden import save_golden

STEPS = 6 + len(NAMES)
"""Steps that :func:`export_pair` reports."""


@dataclass(frozen=True)
class PairSource:
    """What to export.

    Attributes:
        encoder: The encoder's file, ``.onnx`` or ``.ort``.
        decoder: The decoder's file, likewise.
        description: What goes in and comes out of them.
        origin: Where both were fetched from, such as ``npm:NAME@VERSION``; None for local files.
        license: Licence of the weights, as an identifier of the hub; None takes the description's.
    """

    encoder: Path
    decoder: Path
    description: PairDescription
    origin: str | None = None
    license: str | None = None


def export_pair(
    source: PairSource,
    out: Path,
    *,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> ExportReport:
    """Export an encoder and a decoder as a bundle, in float32, or leave nothing behind.

    Args:
        source: The two files and their description.
        out: The bundle's folder.
        overwrite: Whether to replace an existing bundle, once the new one is complete.
        on_progress: Receives every step as it starts.

    Returns:
        The bundle and some facts about it.

    Raises:
        ExportError: A file cannot be read or run, has another hash, or is not what the description says.
        BundleError: The licence is no identifier.
        OutputExistsError: The folder exists.
        OutputWriteError: The folder cannot be written.
        GateError: The graphs do not compute what the files compute.
        EngineUnavailableError: There is no engine for the gate.
    """
    checked_license(source.license or source.description.license)
    on_progress = counted(on_progress, STEPS)
    require_onnxruntime()
    with BundleWriter(out, overwrite=overwrite) as writer:
        announce(on_progress, "reading the two files")
        files = PairFiles(source.description, source.encoder, source.decoder)
        hashes = files.hashes
        most = source.description.decoder.most_points
        samples = [replace(sample, clicks=sample.clicks[:most]) for sample in sample_images(())]
        announce(on_progress, "writing the graphs")
        models = stage_models(files)
        graphs = write_stages(writer, PairRoles(), models, Precision.FP32)
        stages = tuple(
            Stage(name=model.name, rate=model.rate, graphs={Precision.FP32: graph})
            for model, graph in zip(models, graphs, strict=True)
        )
        paths = [writer.path(graph.file) for graph in graphs]
        nodes = {path.name: model.model.graph.num_nodes() for path, model in zip(paths, models, strict=True)}
        gate = compare_pair(files, list(zip(models, paths, strict=True)), samples[0], on_progress)
        golden = record_pair(files, samples, on_progress)
        with writing(out):
            save_golden(writer.path(GOLDEN_NAME), golden.cases)
        manifest = _manifest(out.name, source, files, hashes, models, stages)
        announce(on_progress, "gate: replaying the clicks through a session")
        sealed = writer.seal(msgspec.structs.replace(manifest, gate=tuple(gate)))
        with closing(OnnxRuntimeCpu(sealed, Precision.FP32)) as engine:
            gate += compare_session(sealed, golden, engine, "session against the files, closed loop")
        announce(on_progress, "moving the bundle into place")
        bundle = writer.commit(msgspec.structs.replace(manifest, gate=tuple(gate)))
    return ExportReport(bundle, nodes)


def _manifest(
    name: str,
    source: PairSource,
    files: PairFiles,
    hashes: dict[str, str],
    models: Sequence[StageModel],
    stages: tuple[Stage, ...],
    gate: Sequence[GateCheck] = (),
) -> Manifest:
    given = source.description
    count, rows, columns = files.answers
    return Manifest(
        schema=SCHEMA,
        name=name,
        size=given.size,
        image=given.image,
        modalities=(),
        clicks=given.contract((rows, columns), count),
        stages=stages,
        state=state_links(files),
        provenance=Provenance(
            checkpoint=source.decoder.name,
            checkpoint_sha256=hashes["decoder"],
            checkpoint_source=source.origin,
            backbone_checkpoint=source.encoder.name,
            backbone_checkpoint_sha256=hashes["encoder"],
            backbone_checkpoint_source=source.origin,
            license=checked_license(source.license or given.license),
            description=to_builtins(given),
            parameters=sum(_parameters(model) for model in models),
            opset=max(model.model.graph.opset_imports.get("", 0) for model in models),
            packages=versions(),
            created=now(),
        ),
        gate=tuple(gate),
    )


def _parameters(model: StageModel) -> int:
    """Return how many float numbers the graph's constants hold, single ones left out."""
    constants = model.model.graph.initializers.values()
    return sum(
        math.prod(value.const_value.shape.numpy())
        for value in constants
        if value.const_value is not None
        and value.const_value.dtype.is_floating_point()
        and len(value.const_value.shape)
    )
