"""How long it takes to prepare a photograph and to enlarge a mask, against the forms before threads shared the work.

    python benchmarks/imaging.py                  # prints the table
    python benchmarks/imaging.py --write          # and writes results/imaging.md
    chrt -f 1 python benchmarks/imaging.py        # where other programs take the CPUs (Linux, root)

Both forms run in turns in one process. The plain form, one product at a time on one core, is kept here alone. The
package imports nothing from here.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mmms_deploy.bundle.contract import ImageSpec, ResizeRule
from mmms_deploy.imaging.image_resize import resize_channels_last
from mmms_deploy.imaging.mask_resize import _all_along, _axes, enlarge_above
from mmms_deploy.imaging.preprocess import prepare
from mmms_deploy.imaging.resize import _apply_columns, _bands, resize
from mmms_deploy.imaging.threads import usable
from mmms_deploy.imaging.tiles import tile_windows

NETWORK = (448, 448)
SIZES = ((480, 854), (1080, 1920), (2160, 3840), (4000, 6000))
GROUP_ROWS = 64
PRODUCT = 1 << 18
RESULTS = Path(__file__).parent / "results" / "imaging.md"


def plain_resize(image: np.ndarray, size: tuple[int, int], rule: ResizeRule) -> np.ndarray:
    """Resize (H, W, C) to (C, H', W') by small products, one after the other."""
    height, width, channels = image.shape
    out = np.empty((channels, *size), dtype=np.float32)
    rows, columns = image.reshape(height, width * channels), _bands(width, size[1], rule)
    bands = list(_bands(height, size[0], rule))
    while bands:
        start = bands[0].start
        count = next((i + 1 for i, band in enumerate(bands) if band.stop - start >= GROUP_ROWS), len(bands))
        group, bands = bands[:count], bands[count:]
        stop = group[-1].stop
        block = np.empty((stop - start, width * channels), dtype=np.float32)
        for band in group:
            target = block[band.start - start : band.stop - start]
            step = max(1, PRODUCT // band.weights.size)
            for left in range(0, width * channels, step):
                part = slice(left, left + step)
                np.matmul(band.weights, rows[band.first : band.last, part].astype(np.float32), out=target[:, part])
        planes = np.ascontiguousarray(block.reshape(-1, width, channels).transpose(2, 0, 1)).reshape(-1, width)
        out[:, start:stop] = _apply_columns(planes, columns, size[1]).reshape(channels, -1, size[1])
    return out


def plain_prepare(image: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """Resize and normalise."""
    out = plain_resize(image, NETWORK, spec.resize)
    out *= np.float32(spec.scale)
    out -= np.asarray(spec.mean, dtype=np.float32)[:, None, None]
    out /= np.asarray(spec.std, dtype=np.float32)[:, None, None]
    return out[None]


def plain_above(plane: np.ndarray, size: tuple[int, int], rule: ResizeRule, threshold: float) -> np.ndarray:
    """Enlarge a map and compare it: all undecided tiles in batches, with a transposed view of the weights."""
    rows, columns = _axes(plane, size, rule)
    limit = np.float32(threshold)
    margin = abs(limit) * np.float32(2.0**-19)
    above = _all_along(_all_along(plane > limit + margin, rows).T, columns).T
    below = _all_along(_all_along(plane < limit - margin, rows).T, columns).T
    wide = np.repeat(above, columns.length, axis=1)[:, : size[1]]
    out = np.repeat(wide, rows.length, axis=0)[: size[0]]
    target = tile_windows(out, rows, columns)
    windows = sliding_window_view(plane, (rows.reach, columns.reach))
    transposed = columns.weights.transpose(0, 2, 1)
    row, column = np.nonzero(~(above | below))
    for start in range(0, len(row), 64):
        i, j = row[start : start + 64], column[start : start + 64]
        tiles = rows.weights[i] @ (windows[rows.source[i], columns.source[j]] @ transposed[j])
        target[rows.target[i], columns.target[j]] = tiles > limit
    return out


def probabilities() -> dict[str, np.ndarray]:
    """Return maps of the network's size, from few outlines to many."""
    rng, rule = np.random.default_rng(0), ResizeRule()
    rows, columns = np.mgrid[: NETWORK[0], : NETWORK[1]]

    def logits(grid: int) -> np.ndarray:
        return resize(rng.normal(size=(grid, grid)), NETWORK, rule)

    def sigmoid(numbers: np.ndarray) -> np.ndarray:
        return (1 / (1 + np.exp(-numbers))).astype(np.float32)

    return {
        "a disc": sigmoid((120 - np.hypot(rows - 200, columns - 230)) / 2),
        "blobs": sigmoid(8 * logits(NETWORK[0] // 32)),
        "outlines everywhere": sigmoid(0.3 * logits(NETWORK[0] // 4)),
        "noise": rng.random(NETWORK, dtype=np.float32),
    }


def masks(count: int) -> list[str]:
    """Return the lines about masks."""
    lines = [
        "",
        "# Enlarging a mask",
        "",
        f"A probability of {NETWORK[1]} x {NETWORK[0]} to a mask of the image's size, in the same run; *plain* computes"
        " one batch of tiles after the other. *Outlines everywhere* is the sigmoid of noise on a grid of a quarter of"
        " the size, as networks give whose weights are random. *Same*: the masks of both forms are equal.",
        "",
        "| image | mask of | plain, ms | now, ms | now / plain | CPU time, now / plain | one thread: now / plain"
        " | same |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rule = ResizeRule()
    for size in SIZES[:3]:
        for name, plane in probabilities().items():
            actions: dict[str, Callable[[], object]] = {
                "plain": lambda plane=plane, size=size: plain_above(plane, size, rule, 0.5),  # type: ignore[misc]
                "now": lambda plane=plane, size=size: enlarge_above(plane, size, rule, 0.5),  # type: ignore[misc]
                "one": lambda plane=plane, size=size: enlarge_above(plane, size, rule, 0.5, 1),  # type: ignore[misc]
            }
            in_turns(actions, 2)
            found = in_turns(actions, count)
            (plain, plain_cpu), (now, now_cpu) = found["plain"], found["now"]
            same = np.array_equal(plain_above(plane, size, rule, 0.5), enlarge_above(plane, size, rule, 0.5))
            lines.append(
                f"| {size[1]} x {size[0]} | {name} | {plain:.1f} | {now:.1f} | {now / plain:.2f} |"
                f" {now_cpu / plain_cpu:.2f} | {found['one'][0] / plain:.2f} | {'yes' if same else 'no'} |"
            )
    return lines


def in_turns(actions: dict[str, Callable[[], object]], count: int) -> dict[str, tuple[float, float]]:
    """Return the medians of wall time and of CPU time of every action, in milliseconds."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in actions}
    for _ in range(count):
        for name, action in actions.items():
            wall, cpu = perf_counter(), process_time()
            action()
            times[name].append((perf_counter() - wall, process_time() - cpu))
    return {name: (1e3 * float(np.median([w for w, _ in t])), 1e3 * float(np.median([c for _, c in t])))
            for name, t in times.items()}  # fmt: skip


def priority() -> str:
    """Return a note where the kernel lets this process run before all ordinary ones."""
    if not hasattr(os, "sched_getscheduler") or os.sched_getscheduler(0) not in (os.SCHED_FIFO, os.SCHED_RR):
        return ""
    return ", with real-time priority over the other programs of a busy machine"


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--note", default="", help="What to say of the machine.")
    parser.add_argument("--write", action="store_true", help=f"Write {RESULTS.name}.")
    options = parser.parse_args()
    spec = ImageSpec()
    lines = [
        "# Preparing a photograph",
        "",
        f"`python benchmarks/imaging.py --write`: RGB uint8 noise to {NETWORK[1]} x {NETWORK[0]}, antialiased and"
        f" normalised; medians of {options.count} in turns, on {usable()} CPUs{priority()}, NumPy {np.__version__}."
        f"{' ' + options.note if options.note else ''}"
        " *Plain* is the form before: one small product after the other. *Difference* is the largest one of the"
        " resized numbers, as a share of the values' range.",
        "",
        "| image | plain, ms | now, ms | now / plain | CPU time, now / plain | one thread: now / plain | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for size in SIZES:
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        actions: dict[str, Callable[[], object]] = {
            "plain": lambda image=image: plain_prepare(image, spec),  # type: ignore[misc]
            "now": lambda image=image: prepare(image, spec, NETWORK),  # type: ignore[misc]
            "plain resize": lambda image=image: plain_resize(image, NETWORK, spec.resize),  # type: ignore[misc]
            "one": lambda image=image: resize_channels_last(image, NETWORK, spec.resize, 1),  # type: ignore[misc]
        }
        in_turns(actions, 2)
        found = in_turns(actions, options.count)
        apart = plain_resize(image, NETWORK, spec.resize) - resize_channels_last(image, NETWORK, spec.resize)
        (plain, plain_cpu), (now, now_cpu) = found["plain"], found["now"]
        one = found["one"][0] / found["plain resize"][0]
        lines.append(
            f"| {size[1]} x {size[0]} | {plain:.1f} | {now:.1f} | {now / plain:.2f} | {now_cpu / plain_cpu:.2f} |"
            f" {one:.2f} | {float(np.abs(apart).max()) / 255:.1e} |"
        )
    lines += masks(options.count)
    print("\n".join(lines))
    if options.write:
        RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
