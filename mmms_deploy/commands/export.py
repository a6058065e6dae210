"""``mmms-export``: from a checkpoint to a bundle."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmms_deploy.bundle import Precision
from mmms_deploy.bundle.manifest import MOST_BATCH
from mmms_deploy.bundle.names import MANIFEST_NAME
from mmms_deploy.commands.build import build, check_gpu
from mmms_deploy.commands.command import command
from mmms_deploy.commands.common import warn, wrong_usage
from mmms_deploy.commands.datasets import open_datasets, parse_datasets
from mmms_deploy.commands.display import progress_bar, waiting
from mmms_deploy.commands.export_pair import check_pair, export_pair_files, is_pair
from mmms_deploy.commands.export_summary import summarise
from mmms_deploy.commands.fetching import backbone_finder, fetched_checkpoint
from mmms_deploy.commands.output import check_folder
from mmms_deploy.commands.parameters import FilePath, Number, OneOf, PrecisionsType, SizeType, Text, Whole
from mmms_deploy.commands.places import DEMOS, check_checkpoint, check_description
from mmms_deploy.commands.push import check_destination, check_push, push
from mmms_deploy.commands.sections import Sections
from mmms_deploy.errors import ExportError, HubError, OutputExistsError
from mmms_deploy.export.cut import Cut
from mmms_deploy.export.int8.precision import LEAST_IOU, LOWEST_IOU, Int8Options, check_nncf
from mmms_deploy.export.rewrites import EVERY, NAMES, REWRITES
from mmms_deploy.files.leftovers import sweep
from mmms_deploy.hub.weights import name_of
from mmms_deploy.installed import pip_install
from mmms_deploy.progress import Progress
from mmms_deploy.spelling import did_you_mean

if TYPE_CHECKING:
    from mmms_deploy.evaluation.scene import Dataset
    from mmms_deploy.export.exporter import ExportReport, Gate
    from mmms_deploy.progress import OnProgress


_DEMO_LICENSE = "apache-2.0"
"""Licence of the checkpoints that ship with the package (their model cards)."""


class ModalityType(click.ParamType[tuple[str, int]]):
    """``depth`` or ``depth:3``."""

    name = "NAME[:CHANNELS]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Return (name, channels)."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([a-z][a-z0-9_]*)(?::([1-9]\d{0,3}))?", str(value), re.ASCII)
        if match is None:
            self.fail(f"{value!r} is no modality such as depth or depth:3", param, ctx)
        return match[1], int(match[2] or 1)


_REWRITE_WIDTH = max(len(rewrite.name) for rewrite in REWRITES)
_REWRITE_LINES = "\n".join(f"  {rewrite.name:<{_REWRITE_WIDTH}}  {rewrite.description}" for rewrite in REWRITES)


_SECTIONS: Sections = {
    "Network": "--ckpt --random-weights --weights --description --backbone --backbone-ckpt --backbone-onnx --encoder "
    "--decoder --size --modality --cut --no-rewrite",
    "Graphs": "--precision --int8-iou --calibration --batch --build",
    "Gate": "--gate --gate-data --gate-images",
    "Bundle": "--out --overwrite --push --private --license",
}


@command(
    sections=_SECTIONS,
    epilog=f"""\b
Exact rewrites, for --no-rewrite:
{_REWRITE_LINES}

