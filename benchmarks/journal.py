"""What a journal costs: clicks of one session that writes one, beside those of one that does not, in turns.

    python benchmarks/journal.py
    python benchmarks/journal.py --bundle demo-small --size 3000x4000

Prints, for every size, the middle of a click without and with a journal, the time that writing itself takes, and the
bytes of a click. Nothing is kept.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from mmms_deploy import Journal, Session
from mmms_deploy.engines.machine import describe_machine, machine_lines


def measure(bundle: str, size: tuple[int, int], clicks: int, folder: Path, *, masks: bool) -> str:
    """Return a line of the table.

    Args:
        bundle: The bundle.
        size: (H0, W0) of the image.
        clicks: How many clicks are made in each session.
        folder: Where the journal is written.
        masks: Whether it has whole masks.
    """
    draw = np.random.default_rng(0)
    image = draw.integers(0, 255, (*size, 3), dtype=np.uint8)
    place = folder / f"{size[0]}x{size[1]}-{masks}.jsonl"
    times: dict[bool, list[float]] = {False: [], True: []}
    written: list[float] = []
    journal = Journal(place, masks=masks)
    with journal, Session(bundle) as plain, Session(bundle, journal=journal) as kept:
        for session in (plain, kept):
            session.set_image(image)
            session.click(size[1] // 2, size[0] // 2)
        recorder = kept._recorder
        assert recorder is not None
        done = recorder.done

        def timed(*given: Any) -> None:
            start = perf_counter()
            done(*given)
            written.append(1e3 * (perf_counter() - start))

        recorder.done = timed  # type: ignore[method-assign]
        before = journal.size
        for number in range(clicks):
            x, y = float(draw.integers(0, size[1])), float(draw.integers(0, size[0]))
            turns = (plain, kept) if number % 2 else (kept, plain)
            for session in turns:
                start = perf_counter()
                session.click(x, y, number % 3 > 0)
                times[session is kept].append(1e3 * (perf_counter() - start))
        grown = (journal.size - before) / clicks
    without, with_one, writing = median(times[False]), median(times[True]), median(written)
    named = f"{size[1]} x {size[0]}" + (", masks" if masks else "")
    return f"| {named} | {without:.2f} | {with_one:.2f} | {writing:.3f} | {writing / without:.1%} | {grown:.0f} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="demo-small", help="the bundle (default: demo-small)")
    parser.add_argument("--size", action="append", help="HxW of the image; default: 480x640 and 3000x4000")
    parser.add_argument("--clicks", type=int, default=100, help="clicks in each session (default: 100)")
    given = parser.parse_args(arguments)
    for name, value in machine_lines(describe_machine()):
        print(f"{name}: {value}")
    print("\n| image | click, ms | with a journal, ms | writing, ms | writing / click | bytes a click |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for text in given.size or ["480x640", "3000x4000"]:
            height, width = (int(side) for side in text.split("x"))
            for masks in (False, True):
                print(measure(given.bundle, (height, width), given.clicks, Path(folder), masks=masks), flush=True)


if __name__ == "__main__":
    main()
