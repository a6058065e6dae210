"""From a checkpoint to a bundle: export whole, cut, write, prove, rename into place."""

from __future__ import annotations

import datetime
import platform
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import msgspec
import onnx
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
    StageGraph,
    TensorSpec,
    writing,
)
from mmms_deploy.contract import to_builtins
from mmms_deploy.engines.wheels import require_onnxruntime
from mmms_deploy.errors import ExportError
from mmms_deploy.export.cut import StageModel, cut
from mmms_deploy.export.cuts import Cut, choose_cuts
from mmms_deploy.export.forms import compare_forms
from mmms_deploy.export.gate import compare_graphs, compare_session, record_golden
from mmms_deploy.export.network import OPSET, STATE, RecurrentNetwork, export_whole
from mmms_deploy.export.rewrites import BACKBONE, remaining
from mmms_deploy.export.rewrites.deploy import deploy_form
from mmms_deploy.export.samples import Sample, sample_images
from mmms_deploy.export.source import DEMOS, Source, SourcedNetwork, demo_checkpoint, open_source
from mmms_deploy.golden import save_golden

__all__ = ["DEMOS", "Cut", "ExportReport", "Source", "count_steps", "demo_checkpoint", "export_bundle"]

EXTERNAL_DATA_ABOVE = 1_900_000_000
"""Bytes of weights above which a graph keeps them in a file of their own; one protobuf message ends at 2 GB."""
_PACKAGES = ("mmms-deploy", "torch", "timm", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "onnxruntime-gpu", "numpy")


@dataclass(frozen=True)
class ExportReport:
    """What an export did.

    Attributes:
        bundle: The bundle at its final place.
        nodes: ONNX nodes of each stage.
    """

    bundle: Bundle
    nodes: dict[str, int]


def count_steps(samples: int) -> int:
    """Return how many steps :func:`export_bundle` reports for a number of samples."""
    return 10 + samples


def export_bundle(
    source: Source,
    out: Path,
    *,
    overwrite: bool = False,
    cuts: Collection[Cut] = (),
    no_rewrite: Collection[str] = (),
    on_step: Callable[[str], None] = lambda name: None,
) -> ExportReport:
    """Export a network as a bundle, or leave nothing behind.

    Args:
        source: The checkpoint or random weights, and the description.
        out: The bundle's folder.
        overwrite: Whether an existing bundle is replaced, once the new one is complete.
        cuts: Where to cut beside the clicks; ``late`` is added where a modality is optional.
        no_rewrite: Names of exact rewrites to leave out (``mmms_deploy.export.rewrites.NAMES``), or ``all``.
        on_step: Called with the name of each step as it starts; :func:`count_steps` tells how many there are.

    Returns:
        The bundle and some facts about it.

    Raises:
        CheckpointError: The checkpoint or its description cannot be used.
        SizeError: The network size does not fit.
        CutError: A cut makes no sense for this network.
        OutputExistsError: The folder exists.
        OutputWriteError: The folder cannot be written.
        GateError: The graphs do not compute what the checkpoint computes.
        EngineUnavailableError: There is no engine to prove the export with.
        ValueError: No rewrite has a name in ``no_rewrite``.
    """
    remaining(no_rewrite)
    require_onnxruntime()
    with BundleWriter(out, overwrite=overwrite) as writer:
        on_step("reading the checkpoint")
        black_box = Cut.BLACK_BOX in cuts
        sourced = open_source(source, black_box=black_box)
        cuts = choose_cuts(cuts, sourced.network.config.modalities)
        samples = sample_images(sourced.network.config.modalities)
        deployed, applied = deploy_form(sourced.network, {*no_rewrite, *(BACKBONE if black_box else ())})
        on_step("gate: rewritten network against the paper's form")
        gate = compare_forms(sourced.network, deployed, applied, samples[0])
        network = RecurrentNetwork(deployed, cuts)
        on_step("exporting the whole network to ONNX")
        whole = export_whole(network)
        on_step("cutting it into stages")
        stages = cut(whole, network.rates())
        on_step("writing the graphs")
        manifest_stages, files = _write_stages(writer, network, stages)
        gate += _compare(writer, network, whole, list(zip(stages, files, strict=True)), samples[0], on_step)
        golden = record_golden(sourced.network, samples, on_step, black_box=black_box)
        with writing(out):
            save_golden(writer.path(GOLDEN_NAME), golden.cases)
        manifest = _manifest(out.name, source, sourced, network, applied, manifest_stages, gate)
        on_step("gate: replaying the clicks through a session")
        gate += compare_session(writer.seal(manifest), golden)
        on_step("moving the bundle into place")
        bundle = writer.commit(msgspec.structs.replace(manifest, gate=tuple(gate)))
    return ExportReport(bundle, {stage.rate.name.lower(): stage.model.graph.num_nodes() for stage in stages})


