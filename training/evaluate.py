"""Measure a checkpoint by simulated clicks: ``python -m training.evaluate --weights ... --davis ... --objects ...``."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click as cli
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmms_deploy.evaluation.annotator import Annotator
from mmms_deploy.evaluation.measures import MAX_CLICKS, Summary, iou, summarise
from training.davis import TrainingDataError, read_frames, split
from training.predictor import Predictor, load_network

CLICKS = (1, 3, 5, 10)
THRESHOLDS = (0.80, 0.85, 0.90)
VOID, OBJECT = 128, 255
TABLE_WIDTH = 130
"""Characters that the table needs; files and pipes have no width of their own."""


@dataclass(frozen=True, slots=True)
class Item:
    """One object to segment.

    Attributes:
        name: For reports.
        image: (H, W, 3) uint8, RGB.
        truth: (H, W) bool.
        void: (H, W) bool, pixels that do not count.
    """

    name: str
    image: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    void: NDArray[np.bool_]


def held_out_items(root: Path) -> Iterator[Item]:
    """The annotated frames of the held-out DAVIS sequences."""
    for frame in read_frames(root, split(root)[1]):
        if frame.mask.any():
            truth = frame.mask.astype(bool)
            yield Item(f"{frame.sequence}/{frame.name}", frame.image, truth, np.zeros_like(truth))


def object_items(root: Path) -> Iterator[Item]:
    """A folder of single objects: ``images/`` and ``masks/`` (0 background, 128 void, 255 object)."""
    masks = sorted((root / "masks").glob("*.png"))
    if not masks:
        raise TrainingDataError(f"there are no masks in {root / 'masks'}")
    for mask_path in masks:
        found = sorted((root / "images").glob(f"{mask_path.stem}.*"))
        if not found:
            raise TrainingDataError(f"{mask_path} has no image in {root / 'images'}")
        with Image.open(mask_path) as picture:
            mask = np.asarray(picture.convert("L"))
        with Image.open(found[0]) as picture:
            image = np.asarray(picture.convert("RGB"))
        yield Item(mask_path.stem, image, mask == OBJECT, mask == VOID)


def curve(predictor: Predictor, item: Item, max_clicks: int = MAX_CLICKS) -> list[float]:
    """IoU after each simulated click, closed loop; shorter than ``max_clicks`` only when no error is left."""
    predictor.set_image(item.image)
    annotator = Annotator(item.truth, item.void)
    mask = np.zeros_like(item.truth)
    values: list[float] = []
    for _ in range(max_clicks):
        click = annotator.click(mask)
        if click is None:
            break
        mask = predictor.click(click.x, click.y, click.positive)
        values.append(iou(mask, item.truth, item.void))
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


def evaluate(predictor: Predictor, items: Sequence[Item], name: str, max_clicks: int = MAX_CLICKS) -> list[list[float]]:
    """The curves of a set of items, with a progress bar."""
    return [curve(predictor, item, max_clicks) for item in track(items, description=name, transient=True)]


@cli.command()
@cli.option("--weights", type=cli.Path(exists=True, path_type=Path), required=True, help="A safetensors file.")
@cli.option("--davis", type=cli.Path(path_type=Path), help="DAVIS folder; its held-out sequences are measured.")
@cli.option("--objects", type=cli.Path(path_type=Path), help="Folder of single objects with void (VOC objects).")
@cli.option("--size", type=int, help="Run the network at this size instead of its own, pixels.")
@cli.option("--stride", default=1, show_default=True, help="Measure every n-th item only.")
@cli.option("--grey", is_flag=True, help="Control: pictures without content, so that clicks alone remain.")
@cli.option("--threads", default=2, show_default=True, help="Threads on a CPU.")
@cli.option("--json", "report", type=cli.Path(path_type=Path), help="Also write curves and summaries to this file.")
def main(
    weights: Path,
    davis: Path | None,
    objects: Path | None,
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
    predictor = Predictor(load_network(weights, size).to(device))
    sets: dict[str, list[Item]] = {}
    if objects is not None:
        sets[objects.name] = list(object_items(objects))[::stride]
    if davis is not None:
        sets["davis held out"] = list(held_out_items(davis))[::stride]
    if not sets:
        raise cli.UsageError("nothing to measure: give --davis, --objects or both")
    if grey:
        sets = {f"{n}, grey": [replace(i, image=np.full_like(i.image, 128)) for i in its] for n, its in sets.items()}
    started = time.monotonic()
    curves = {name: evaluate(predictor, items, name) for name, items in sets.items()}
    summaries = {name: summarise(values, CLICKS, THRESHOLDS) for name, values in curves.items()}
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, TABLE_WIDTH)
    console.print(table(summaries))
    console.print(f"{time.monotonic() - started:.0f} s on {device.type}")
    if report is not None:
        named = {n: {i.name: c for i, c in zip(sets[n], curves[n], strict=True)} for n in sets}
        report.write_text(
            json.dumps({"summaries": {n: asdict(s) for n, s in summaries.items()}, "curves": named}, indent=1)
        )


if __name__ == "__main__":
    main()
