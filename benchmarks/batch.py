"""What clicks on several objects in one run gain over clicks one by one, on this machine's engines.

    python benchmarks/batch.py BUNDLE [BUNDLE ...]             writes results/batch.md
    python benchmarks/batch.py BUNDLE --rounds 9 --out FILE

The bundles are exported with ``--batch 4 --batch 16``. For every engine, precision and number of objects, calls of
``Session.click_objects`` alternate between a session that runs the clicks together and one that runs them one by one,
on one engine. A time is the process's CPU time, on all its threads: what others do on the machine does not count. A
figure is the median over the pairs of the ratio, above 1 where together costs less. Both also click on the same
places, so that their masks are compared. With one object nothing runs together: its line shows the noise.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import process_time

import numpy as np

from mmms_deploy import Bundle, Model, Session
from mmms_deploy.bundle import Precision
from mmms_deploy.engines.cores import available_cores
from mmms_deploy.errors import MMMSDeployError

OBJECTS = (1, 4, 16)
OUT = Path(__file__).parent / "results" / "batch.md"
ENGINES = (
    ("onnxruntime", Precision.FP32),
    ("openvino", Precision.FP32),
    ("openvino", Precision.BF16),
)


@dataclass(frozen=True)
class Measured:
    """One line of the table.

    Attributes:
        bundle: Name of the bundle.
        engine: What ran.
        objects: How many objects were clicked at once.
        alone: Median of CPU milliseconds for each object, one by one.
        gain: Median ratio of the times one by one and together.
        least: The smallest ratio.
        most: The largest one.
        equal: Whether all masks and probabilities are the same bits.
        differ: The largest difference of a probability.
        pixels: The share of the masks' pixels that differ.
    """

    bundle: str
    engine: str
    objects: int
    alone: float
    gain: float
    least: float
    most: float
    equal: bool
    differ: float
    pixels: float


def places(objects: int, size: tuple[int, int], turn: int) -> dict[str, tuple[float, float]]:
    """Return a place on every object, another one at every turn."""
    random = np.random.default_rng(turn)
    height, width = size
    return {
        str(number): (float(random.uniform(0, width - 1)), float(random.uniform(0, height - 1)))
        for number in range(1, objects + 1)
    }


def measure(model: Model, engine: str, objects: int, rounds: int) -> Measured:
    """Measure one engine with one number of objects.

    Args:
        model: The bundle on the engine.
        engine: What to call it.
        objects: How many objects are clicked at once.
        rounds: How many pairs of calls.
    """
    image = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    features = model.encode(image)
    ratios, alone, differ, pixels = [], [], 0.0, 0
    with model.session(batch=True) as together, model.session(batch=False) as single:
        for turn in range(-2, rounds):
            clicks, times, found = places(objects, (480, 640), turn + 2), {}, {}
            order: Sequence[tuple[str, Session]] = (("together", together), ("single", single))
            for name, session in order if turn % 2 else order[::-1]:
                session.use(features)
                start = process_time()
                found[name] = session.click_objects(clicks)
                times[name] = process_time() - start
            for name in clicks:
                ours, theirs = found["together"][name], found["single"][name]
                apart = np.abs(ours.network_probability - theirs.network_probability)
                differ = max(differ, float(apart.max()))
                pixels += int((ours.mask != theirs.mask).sum())
            if turn >= 0:
                ratios.append(times["single"] / times["together"])
                alone.append(1e3 * times["single"] / objects)
    total = objects * (rounds + 2) * image.shape[0] * image.shape[1]
    median, least, most = statistics.median(ratios), min(ratios), max(ratios)
    name = model.bundle.manifest.name
    return Measured(
        name, engine, objects, statistics.median(alone), median, least, most, differ == 0.0, differ, pixels / total
    )


def measure_all(bundles: Sequence[Bundle], rounds: int) -> list[Measured]:
    """Measure every bundle on every engine that runs here."""
    lines = []
    for bundle in bundles:
        for engine, precision in ENGINES:
            try:
                model = Model(bundle, engine=engine, precision=precision, strict=True)
            except MMMSDeployError as error:
                print(f"{bundle.manifest.name} on {engine} in {precision}: {error.given}", file=sys.stderr)
                continue
            with model:
                for objects in OBJECTS:
                    lines.append(measure(model, f"{model.engine.library}, {precision}", objects, rounds))
                    print(lines[-1], file=sys.stderr, flush=True)
    return lines


def table(lines: Sequence[Measured]) -> list[str]:
    """Return what was measured as lines of Markdown."""
    rows = [
        "| bundle | engine | objects | one by one, CPU ms each | together costs less by | from .. to | answers |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for one in lines:
        same = "the same bits" if one.equal else f"within {one.differ:.1e}, {one.pixels:.1e} of the pixels"
        rows.append(
            f"| {one.bundle} | {one.engine} | {one.objects} | {one.alone:.1f} | {one.gain:.2f}x"
            f" | {one.least:.2f} .. {one.most:.2f} | {same} |"
        )
    return rows


def main() -> int:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    lines = measure_all([Bundle(path) for path in given.bundles], given.rounds)
    text = [
        "# Clicks on several objects in one run",
        "",
        "Written by `python benchmarks/batch.py`, which says what is compared. Above 1x, together costs less CPU time.",
        f"{platform.processor() or platform.machine()}, {available_cores()} cores, {given.rounds} pairs of calls for a"
        " line.",
        "",
        *table(lines),
        "",
    ]
    given.out.write_text("\n".join(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
