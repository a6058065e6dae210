"""Measure a checkpoint by simulated clicks: ``python -m training.evaluate --weights ... --davis ... --objects ...``.

Where the data have modalities that the network takes, everything is measured with them and without them.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import click as cli
import cv2
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmms_deploy.commands.train_results import CHECKPOINT_FILE
from mmms_deploy.evaluation.annotator import Annotator
from mmms_deploy.evaluation.measures import MAX_CLICKS, Summary, summarise
from mmms_deploy.replay.metrics import iou
from training.items import Item, drawn_items, held_out_items, mfnet_items, object_items, thermal_frame_items
from training.predictor import Predictor, load_network

CLICKS = (1, 3, 5, 10)
THRESHOLDS = (0.80, 0.85, 0.90)
TABLE_WIDTH = 160
"""Characters that the table needs; files and pipes have no width of their own."""


def curve(predictor: Predictor, item: Item, max_clicks: int = MAX_CLICKS, *, modalities: bool = True) -> list[float]:
    """IoU after each simulated click, closed loop.

    Shorter than ``max_clicks`` when no error is left, or when the measures cannot change any more.

    Args:
        predictor: The network.
        item: The object.
        max_clicks: The limit.
        modalities: Whether the network sees the item's modalities.
    """
    predictor.set_image(item.image, item.modalities if modalities else {})
    annotator = Annotator(item.truth, item.void)
    mask = np.zeros_like(item.truth)
    values: list[float] = []
    for _ in range(max_clicks):
        click = annotator.click(mask)
        if click is None:
            break
        mask = predictor.click(click.x, click.y, click.positive)
        values.append(iou(mask, item.truth, item.void))
        if len(values) >= max(CLICKS) and max(values) >= max(THRESHOLDS):
            break
    return values


def table(summaries: dict[str, Summary]) -> Table:
    """The summaries side by side."""
    shown = Table(title="simulated clicks, masks at the image's resolution")
    shown.add_column("data", no_wrap=True)
    shown.add_column("objects", justify="right", no_wrap=True)
    for k in CLICKS:
        shown.add_column(f"IoU@{k}", justify="right", no_wrap=True)
    for t in THRESHOLDS:
        shown.add_column(f"NoC@{t:.0%}".rstrip("%"), justify="right", no_wrap=True)
        shown.add_column("failed", justify="right", no_wrap=True)
    for name, s in summaries.items():
        cells = [f"{s.mean_iou[k]:.3f}" for k in CLICKS]
        for t in THRESHOLDS:
            cells += [f"{s.noc[t]:.2f}", f"{s.failures[t]:.0%}"]
        shown.add_row(name, str(s.objects), *cells)
    return shown


Curves = dict[tuple[str, str], list[list[float]]]
"""Curves of a set's items, in order, by the name of the set and the name of the network and its inputs."""


def evaluate(predictor: Predictor, sets: dict[str, list[Item]], label: str, max_clicks: int = MAX_CLICKS) -> Curves:
    """The curves of all sets, with a progress bar; sets with modalities twice, with them and without.

    Args:
        predictor: The network.
        sets: Items by the set's name.
        label: The network's name where several are compared; may be empty.
        max_clicks: The limit.
    """
    taken = {spec.name for spec in predictor.model.config.modalities}
    curves: Curves = {}
    for name, items in sets.items():
        shared = sorted({m for item in items for m in item.modalities} & taken)
        ways = {"+".join(("RGB", *shared)): True, "RGB alone": False} if shared else {"": False}
        for way, given in ways.items():
            shown = track(items, description=", ".join(filter(None, (name, label, way))), transient=True)
            measured = [curve(predictor, item, max_clicks, modalities=given) for item in shown]
            curves[name, ", ".join(filter(None, (label, way)))] = measured
    return curves