\b
Examples:
  mmms-export --ckpt demo
  mmms-export --ckpt demo --precision fp32,fp16 --out bundles/half
  mmms-export --ckpt hf:owner/name/weights.safetensors --push me/clicks --license mit
  mmms-export --ckpt mmms.safetensors --backbone-ckpt dinov2_vitb14_reg4_pretrain.pth --out bundles/mmms
  mmms-export --ckpt mmms-rgbd.safetensors --cut late --cut black-box --out bundles/provider
  mmms-export --random-weights 0 --modality depth:3 --size 448 --out bundles/latency
  mmms-export --ckpt sam2-tiny
  mmms-export --encoder encoder.onnx --decoder decoder.onnx --description pair.toml""",
)
@click.option(
    "--ckpt",
    type=Text(),
    metavar="FILE",
    help="Checkpoint: .safetensors with a description, or a PyTorch state dict; or hf:OWNER/NAME[@REVISION][/FILE] for "
    "one on the hub. 'demo', 'demo-small' and 'demo-thermal' ship with mmms-deploy. 'sam2-tiny' fetches SAM 2 tiny's "
    "encoder and decoder.",
)
@click.option(
    "--random-weights",
    type=Whole(0, 2**63 - 1),
    metavar="SEED",
    help="Export an untrained network instead, for latency work.",
)
@click.option("--out", type=FilePath(), help="The bundle's folder.  [default: bundles/NAME]")
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace an existing bundle once the new one is complete; with --push, also on the hub.",
)
@click.option(
    "--description",
    type=FilePath(),
    metavar="FILE",
    help="TOML or JSON description of the network, instead of the checkpoint's own.",
)
@click.option(
    "--weights",
    type=Text(),
    metavar="NAME",
    help="Which weights, where the checkpoint holds several sets: 'ema' for averaged ones, or a name as the message "
    "lists it.  [default: the trained ones]",
)
@click.option(
    "--backbone-ckpt",
    type=FilePath(),
    metavar="FILE",
    help="Weights of the frozen backbone, as its release names them, when the checkpoint does not hold them, of SAM 2 "
    "also an .ort file of its encoder; from the hub as for --ckpt.  [default: published ones, see mmms-weights]",
)
@click.option(
    "--backbone",
    type=Text(),
    metavar="NAME",
    help="Backbone: dinov2_b14_reg, mae_b16, sam_b16, ijepa_h16, sam2_hiera_t (_s, _b+, _l), or timm:NAME for any "
    "plain ViT of timm and any network of timm with maps of strides 4 to 32.",
)
@click.option(
    "--backbone-onnx",
    type=FilePath(),
    metavar="FILE",
    help="The encoder of a description whose backbone is named 'onnx'; it becomes a part of the bundle.",
)
@click.option(
    "--encoder",
    type=FilePath(),
    metavar="FILE",
    help="With --decoder: an encoder in an .onnx or .ort file that others exported; --description says what goes in "
    "and comes out.",
)
@click.option("--decoder", type=FilePath(), metavar="FILE", help="The decoder that answers clicks, likewise.")
@click.option(
    "--size", type=SizeType(), help="Network size, H or HxW, in pixels.  [default: the description's, else 448]"
)
@click.option(
    "--modality",
    "modalities",
    type=ModalityType(),
    multiple=True,
    help="An extra modality of the network; once for each, in order.",
)
@click.option(
    "--cut",
    "cuts",
    type=OneOf([cut.value for cut in Cut]),
    multiple=True,
    help="A further cut, beside the one where clicks come in. 'late': modalities that arrive later or change are fused "
    "without running the backbone again; optional ones imply it. 'black-box': a provider runs the backbone, "
    "Session.set_features takes its four feature maps, and the checkpoint need not hold its weights. May be given "
    "twice, for both.",
)
@click.option(
    "--precision",
    "precisions",
    type=PrecisionsType(),
    default="fp32",
    show_default=True,
    help="Precisions to write the graphs in, such as fp32,fp16 or fp32,fp16,bf16 for GPUs, or fp32,int8 for CPUs. fp32 "
    "is always written; the others must give the same masks.",
)
@click.option(
    "--int8-iou",
    type=Number(LOWEST_IOU, 1.0),
    help="With int8: mean IoU with the checkpoint's own masks that must be reached. Layers stay in float32 until it "
    f"is; a lower number keeps more of them in 8 bits.  [default: {LEAST_IOU:g}]",
)
@click.option(
    "--calibration",
    type=FilePath(),
    metavar="FOLDER",
    help="With int8: pictures to calibrate on, such as those that will be annotated.  [default: photographs of "
    "scikit-image and scikit-learn]",
)
@click.option(
    "--batch",
    "batches",
    type=Whole(2, MOST_BATCH),
    metavar="N",
    multiple=True,
    help="Also write a click stage that answers clicks on N objects of one image in one run, for "
    "Session.click_objects; once for each N, such as --batch 4 --batch 16. It pays on GPUs, and takes memory there.",
)
@click.option(
    "--no-rewrite",
    type=OneOf([*NAMES, EVERY]),
    metavar="NAME",
    multiple=True,
    help="For debugging: leave out one of the exact rewrites listed below, and those that build on it. May be given "
    "several times; 'all' exports the network as the paper draws it.",
)
@click.option(
    "--build",
    "builds",
    type=OneOf(["tensorrt"]),
    multiple=True,
    help="Afterwards compile plans for this machine's GPU, in every precision of the bundle; mmms-build has options.",
)
@click.option(
    "--gate",
    "gates",
    type=OneOf(["noc"]),
    multiple=True,
    help="A further gate. noc: the bundle must need as many simulated clicks on --gate-data as the checkpoint in "
    "PyTorch, and each reduced --precision that a CPU executes as many as float32, on 200 objects or more.",
)
@click.option(
    "--gate-data",
    multiple=True,
    type=Text(),
    metavar="KIND=PATH",
    help="A data set for --gate noc, as mmms-eval takes it.",
)
@click.option(
    "--gate-images",
    type=Whole(min=1),
    default=20,
    show_default=True,
    help="Images of each --gate-data, spread evenly over it.",
)
@click.option(
    "--push",
    "repository",
    type=Text(),
    metavar="OWNER/NAME",
    help="Afterwards put the bundle into this model repository of the hub; mmms-push does it later.",
)
@click.option("--private", is_flag=True, help="Let --push make a private repository.")
@click.option(
    "--license",
    "license_name",
    type=Text(),
    metavar="ID",
    help="Licence of the weights, such as apache-2.0, for the bundle's model card.",
)
def main(
    ckpt: str | None,
    random_weights: int | None,
    out: Path | None,
    overwrite: bool,
    description: Path | None,
    weights: str | None,
    backbone_ckpt: Path | None,
    backbone: str | None,
    backbone_onnx: Path | None,
    encoder: Path | None,
    decoder: Path | None,
    size: tuple[int, int] | None,
    modalities: tuple[tuple[str, int], ...],
    cuts: tuple[str, ...],
    precisions: tuple[Precision, ...],
    int8_iou: float | None,
    calibration: Path | None,
    batches: tuple[int, ...],
    no_rewrite: tuple[str, ...],
    builds: tuple[str, ...],
    gates: tuple[str, ...],
    gate_data: tuple[str, ...],
    gate_images: int,
    repository: str | None,
    private: bool,
    license_name: str | None,
) -> None:
    """Turn a checkpoint into a bundle.

    Cuts the network where clicks come in, exports each stage to ONNX, compares the stages with the checkpoint on real
    photographs, and writes a folder that Session, mmms-segment and mmms-verify run without torch. When anything differs
    or fails, nothing is left behind.
    """
    start = time.perf_counter()
    pair = is_pair(ckpt, encoder, decoder)
    if pair:
        check_pair(ckpt, encoder, decoder, click.get_current_context().params)
    elif (ckpt is None) == (random_weights is None):
        raise click.UsageError("give one of --ckpt FILE and --random-weights SEED, such as mmms-export --ckpt demo")
    _check_modalities(modalities)
    if bool(gates) != bool(gate_data):
        raise click.UsageError("--gate noc and --gate-data KIND=PATH go together")
    if gates and Cut.BLACK_BOX in cuts:
        raise click.UsageError("--gate noc needs a bundle that takes images; leave --cut black-box out")
    if private and repository is None:
        raise click.UsageError("--private goes with --push OWNER/NAME")
    int8 = _int8_options(precisions, int8_iou, calibration)
    with wrong_usage():
        check_push(repository, license_name)
    _check_files(None if pair else ckpt, backbone_ckpt, description)
    target = out or Path("bundles") / _name(ckpt, random_weights, description or encoder)
    _check_out(target, overwrite)
    arguments = parse_datasets(gate_data, "--gate-data")
    if repository is not None:
        check_destination(repository, private=private, overwrite=overwrite)
    finish = partial(_finish, target, builds, repository, license_name, private=private, overwrite=overwrite)
    if pair:
        with waiting("loading PyTorch"):
            _load_export_room()
        return finish(export_pair_files(ckpt, encoder, decoder, description, license_name, target, overwrite=overwrite))
    checkpoint = None if ckpt is None or ckpt in DEMOS else fetched_checkpoint(ckpt)
    backbone_checkpoint = None if backbone_ckpt is None else fetched_checkpoint(backbone_ckpt)
    with waiting("loading PyTorch"):
        exporter = _load_export_room()
        _check_backbone(backbone)
    source = exporter.Source(
        checkpoint=exporter.demo_checkpoint(ckpt) if ckpt in exporter.DEMOS else checkpoint,
        random_seed=random_weights,
        description=description,
        backbone_checkpoint=backbone_checkpoint,
        overrides=_overrides(size, backbone, modalities),
        weights=weights,
        license=license_name or (_DEMO_LICENSE if ckpt in DEMOS else None),
        backbone_onnx=backbone_onnx,
    )
    # What is wrong with these would show after minutes.
    datasets = open_datasets(arguments)
    reduced = _check_gate(datasets, gate_images, precisions) if gates else 0
    if builds:
        check_gpu()
    with progress_bar("starting") as show:
        done, total = 0, len(datasets) * (1 + reduced) + exporter.count_steps(precisions=precisions)

        def on_progress(step: Progress) -> None:
            nonlocal done
            if step.depth:
                return show(step)
            show(Progress(step.task, done, total))
            done += 1
            return None

        report = exporter.export_bundle(
            replace(source, find_backbone=backbone_finder(show)),
            target,
            overwrite=overwrite,
            cuts=[Cut(cut) for cut in cuts],
            no_rewrite=no_rewrite,
            precisions=precisions,
            batches=batches,
            int8=int8,
            gates=_noc_gates(datasets, gate_images, on_progress) if datasets else (),
            on_progress=on_progress,
        )
    summarise(report, time.perf_counter() - start)
    return finish(report)


def _int8_options(precisions: Collection[Precision], iou: float | None, calibration: Path | None) -> Int8Options | None:
    """Return how graphs in 8 bits are made; None where none are."""
    if Precision.INT8 in precisions:
        check_nncf()
        return Int8Options(iou=LEAST_IOU if iou is None else iou, calibration=calibration)
    given = [name for name, value in (("--int8-iou", iou), ("--calibration", calibration)) if value is not None]
    if given:
        raise click.UsageError(f"{' and '.join(given)} go with --precision fp32,int8")
    return None


def _name(ckpt: str | None, random_weights: int | None, other: Path | None) -> str:
    """Return a name for the bundle: the checkpoint's, the seed's, or that of a pair's description or encoder."""
    if ckpt is not None:
        return name_of(ckpt)
    return other.stem if random_weights is None and other is not None else f"random-{random_weights}"


