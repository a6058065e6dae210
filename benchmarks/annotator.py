"""How long a click of the simulated annotator takes: ``python benchmarks/annotator.py``, milliseconds on one core.

Usual errors (an object missed, shifted, or surrounded), and the worst kinds for distance transforms: checkerboards,
stripes, noise and blobs that fill the frame, with false negatives and false positives side by side.
"""

from __future__ import annotations

import time

import click
import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from mmms_deploy.evaluation.annotator import next_click
from mmms_deploy.evaluation.depth import distance_to_border

Mask = NDArray[np.bool_]
SIZE = (1080, 1920)


def blobs(rng: np.random.Generator, sigma: float) -> Mask:
    """Return random patches of about ``sigma`` pixels."""
    smooth: Mask = cv2.GaussianBlur(rng.standard_normal(SIZE).astype(np.float32), (0, 0), sigma) > 0
    return smooth


def cases() -> dict[str, tuple[Mask, Mask]]:
    """Return ground truth and prediction, by name."""
    rng = np.random.default_rng(0)
    yy, xx = np.mgrid[: SIZE[0], : SIZE[1]]
    nothing = np.zeros(SIZE, np.bool_)
    ellipse = ((xx - 960) / 800) ** 2 + ((yy - 540) / 450) ** 2 < 1
    found = {
        "object missed": (ellipse, nothing),
        "object shifted": (ellipse, np.roll(ellipse, 200, axis=1)),
        "all taken": (ellipse, ~nothing),
        "whole frame missed": (~nothing, nothing),
        "object with 0.1 % noise": (ellipse, ellipse ^ (rng.random(SIZE) < 0.001)),
        "stripes of 2": ((xx // 2) % 2 == 0, (xx // 2) % 2 == 1),
    }
    for cell in (1, 8, 64, 200):
        board = (xx // cell + yy // cell) % 2 == 0
        found[f"checkerboard of {cell}"] = (board, ~board)
    for share in (0.5, 0.95, 0.999):
        found[f"noise, {share:.1%} wrong"] = (rng.random(SIZE) < share, nothing)
    found["noise against noise"] = (rng.random(SIZE) < 0.5, rng.random(SIZE) < 0.5)
    for sigma in (4, 15, 30, 60):
        patches = blobs(rng, sigma)
        found[f"blobs of {sigma}"] = (patches, ~patches)
    return found


@click.command()
@click.option("--repeat", default=5, show_default=True, help="Runs of each case; the fastest counts.")
def main(repeat: int) -> None:
    """Measure a click at 1920 x 1080, beside two distance transforms of the whole frame."""
    cv2.setNumThreads(1)
    table = Table("error", "click, ms", "distances of all pixels, ms", title="one click at 1920 x 1080, one core")
    for name, (truth, guess) in cases().items():
        clicked = np.zeros(SIZE, np.bool_)
        row = []
        for work in (
            lambda: next_click(truth, guess, clicked),  # noqa: B023
            lambda: (distance_to_border(truth & ~guess), distance_to_border(guess & ~truth)),  # noqa: B023
        ):
            times = []
            for _ in range(repeat):
                start = time.process_time()
                work()
                times.append(time.process_time() - start)
            row.append(f"{1e3 * min(times):.1f}")
        table.add_row(name, *row)
    Console().print(table)


if __name__ == "__main__":
    main()