def summaries_of(curves: Curves, sets: dict[str, list[Item]]) -> dict[str, Summary]:
    """A summary of each set, and of each kind within a set that has several."""
    summaries = {}
    for (name, way), values in curves.items():
        items = sets[name]
        groups = {name: values}
        for kind in dict.fromkeys(item.kind for item in items if item.kind):
            groups[f"{name} ({kind})"] = [v for v, item in zip(values, items, strict=True) if item.kind == kind]
        for group, own in groups.items():
            summaries[", ".join(filter(None, (group, way)))] = summarise(own, CLICKS, THRESHOLDS)
    return summaries


def _label(given: str) -> str:
    """The name of a network in the table: that of its file, or of its folder where training named the file."""
    path = Path(given)
    return path.parent.name if path.name == CHECKPOINT_FILE and path.parent.name else path.stem


@cli.command()
@cli.option("--weights", required=True, help="A safetensors file, or the name of a checkpoint that ships.")
@cli.option("--baseline", help="A second network to compare with, in the same way.")
@cli.option("--davis", type=cli.Path(path_type=Path), help="DAVIS folder; its held-out sequences are measured.")
@cli.option("--objects", type=cli.Path(path_type=Path), help="Folder of single objects with void (VOC objects).")
@cli.option("--mfnet", type=cli.Path(path_type=Path), help="MFNet folder: street scenes with real thermal images.")
@cli.option("--drawn", type=int, default=0, help="Measure so many drawn scenes under each condition.")
@cli.option("--size", type=int, help="Run the network at this size instead of its own, pixels.")
@cli.option("--stride", default=1, show_default=True, help="Measure every n-th item only.")
@cli.option("--grey", is_flag=True, help="Control: pictures without content, so that clicks alone remain.")
@cli.option("--threads", default=2, show_default=True, help="Threads on a CPU.")
@cli.option("--json", "report", type=cli.Path(path_type=Path), help="Also write curves and summaries to this file.")
def main(
    weights: str,
    baseline: str | None,
    davis: Path | None,
    objects: Path | None,
    mfnet: Path | None,
    drawn: int,
    size: int | None,
    stride: int,
    grey: bool,
    threads: int,
    report: Path | None,
) -> None:
    """Measure a checkpoint by simulated clicks."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_network(weights, size)
    sets: dict[str, list[Item]] = {}
    if objects is not None:
        sets[objects.name] = list(object_items(objects))
    if davis is not None:
        sets["davis held out"] = list(held_out_items(davis))
        if model.config.modalities:
            sets["davis with thermal"] = list(thermal_frame_items(davis))
    if drawn:
        sets["drawn"] = list(drawn_items(drawn))
    if mfnet is not None:
        sets["mfnet"] = list(mfnet_items(mfnet))
    if not sets:
        raise cli.UsageError("nothing to measure: give --davis, --objects, --mfnet or --drawn")
    sets = {name: items[::stride] for name, items in sets.items()}
    if grey:
        sets = {
            f"{n}, grey": [replace(i, image=np.full_like(i.image, 128), modalities={}) for i in its]
            for n, its in sets.items()
        }
    started = time.monotonic()
    networks = {_label(weights) if baseline else "": model}
    if baseline is not None:
        if _label(baseline) in networks:
            raise cli.UsageError(f"both networks are named {_label(baseline)}: rename one of the files")
        networks[_label(baseline)] = load_network(baseline, size)
    curves: Curves = {}
    for label, network in networks.items():
        curves |= evaluate(Predictor(network.to(device)), sets, label)
    summaries = summaries_of(curves, sets)
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, TABLE_WIDTH)
    console.print(table(summaries))
    console.print(f"{time.monotonic() - started:.0f} s on {device.type}")
    if report is not None:
        named = {
            ", ".join(filter(None, key)): {i.name: c for i, c in zip(sets[key[0]], values, strict=True)}
            for key, values in curves.items()
        }
        report.write_text(
            json.dumps({"summaries": {n: asdict(s) for n, s in summaries.items()}, "curves": named}, indent=1)
        )


if __name__ == "__main__":
    main()
