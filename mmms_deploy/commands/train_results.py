"""``mmms-train``: what will be done, and what came out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from mmms_deploy.commands.common import console
from mmms_deploy.commands.display import progress_bar
from mmms_deploy.commands.tables import print_table
from mmms_deploy.models.config import backbone_name

if TYPE_CHECKING:
    from mmms_deploy.evaluation.summary import DatasetSummary
    from mmms_deploy.models.network import InteractiveNetwork
    from mmms_deploy.training.data import Part
    from mmms_deploy.training.measure import GuardSummary, HeldOut
    from mmms_deploy.training.pipeline import Estimate, Training
    from mmms_deploy.training.survey import Survey

CHECKPOINT_FILE = "checkpoint.safetensors"
_SHOWN_CLICKS = (1, 3, 5, 10)


def print_plan(
    training: Training,
    estimate: Estimate,
    parts: Sequence[Part],
    found: Survey,
    measured: Sequence[Part],
    each: int,
    out: Path,
) -> None:
    """Say what was found, and what it will take."""
    config = training.run.head.config
    table = Table(show_header=False, box=box.SIMPLE)
    table.add_column(no_wrap=True)
    table.add_column()
    for part, counts in zip(parts, found.objects, strict=True):
        empty = sum(count == 0 for count in counts)
        without = f", {empty} without any" if empty else ""
        table.add_row(f"data {escape(part.name)}", f"{len(part)} pictures, {sum(counts)} objects{without}")
    table.add_row("held out", f"{sum(map(len, measured))} pictures" if measured else "none: nothing is measured")
    names = [f"{spec.name}{' (optional)' if spec.optional else ''}" for spec in config.modalities]
    table.add_row("modalities", ", ".join(names) or "none beside RGB")
    table.add_row("backbone", f"{escape(backbone_name(config))}, frozen, at {config.size[0]}x{config.size[1]}")
    table.add_row("trained", f"{estimate.parameters / 1e6:.1f} M parameters")
    table.add_row(
        "features",
        f"{estimate.views} views ({each} a picture), {_size(estimate.cache_bytes)} in"
        f" {escape(str(training.cache.folder))}; {estimate.missing} to compute, {estimate.view_seconds:.2f} s each",
    )
    precision = "bfloat16" if training.facts.bfloat16 else "float32"
    threads = f", {training.run.threads} threads" if training.facts.device == "cpu" else ""
    table.add_row(
        "steps", f"{estimate.steps}, {estimate.step_seconds:.2f} s each ({training.facts.device}, {precision}{threads})"
    )
    table.add_row("time", f"about {duration(estimate.seconds)}, and measuring")
    table.add_row("writes to", escape(str(out)))
    print_table(table)


def write_results(
    training: Training,
    trained: InteractiveNetwork,
    held: HeldOut,
    out: Path,
    images: int,
    *,
    backbone: bool,
    half: bool,
) -> Path:
    """Write the checkpoint, measure it, and write the page; returns the checkpoint."""
    from mmms_deploy.evaluation.summary import summarise_run
    from mmms_deploy.training.loop import read_log
    from mmms_deploy.training.page import write_page
    from mmms_deploy.training.pipeline import write_checkpoint

    path = out / CHECKPOINT_FILE
    size = write_checkpoint(path, trained, backbone=backbone, half=half)
    summaries: tuple[DatasetSummary, ...] = ()
    guards: GuardSummary | None = None
    if len(held) and images:
        with progress_bar("measuring", remaining=True) as show:
            run = held.full(trained, path, out / "evaluation", limit=images, on_progress=show)
            summaries = summarise_run(run.facts, run)
            guards = held.guards(trained, scenes=min(images, 20), on_progress=show)
        _print_measures(summaries, guards)
    recipe = training.run.recipe
    facts = [
        ("steps", f"{recipe.steps} of {recipe.views} views"),
        ("backbone", f"{backbone_name(trained.config)}, weights {training.facts.backbone[:16]}"),
        ("modalities", ", ".join(spec.name for spec in trained.config.modalities) or "none beside RGB"),
        ("checkpoint", f"{size / 1e6:.1f} MB, {'with' if backbone else 'without'} the backbone"),
    ]
    page = write_page(out, facts, read_log(out), summaries, guards)
    held_by = "with the backbone's weights" if backbone else "without the backbone's weights"
    console.print(f"[bold green]{escape(str(path))}[/]: {size / 1e6:.1f} MB, {held_by}.", soft_wrap=True)
    console.print(f"The run: {escape(str(page))}", soft_wrap=True)
    return path


def _print_measures(summaries: Sequence[DatasetSummary], guards: GuardSummary) -> None:
    table = Table(box=box.SIMPLE)
    table.add_column("held out", no_wrap=True)
    table.add_column("objects", justify="right")
    for k in _SHOWN_CLICKS:
        table.add_column(f"IoU@{k}", justify="right")
    targets = [one.target for one in summaries[0].targets] if summaries else []
    for target in targets:
        table.add_column(f"NoC@{100 * target:g}", justify="right")
    for summary in summaries:
        ious = [] if summary.curve is None else [f"{100 * summary.curve.iou[k - 1]:.1f}" for k in _SHOWN_CLICKS]
        table.add_row(escape(summary.name), str(summary.objects), *ious, *(f"{one.noc:.2f}" for one in summary.targets))
    print_table(table)
    if guards.cases:
        console.print(
            f"A negative click on background enlarges {100 * guards.enlarged:.1f} % of {guards.cases} masks by more"
            " than 2 %."
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count / 1e6, 0.1):.1f} MB"


def duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
