"""Draw what a thermal image adds: ``python -m training.picture --weights FILE --out docs/images/thermal.jpg``.

Held-out drawn scenes: picture, thermal image, and the masks after the same clicks without it and with it.
"""

from __future__ import annotations

from pathlib import Path

import click as cli
import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from mmms_deploy.evaluation.annotator import Annotator, SimulatedClick
from mmms_deploy.replay.metrics import iou
from mmms_deploy.session.overlay import draw_overlay
from mmms_deploy.session.result import Click
from training.items import Item, drawn_items
from training.predictor import Predictor, load_network
from training.thermal import THERMAL

GAP, HEADER, TEXT = 8, 28, 15
TITLES = ("RGB", "thermal", "RGB alone", "RGB + thermal")


def clicks_without(predictor: Predictor, item: Item, count: int) -> list[SimulatedClick]:
    """The annotator's clicks when the network sees RGB alone; the masks with a thermal image are made of the same."""
    predictor.set_image(item.image)
    annotator = Annotator(item.truth, item.void)
    mask = np.zeros_like(item.truth)
    for _ in range(count):
        click = annotator.click(mask)
        if click is None:
            break
        mask = predictor.click(click.x, click.y, click.positive)
    return annotator.clicks


def answer(predictor: Predictor, item: Item, clicks: list[SimulatedClick], *, thermal: bool) -> Image.Image:
    """The mask after all clicks on the picture, with its IoU in a corner."""
    predictor.set_image(item.image, item.modalities if thermal else {})
    mask = np.zeros_like(item.truth)
    for click in clicks:
        mask = predictor.click(click.x, click.y, click.positive)
    shown = draw_overlay(item.image, mask, [Click(click.x, click.y, click.positive) for click in clicks])
    label(shown, f"IoU {iou(mask, item.truth):.2f}", (10, shown.height - 10), "ls")
    return shown


def label(picture: Image.Image, text: str, at: tuple[int, int], anchor: str) -> None:
    """Write white on black."""
    ImageDraw.Draw(picture).text(
        at, text, fill="white", anchor=anchor, font=ImageFont.load_default(TEXT), stroke_width=2, stroke_fill="black"
    )


def sheet(predictor: Predictor, items: list[Item], clicks: int) -> Image.Image:
    """A row for each item, a column for each of :data:`TITLES`."""
    height, width = items[0].truth.shape
    page = Image.new(
        "RGB", (len(TITLES) * (width + GAP) - GAP, HEADER + len(items) * (height + GAP) - GAP), (255, 255, 255)
    )
    for column, title in enumerate(TITLES):
        ImageDraw.Draw(page).text(
            (column * (width + GAP) + width // 2, HEADER // 2),
            title,
            fill="black",
            anchor="mm",
            font=ImageFont.load_default(TEXT),
        )
    for row, item in enumerate(items):
        made = clicks_without(predictor, item, clicks)
        tiles = [
            Image.fromarray(item.image),
            Image.fromarray(item.modalities[THERMAL.name]).convert("RGB"),
            *(answer(predictor, item, made, thermal=thermal) for thermal in (False, True)),
        ]
        label(tiles[0], item.kind, (10, 10), "la")
        for column, tile in enumerate(tiles):
            page.paste(tile, (column * (width + GAP), HEADER + row * (height + GAP)))
    return page


@cli.command()
@cli.option("--weights", required=True, help="A safetensors file, or the name of a checkpoint that ships.")
@cli.option("--out", type=cli.Path(path_type=Path), required=True, help="The PNG to write.")
@cli.option("--scene", "scenes", multiple=True, required=True, help="A held-out scene, e.g. night/3; several allowed.")
@cli.option("--clicks", default=2, show_default=True, help="Clicks on each object.")
def main(weights: str, out: Path, scenes: tuple[str, ...], clicks: int) -> None:
    """Draw held-out scenes with and without the thermal image."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    most = max(int(scene.partition("/")[2]) for scene in scenes) + 1
    items = {item.name: item for item in drawn_items(most)}
    page = sheet(Predictor(load_network(weights)), [items[scene] for scene in scenes], clicks)
    page.convert("RGB").save(out, quality=75, optimize=True)


if __name__ == "__main__":
    main()
