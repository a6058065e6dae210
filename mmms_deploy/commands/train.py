"""``mmms-train``: a head of one's own on a frozen backbone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmms_deploy.commands.command import command
from mmms_deploy.commands.common import console, warn, wrong_usage
from mmms_deploy.commands.datasets import parse_datasets
from mmms_deploy.commands.display import progress_bar, progress_bars, waiting
from mmms_deploy.commands.output import check_folder
from mmms_deploy.commands.parameters import FilePath, Number, OneOf, SizeType, Text, Whole
from mmms_deploy.commands.places import DEMOS, check_checkpoint, check_description
from mmms_deploy.commands.sections import Sections
from mmms_deploy.commands.train_open import (
    SURVEY_FILE,
    check_modalities,
    divide,
    fetched_sources,
    forget,
    load_training_room,
    make_views,
    open_network,
)
from mmms_deploy.commands.train_results import duration, print_plan, write_results
from mmms_deploy.spelling import did_you_mean

if TYPE_CHECKING:
    from mmms_deploy.models.network import InteractiveNetwork
    from mmms_deploy.training.measure import HeldOut
    from mmms_deploy.training.pipeline import Training


_SECTIONS: Sections = {
    "Network": "--backbone --backbone-ckpt --start --description --size",
    "Training": "--steps --views --batch --rate --half --device --threads --seed",
    "Measuring": "--held-out --val --measure-every --measure-images",
    "Files": "--out --cache --cache-limit --without-backbone --fresh --dry-run",
}


@command(
    sections=_SECTIONS,
    epilog="""
DATA is a folder with images/, masks/ and folders of modalities such as depth/ and thermal/, matched by name,
or KIND=PATH for a published data set, as mmms-eval takes it (mmms-doctor --docs datasets).