def _finish(
    target: Path,
    builds: Sequence[str],
    repository: str | None,
    license_name: str | None,
    report: ExportReport,
    *,
    private: bool,
    overwrite: bool,
) -> None:
    """Build plans of a finished bundle, and push it, where that was asked for."""
    if builds:
        build(report.bundle, report.bundle.manifest.precisions)
    if repository is not None:
        with _kept(target, repository):
            push(report.bundle, repository, license_name, private=private, overwrite=overwrite)


def _check_modalities(modalities: Sequence[tuple[str, int]]) -> None:
    names = [name for name, _ in modalities]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise click.UsageError(f"--modality names {repeated[0]!r} twice; the names of modalities differ")


def _check_files(ckpt: str | None, backbone_ckpt: Path | None, description: Path | None) -> None:
    if ckpt is not None and ckpt not in DEMOS:
        check_checkpoint(Path(ckpt))
    if backbone_ckpt is not None:
        check_checkpoint(backbone_ckpt, "--backbone-ckpt")
    if description is not None:
        check_description(description)


def _overrides(
    size: tuple[int, int] | None, backbone: str | None, modalities: Sequence[tuple[str, int]]
) -> dict[str, Any]:
    """Return the fields that replace those of the checkpoint's description."""
    overrides: dict[str, Any] = {}
    if size is not None:
        overrides["size"] = size
    if backbone is not None:
        overrides["backbone"] = {"name": backbone}
    if modalities:
        overrides["modalities"] = [{"name": name, "channels": channels} for name, channels in modalities]
    return overrides