def _write_stages(
    writer: BundleWriter, network: RecurrentNetwork, stages: Sequence[StageModel]
) -> tuple[tuple[Stage, ...], list[Path]]:
    described, files = [], []
    for stage in stages:
        name = stage.rate.name.lower()
        file = writer.path(f"{name}.{Precision.FP32}.onnx")
        data = _save(stage.model, file, writer.out)
        graph = StageGraph(
            file=file.name,
            data=data,
            inputs=tuple(_spec(value, network) for value in stage.model.graph.inputs),
            outputs=tuple(_spec(value, network) for value in stage.model.graph.outputs),
        )
        described.append(
            Stage(name=name, rate=stage.rate, graphs={Precision.FP32: graph}, bypass=_bypass(stage, network))
        )
        files.append(file)
    return tuple(described), files


def _bypass(stage: StageModel, network: RecurrentNetwork) -> dict[str, str]:
    """Return what takes the place of a stage's outputs when no modality is there; nothing for other stages."""
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


def _save(model: ir.Model, file: Path, out: Path) -> str | None:
    """Write a graph, with its weights beside it when they do not fit in one message, and check what was written."""
    weights = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    data = f"{file.name}.data" if weights > EXTERNAL_DATA_ABOVE else None
    with writing(out):
        ir.save(model, file, external_data=data)
    try:
        onnx.checker.check_model(str(file), full_check=data is None)
    except onnx.checker.ValidationError as error:
        raise ExportError(
            f"the exported graph {file.name} is no valid ONNX: {error}",
            expected="a graph that onnx.checker accepts",
            fix="please report the network and the versions of torch and onnxscript",
        ) from error
    return data


def _spec(value: ir.Value, network: RecurrentNetwork) -> TensorSpec:
    name = str(value.name)
    if value.dtype is None or value.shape is None or not all(isinstance(n, int) for n in value.shape):
        raise ExportError(
            f"tensor {name} at the border of a stage has no static type", expected="dtype and static shape"
        )
    shape = tuple(int(str(n)) for n in value.shape)
    role = network.role(name)
    return TensorSpec(name=name, role=role, dtype=value.dtype.numpy().name, shape=shape)


def _compare(
    writer: BundleWriter,
    network: RecurrentNetwork,
    whole: ir.Model,
    stages: list[tuple[StageModel, Path]],
    sample: Sample,
    on_step: Callable[[str], None],
) -> list[GateCheck]:
    """Write the whole graph beside the bundle for as long as it is compared."""
    with writing(writer.out), tempfile.TemporaryDirectory(prefix=".whole.", dir=writer.out.parent) as folder:
        file = Path(folder) / "whole.onnx"
        _save(whole, file, writer.out)
        return compare_graphs(network, file, stages, sample, on_step)


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
    packages = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            packages[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return Manifest(
        schema=SCHEMA,
        name=name,
        size=config.size,
        image=network.network.config.image,
        modalities=config.modalities,
        clicks=config.clicks,
        stages=stages,
        state=STATE,
        provenance=Provenance(
            checkpoint=source.checkpoint.name if source.checkpoint else None,
            checkpoint_sha256=sourced.hashes.get("checkpoint"),
            backbone_checkpoint=source.backbone_checkpoint.name if source.backbone_checkpoint else None,
            backbone_checkpoint_sha256=sourced.hashes.get("backbone"),
            random_seed=source.random_seed,
            description=to_builtins(config),
            parameters=sum(parameter.numel() for parameter in sourced.network.parameters()),
            opset=OPSET,
            rewrites=rewrites,
            cuts=tuple(sorted(network.cuts)),
            packages=packages,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        ),
        gate=tuple(gate),
    )