\b
Examples:
  mmms-train data/mine --backbone sam2_hiera_t --out runs/mine
  mmms-train data/mine --start demo --out runs/mine
  mmms-train mfnet=data/MFNet --backbone dinov2_b14_reg --backbone-ckpt dinov2_vitb14_reg4_pretrain.pth --out runs/mfnet
  mmms-train data/mine --backbone sam2_hiera_t --out runs/mine --dry-run""",
)
@click.argument("data", nargs=-1, type=Text(), required=True)
@click.option("--out", type=FilePath(), required=True, help="Folder of the run; the same command goes on where it was.")
@click.option("--backbone", type=Text(), metavar="NAME", help="The frozen backbone, as mmms-export names it.")
@click.option(
    "--backbone-ckpt",
    type=FilePath(),
    metavar="FILE",
    help="Its weights, as its release names them; of SAM 2 also an .ort file of its encoder."
    "  [default: published ones, see mmms-weights]",
)
@click.option(
    "--start",
    type=Text(),
    metavar="CKPT",
    help="Train the head of this checkpoint further, on its backbone. 'demo', 'demo-small' and 'demo-thermal' ship"
    " with mmms-deploy.",
)
@click.option(
    "--description",
    type=FilePath(),
    metavar="FILE",
    help="TOML or JSON description of the network, instead of the small head; its modalities replace what the data"
    " suggest.",
)
@click.option(
    "--size", type=SizeType(), help="Network size, H or HxW, in pixels.  [default: the description's, else 448]"
)
@click.option("--steps", type=Whole(1, 10**7), default=1000, show_default=True, help="Optimiser steps.")
@click.option(
    "--views",
    type=Whole(1, 1000),
    default=6,
    show_default=True,
    help="Views of a picture whose features are kept: the whole, parts at the scale of objects, pasted objects.",
)
@click.option(
    "--batch", type=Whole(1, 1000), default=4, show_default=True, help="Views in a step; each shows up to 2 targets."
)
@click.option(
    "--rate",
    type=Number(0, 1, min_open=True),
    help="Peak learning rate.  [default: 0.001, or 0.0003 with --start]",
)
@click.option(
    "--held-out",
    type=Number(0, 90),
    default=20,
    show_default=True,
    help="Percent of the pictures that are not trained on and measured; folders of pictures stay together.",
)
@click.option("--val", multiple=True, type=Text(), metavar="DATA", help="Measure on this instead; may be repeated.")
@click.option(
    "--measure-every",
    type=Whole(0),
    default=250,
    show_default=True,
    help="Steps between two measurements of some held-out objects; 0 for none.",
)
@click.option(
    "--measure-images",
    type=Whole(0),
    default=50,
    show_default=True,
    help="Held-out pictures of each data set that are measured at the end; 0 for none.",
)
@click.option("--cache", type=FilePath(), help="Folder of the features; runs may share one.  [default: in --out]")
@click.option(
    "--cache-limit",
    type=Number(0, min_open=True),
    default=20,
    show_default=True,
    metavar="GB",
    help="Most room for the features of this run; fewer views are made where they need more.",
)
@click.option(
    "--without-backbone", is_flag=True, help="Leave the backbone's weights out of the checkpoint: a small file."
)
@click.option("--half", is_flag=True, help="Store the checkpoint's weights as float16, at half the size.")
@click.option(
    "--device", type=OneOf(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to train."
)
@click.option("--threads", type=Whole(min=1), help="CPU threads.  [default: the cores this process may use]")
@click.option("--seed", type=Whole(0, 2**63 - 1), default=0, show_default=True, help="Seed of everything.")
@click.option("--fresh", is_flag=True, help="Forget the run in --out and start over; computed features stay.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and how long it takes, and stop.")
def main(
    data: tuple[str, ...],
    out: Path,
    backbone: str | None,
    backbone_ckpt: Path | None,
    start: str | None,
    description: Path | None,
    size: tuple[int, int] | None,
    steps: int,
    views: int,
    batch: int,
    rate: float | None,
    held_out: float,
    val: tuple[str, ...],
    measure_every: int,
    measure_images: int,
    cache: Path | None,
    cache_limit: float,
    without_backbone: bool,
    half: bool,
    device: str,
    threads: int | None,
    seed: int,
    fresh: bool,
    dry_run: bool,
) -> None:
    """Train the small part of a network on DATA, on a frozen backbone whose features are computed once.

    In --out, checkpoint.safetensors is what mmms-export takes, report.html shows the run, log.jsonl has its numbers. A
    run that was stopped goes on with the same command.
    """
    began = time.monotonic()
    _check_sources(backbone, backbone_ckpt, start, description)
    arguments = parse_datasets([_with_kind(text) for text in data], "DATA")
    others = parse_datasets([_with_kind(text) for text in val], "--val")
    for folder in filter(None, (out, cache)):
        check_folder(folder)
    with waiting("loading PyTorch"):
        load_training_room()
    from mmms_deploy.training.measure import HeldOut
    from mmms_deploy.training.occupied import occupied
    from mmms_deploy.training.pipeline import Training
    from mmms_deploy.training.recipe import Recipe
    from mmms_deploy.training.state import torch_device
    from mmms_deploy.training.survey import survey

    chosen = torch_device(device)
    with wrong_usage():
        peak = rate or (0.001 if start is None else 0.0003)
        recipe = Recipe(steps=steps, views=batch, learning_rate=peak, warmup=min(60, steps), seed=seed)
    with waiting("listing the data"):
        parts, measured = divide(arguments, others, held_out / 100)
    with occupied(out):
        if fresh:
            forget(out)
        with progress_bar("reading the data", remaining=True) as show:
            found = survey(parts, out / SURVEY_FILE, show)
        start, backbone_ckpt = fetched_sources(start, backbone_ckpt)
        with progress_bars("loading the backbone") as on_progress:
            network, origin = open_network(start, backbone, backbone_ckpt, description, size, found, seed, on_progress)
        check_modalities(network, parts)
        held = HeldOut(measured, network)
        series = make_views(network, parts, found, views, cache_limit, seed)
        with Training(
            network, series, out, recipe, cache=cache, device=chosen, threads=threads, start=origin
        ) as training:
            resumed = training.resume()
            with waiting("measuring this machine"):
                estimate = training.estimate()
            print_plan(training, estimate, parts, found, measured, series.each, out)
            training.check_room()
            if resumed:
                console.print(f"Goes on after step {training.run.step}.")
            if dry_run:
                return
            trained = _train(training, held, measure_every, out)
            checkpoint = write_results(
                training, trained, held, out, measure_images, backbone=not without_backbone, half=half
            )
    console.print(f"Done in {duration(time.monotonic() - began)}.")
    separate = backbone_ckpt or start
    beside = f" --backbone-ckpt {separate}" if without_backbone and separate is not None else ""
    click.echo(f"Export it: mmms-export --ckpt {checkpoint}{beside}")


def _check_sources(
    backbone: str | None, backbone_ckpt: Path | None, start: str | None, description: Path | None
) -> None:
    """Check what the network is made of, as far as the command line and the kinds of files show it."""
    if start is None and (backbone is None) == (description is None):
        raise click.UsageError("give --backbone NAME, or --description FILE, or --start CKPT")
    if backbone is not None and backbone_ckpt is None:
        from mmms_deploy.weights import PUBLISHED

        if backbone not in PUBLISHED:
            raise click.UsageError(
                f"--backbone {backbone} needs --backbone-ckpt FILE; published weights are found for"
                f" {', '.join(PUBLISHED)}{did_you_mean(backbone, PUBLISHED)}"
            )
    if start is not None and (backbone is not None or description is not None):
        raise click.UsageError("--start names the whole network; leave --backbone and --description out")
    if start is not None and start not in DEMOS:
        check_checkpoint(Path(start), "--start")
    if backbone_ckpt is not None:
        check_checkpoint(backbone_ckpt, "--backbone-ckpt")
    if description is not None:
        check_description(description)


def _with_kind(text: str) -> str:
    """Return a data set argument: a path alone is a folder of images and masks."""
    kind, equals, _ = text.partition("=")
    return text if equals and "/" not in kind and "\\" not in kind else f"folder={text}"


def _train(training: Training, held: HeldOut, measure_every: int, out: Path) -> InteractiveNetwork:
    from mmms_deploy.bundle.contract import to_builtins

    try:
        with progress_bar("computing features", remaining=True) as show:
            training.compute_features(show)
        with progress_bar("training", remaining=True) as show:
            return training.train(
                measure=(lambda run: dict(to_builtins(held.quick(training.network())))) if len(held) else None,
                measure_every=measure_every,
                on_progress=show,
            )
    except KeyboardInterrupt:
        warn(f"{_kept(training)} kept in {out}; the same command goes on from there")
        raise


def _kept(training: Training) -> str:
    step = training.run.step
    return f"step {step} and all computed features are" if step else "the features computed so far are"


if __name__ == "__main__":
    main()
