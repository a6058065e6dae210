"""What ``mmms-export`` prints of an export: its stages, its gate, its weights."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
from rich import box
from rich.markup import escape
from rich.table import Table

from mmms_deploy.bundle import Precision
from mmms_deploy.bundle.reconstructed import reconstruction
from mmms_deploy.bundle.split import feature_bytes, how_often, split_of
from mmms_deploy.commands.common import console, warn
from mmms_deploy.commands.tables import print_table
from mmms_deploy.export.half.precision import FP16_LARGEST, near_fp16

if TYPE_CHECKING:
    from mmms_deploy.bundle import Manifest
    from mmms_deploy.export.exporter import ExportReport

_NAMED = 12
"""The most layers that are named."""


def summarise(report: ExportReport, seconds: float) -> None:
    """Print the stages, the gate and what is to be known of the weights.

    Args:
        report: What the export did.
        seconds: How long it took.
    """
    manifest: Manifest = report.bundle.manifest
    graphs = Table("stage", "runs", "file", box=box.SIMPLE)
    for heading in ("GFLOP", "ONNX nodes", "MB", "features out, MB"):
        graphs.add_column(heading, justify="right")
    for stage in manifest.stages:
        for graph in stage.graphs.values():
            size = sum(manifest.files[name].size for name in (graph.file, graph.data) if name)
            graphs.add_row(
                stage.name,
                how_often(manifest, stage),
                graph.file,
                "" if stage.flops is None else f"{stage.flops / 1e9:,.1f}",
                str(report.nodes[graph.file]),
                f"{size / 1e6:.1f}",
                f"{feature_bytes(graph.outputs) / 1e6:.1f}",
            )
    gate = Table("gate", "measure", box=box.SIMPLE)
    for heading in ("worst", "limit", "samples"):
        gate.add_column(heading, justify="right")
    for check in manifest.gate:
        gate.add_row(check.name, check.measure, f"{check.worst:.2g}", f"{check.limit:g}", str(check.samples))
    print_table(graphs)
    if (split := split_of(manifest)) is not None:
        console.print(f"{split.sentence} Features of {split.boundary / 1e6:,.1f} MB stay resident between the two.")
    print_table(gate)
    _warn_of_peaks(manifest)
    _name_float_layers(manifest)
    if manifest.provenance.averaged:
        console.print(f"The weights are averages (EMA), from {escape(manifest.provenance.weights)} in the checkpoint.")
    rewrites = ", ".join(manifest.provenance.rewrites) or "none, the network is as the paper draws it"
    if manifest.provenance.description.get("family") == "onnx":
        rewrites = "none, the nodes of both files are as they were"
    console.print(f"Exact rewrites applied: {rewrites}.")
    if (known := reconstruction(manifest)) is not None:
        console.print(f"[yellow]{known}")
    if not manifest.trained:
        console.print("[yellow]The weights are random: this bundle is for measuring speed, its masks mean nothing.")
    parameters = manifest.provenance.parameters / 1e6
    console.print(
        f"[bold green]{escape(str(report.bundle.path))}[/]: {parameters:.1f} M parameters, exported and checked in"
        f" {seconds:.0f} s{_peak_memory()}."
    )
    click.echo(f"Try it: mmms-segment {report.bundle.path} PHOTO --pos X,Y --overlay picture.png")


def _warn_of_peaks(manifest: Manifest) -> None:
    """Print the backbone's largest activation if there is an FP16 graph; warn of blocks near the end of its range."""
    if Precision.FP16 not in manifest.precisions or not manifest.activations:
        return
    largest = max(max(peak.output, peak.inside) for peak in manifest.activations)
    near = near_fp16(manifest.activations)
    for line in near:
        warn(f"near the end of float16's range, {FP16_LARGEST:.0f}: {line}")
    advice = "; another picture may exceed it, bf16 has float32's range" if near else ""
    console.print(f"Largest activation of the backbone: {largest:.3g}; float16 ends at {FP16_LARGEST:.0f}{advice}.")


def _name_float_layers(manifest: Manifest) -> None:
    """Print how much of the graphs in 8 bits is in 8 bits, and which layers are not, if there are such graphs."""
    made = manifest.provenance.quantisation
    if not made:
        return
    shares = ", ".join(f"{share:.0%} of stage {stage}" for stage, share in made.share.items())
    console.print(
        f"In 8 bits: {shares}, by the work of the layers that can be;"
        f" the rest in {'bf16 where the CPU has it, else in ' if made.others is Precision.BF16 else ''}fp32."
    )
    for stage, layers in made.float_layers.items():
        named = ", ".join(layers[:_NAMED]) + (f" and {len(layers) - _NAMED} more" if len(layers) > _NAMED else "")
        console.print(f"Masks need these layers of stage {stage} in float32, the most costly first: {escape(named)}.")


def _peak_memory() -> str:
    try:
        import resource
    except ImportError:  # Windows
        return ""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return f", peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.1f} GiB"
