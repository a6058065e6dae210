"""What a notebook shows of a bundle: where it comes from, what it takes, and how its export was checked."""

from __future__ import annotations

from pathlib import Path

from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.bundle.manifest import GateCheck, Manifest, Role, Stage
from mmms_deploy.bundle.reconstructed import reconstruction
from mmms_deploy.bundle.split import how_often, split_of
from mmms_deploy.reporting.notebook import folded, lines, view


def bundle_view(manifest: Manifest, folder: Path) -> str:
    """Return a bundle as a table in HTML; reads no file.

    Args:
        manifest: Its manifest.
        folder: Where it is.
    """
    height, width = manifest.size
    family = manifest.provenance.description.get("family", "network")
    split = split_of(manifest)
    rows = [
        ("network", f"{family}, {height} x {width} (height x width), {manifest.provenance.parameters:,} parameters"),
        ("inputs", lines(_inputs(manifest))),
        (
            "stages",
            lines([*(_stage(manifest, stage) for stage in manifest.stages), *([split.sentence] if split else [])]),
        ),
        ("gate", _gate(manifest.gate)),
        ("from", lines(_origin(manifest))),
        ("folder", f"{folder} ({_megabytes(sum(entry.size for entry in manifest.files.values()))})"),
    ]
    random = "" if manifest.trained else "The weights are random: the masks of this bundle mean nothing."
    notes = [note for note in (random, reconstruction(manifest)) if note]
    return view(f"Bundle {manifest.name}", rows, note=" ".join(notes))


def _inputs(manifest: Manifest) -> list[str]:
    roles = {tensor.role for stage in manifest.stages for graph in stage.graphs.values() for tensor in graph.inputs}
    if manifest.click_only:
        return ["features of the image, made by the bundle that this click bundle is of, with use()"]
    image = "image (H0, W0, 3)" if Role.IMAGE in roles else "a provider's features of the image, with set_features()"
    return [image, *(_modality(spec) for spec in manifest.modalities)]


def _modality(spec: ModalitySpec) -> str:
    channels = "1 channel" if spec.channels == 1 else f"{spec.channels} channels"
    invalid = ", ".join(value if isinstance(value, str) else f"{value:g}" for value in spec.invalid)
    missing = f", invalid: {invalid}" if invalid else ""
    return f"{spec.name}: {channels}{missing}{', optional' if spec.optional else ''}"


def _stage(manifest: Manifest, stage: Stage) -> str:
    sizes = []
    for precision, graph in stage.graphs.items():
        files = [graph.file, *([graph.data] if graph.data else [])]
        sizes.append(f"{precision} {_megabytes(sum(manifest.files[name].size for name in files))}")
    counted = "" if stage.flops is None else f"; {stage.flops / 1e9:,.1f} GFLOP"
    return f"{stage.name}, {how_often(manifest, stage)}: {', '.join(sizes)}{counted}"


def _gate(checks: tuple[GateCheck, ...]) -> str:
    if not checks:
        return "not measured"
    failed = sum(not check.worst <= check.limit for check in checks)  # also what is no number
    said = f"{len(checks)} comparisons, " + (f"{failed} beyond their limits" if failed else "all within their limits")
    rows = [(check.name, check.measure, f"{check.worst:.2g}", f"{check.limit:.2g}") for check in checks]
    return folded(said, ("compared", "measure", "worst", "limit"), rows)


def _origin(manifest: Manifest) -> list[str]:
    origin = manifest.provenance
    made = ", ".join(f"{name} {origin.packages[name]}" for name in ("mmms-deploy", "torch") if name in origin.packages)
    if origin.random_seed is not None:
        weights = f"random weights, seed {origin.random_seed}"
    else:
        weights = f"{origin.checkpoint} (SHA-256 {(origin.checkpoint_sha256 or '')[:12]}...)"
    parts = [weights, f"exported {origin.created}" + (f" with {made}" if made else "")]
    if origin.backbone_checkpoint:
        parts.insert(1, f"backbone: {origin.backbone_checkpoint}")
    if origin.cuts:
        parts.append(f"cuts: {', '.join(origin.cuts)}")
    return parts


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