@contextmanager
def _kept(bundle: Path, repository: str) -> Iterator[None]:
    """Say that a bundle that could not be pushed is there all the same."""
    try:
        yield
    except HubError:
        warn(f"the bundle is kept; to push it later: mmms-push {bundle} {repository}")
        raise


def _load_export_room() -> Any:
    """Import the modules that need torch, or raise an error that names the extra."""
    try:
        from mmms_deploy.export import exporter
    except ImportError as error:
        raise ExportError(
            f"exporting needs a package that is not installed: {error.name or error}",
            expected="the [export] extra and one engine",
            fix=pip_install("export,cpu"),
        ) from error
    return exporter


def _check_backbone(name: str | None) -> None:
    from mmms_deploy.models.backbone_names import RELEASES

    if name is not None and name not in RELEASES and not name.startswith("timm:"):
        raise click.UsageError(
            f"backbone {name!r} is not known{did_you_mean(name, RELEASES)}\n  expected: one of {', '.join(RELEASES)},"
            " or timm:NAME"
        )


def _check_out(out: Path, overwrite: bool) -> None:
    """Find now what the export would find after seconds, and sweep what a killed one left; it checks once more."""
    if out.exists() and not overwrite:
        raise OutputExistsError(
            f"{out} exists", expected="a new folder", fix="choose another --out, or pass --overwrite"
        )
    if out.is_dir() and not (out / MANIFEST_NAME).is_file():
        raise OutputExistsError(
            f"{out} exists and is no bundle",
            expected="a new folder, or an old bundle to replace",
            fix="choose another --out",
        )
    check_folder(out.parent if out.is_dir() else out)
    sweep(out.parent, out.name)


def _check_gate(datasets: Sequence[Dataset], images: int, precisions: Sequence[Precision]) -> int:
    """Refuse data with too few objects for the reduced precisions; return how many of these are clicked in."""
    from mmms_deploy.evaluation.noc_gate import check_objects, gated_precisions

    reduced = gated_precisions(precisions)
    if reduced:
        with waiting("counting the objects of --gate-data"):
            check_objects(datasets, images)
    return len(reduced)


def _noc_gates(datasets: Sequence[Dataset], images: int, on_progress: OnProgress) -> list[Gate]:
    from mmms_deploy.evaluation.noc_gate import noc_gate, precision_gate

    return [
        lambda bundle, network: noc_gate(bundle, network, datasets, scenes=images, on_progress=on_progress),
        lambda bundle, network: precision_gate(bundle, datasets, scenes=images, on_progress=on_progress),
    ]


if __name__ == "__main__":
    main()
