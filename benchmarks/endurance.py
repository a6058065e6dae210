"""How memory and time go over very many clicks in one session: ``python benchmarks/endurance.py``.

    python benchmarks/endurance.py                                   # 1,000,000 clicks (make test-million)
    python benchmarks/endurance.py --clicks 20000 --limit none       # every step can be undone: what does that hold?

Clicks on a toy network of 32 x 32 that ONNX Runtime runs, so that the session's own memory is what is seen. Undo, redo,
new clicks after an undo, masks, other objects, names and resets are mixed in. The resident memory is read from
/proc/self/statm (Linux) every 10,000 clicks. At the end all clicks are compared with a list that was kept by no
session. Exit code 1 where memory grows by more than :data:`MOST` bytes a click after the first :data:`WARM` clicks;
with steps that hold all clicks before them as tuples it is several thousand. Writes ``results/endurance.md`` and
``endurance.json``; each limit has its own entry there.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from mmms_deploy import Session  # noqa: E402
from mmms_deploy.engines.machine import describe_machine, machine_lines  # noqa: E402
from mmms_deploy.reporting.files import write_text  # noqa: E402
from tests.support.toy import write_toy  # noqa: E402

SIDE = 32
MOST = 48
"""Bytes that a click may add: its own 17, its share of a block, and pages of the allocator that are not full."""
WARM = 20_000
"""Clicks before memory is compared: the history is full, and the allocators have their first pages."""


@dataclass(frozen=True)
class Point:
    """The process at one moment.

    Attributes:
        clicks: Clicks so far.
        resident: Resident memory in bytes.
        seconds: What the clicks since the last point took.
        objects: Objects that Python's collector knows.
    """

    clicks: int
    resident: int
    seconds: float
    objects: int


def main() -> int:
    """Run, and return the exit code: 1 where memory grows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clicks", type=int, default=1_000_000)
    parser.add_argument("--every", type=int, default=10_000, help="clicks between two looks at the memory")
    parser.add_argument("--limit", default="100", help="history_limit, or none")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results")
    options = parser.parse_args()
    limit = None if options.limit == "none" else int(options.limit)
    points = run(options.clicks, options.every, limit)
    grown = growth(points)
    place = options.out / "endurance.json"
    found: dict[str, Any] = json.loads(place.read_text()) if place.exists() else {"runs": {}}
    options.out.mkdir(parents=True, exist_ok=True)
    found["runs"][options.limit] = [asdict(point) for point in points]
    write_text(place, f"{json.dumps(found, indent=1)}\n".encode())
    write_text(options.out / "endurance.md", written(found["runs"]).encode())
    print(f"{grown:.1f} bytes a click after the first {WARM:,} (at most {MOST})")
    return int(limit is not None and grown > MOST)


def run(clicks: int, every: int, limit: int | None) -> list[Point]:
    """Click, and return the process at every so many clicks."""
    points: list[Point] = []
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_toy(Path(folder) / "toy", size=(SIDE, SIDE))
        with Session(bundle, engine="onnxruntime", device="cpu", threads=1, history_limit=limit) as session:
            session.set_image(np.full((SIDE, SIDE, 3), 40, dtype=np.uint8))
            start = perf_counter()
            for done in annotate(session, clicks):
                if done % every == 0:
                    seconds = perf_counter() - start
                    gc.collect()
                    points.append(Point(done, resident(), seconds, len(gc.get_objects())))
                    print(
                        f"{done:10,}  {points[-1].resident / 2**20:7.1f} MiB  {every / seconds:6.0f} clicks/s",
                        flush=True,
                    )
                    start = perf_counter()
            kept = [click.to_list() for click in session.clicks]
            assert kept == expected(clicks), "the session's clicks are not those that were made"
            assert list(saved_clicks(session)) == kept
    return points


def annotate(session: Session, clicks: int) -> Iterator[int]:
    """Click so many times, with all other calls in between; yield how many there were."""
    for number in range(1, clicks + 1):
        if number % 1000 == 900:  # another object takes pixels, so that a mask is put in when the first one is back
            session.select("2")
        if number % 1000 == 950:
            session.set_mask(np.eye(SIDE, dtype=bool))
        session.click(*place(number))
        if number % 1000 == 970:
            session.select("1")
            session.select("2")
        if number % 1000 == 999:
            session.rename("2", "other")
            session.reset()
            session.remove("other")
            session.select("1")
        elif number % 100 == 50 and number % 1000 < 900:
            session.undo()
            session.undo()
            session.redo()
        yield number


def place(number: int) -> tuple[float, float, bool]:
    """Return a click; no two of the same thousand are the same."""
    return number % SIDE + number % 1000 / 2048, number // SIDE % SIDE + 0.25, number % 3 > 0


def expected(clicks: int) -> list[list[float]]:
    """Return the first object's clicks, by a plain list."""
    kept: list[list[float]] = []
    for number in range(1, clicks + 1):
        if number % 1000 >= 900:
            continue
        x, y, positive = place(number)
        kept.append([x, y, int(positive)])
        if number % 100 == 50:
            kept.pop()
    return kept


def saved_clicks(session: Session) -> Iterator[list[float]]:
    """Yield the first object's clicks as an annotation has them."""
    surface = session.to_dict()["surfaces"][0]
    done = len(surface["interactions"]) - surface["undone"]
    yield from (one for one in surface["interactions"][:done] if isinstance(one, list))


def resident() -> int:
    """Return the process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def growth(points: list[Point]) -> float:
    """Return how many bytes a click adds after the warm-up: the slope of a straight line through the points."""
    warm = min(WARM, points[-1].clicks // 2)
    later = [point for point in points if point.clicks >= warm]
    clicks = np.array([point.clicks for point in later], dtype=np.float64)
    memory = np.array([point.resident for point in later], dtype=np.float64)
    return float(np.polyfit(clicks - clicks.mean(), memory - memory.mean(), 1)[0])


def written(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Return the report in Markdown."""
    parts = [
        "# Very many clicks",
        "",
        "One session on a toy network of 32 x 32, run by ONNX Runtime with one thread; undo, redo, masks, other objects"
        " and resets are mixed in (`python benchmarks/endurance.py`). *memory*: resident memory of the whole process."
        f" *time*: of a click, as a ratio to the first {WARM:,} of the same run, on a shared machine. *objects*: what"
        " Python's collector knows. Without a limit every click keeps the click stage's state, three float32 maps of"
        " 32 x 32 here, 12 KiB.",
        "",
        f"`make test-million` fails where memory grows by more than {MOST} bytes a click after the first {WARM:,}.",
        "",
        *(f"- {heading}: {text}" for heading, text in machine_lines(describe_machine())),
    ]
    for limit, rows in runs.items():
        points = [Point(**row) for row in rows]
        first = [point.seconds / (points[0].clicks) for point in points if point.clicks <= WARM]
        usual = sum(first) / len(first) if first else points[0].seconds / points[0].clicks
        parts += [
            "",
            f"## `history_limit={limit if limit != 'none' else None}`: {points[-1].clicks:,} clicks,"
            f" {growth(points):.1f} bytes a click",
            "",
            "| clicks | memory, MiB | time | objects |",
            "|---:|---:|---:|---:|",
        ]
        step = max(1, len(points) // 20)
        for index, point in enumerate(points):
            if index % step == step - 1 or index in (0, 1):
                each = point.seconds / points[0].clicks
                parts.append(
                    f"| {point.clicks:,} | {point.resident / 2**20:.1f} | {each / usual:.2f} | {point.objects:,} |"
                )
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
