"""What a prefetch costs the clicks beside it, and how much it gets done.

    python benchmarks/prefetch.py                            # demo-small, and demo where its weights can be had
    python benchmarks/prefetch.py --bundle demo --clicks 40 --rounds 8

Clicks of one annotator, with pauses, in turns: without a prefetch; beside the naive one, which encodes on the session's
own engine with all its threads; and beside ways to give it an engine of its own. What this machine does meanwhile falls
on all of them alike, and the ratios are what counts. Writes ``prefetch.json`` and ``prefetch.md`` into
``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from results import Target

from mmms_deploy import FeatureStore, Model, Prefetcher, Session
from mmms_deploy.bench.report import summarise
from mmms_deploy.bench.text import number
from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.bundle.reference import ready_bundle
from mmms_deploy.engines.machine import OtherPrograms, describe_machine, machine_lines
from mmms_deploy.imaging import load_rgb
from mmms_deploy.reporting.files import write_text
from mmms_deploy.store import Priority

HERE = Path(__file__).resolve().parent
PHOTO = HERE.parent / "docs" / "images" / "photo.jpg"
PAUSES = (0.03, 0.15)
"""Seconds between two clicks, shortest and longest."""
GOAL = 1.25
"""The 95th percentile of a click beside the Prefetcher, against that without a prefetch."""
WITHOUT, OURS = "without a prefetch", "`Prefetcher`"


@dataclass
class Way:
    """One way to prefetch.

    Attributes:
        name: Its name.
        clicks: Milliseconds of every click beside it.
        seconds: How long it ran.
        images: How many images it encoded meanwhile.
    """

    name: str
    clicks: list[float] = field(default_factory=list)
    seconds: float = 0.0
    images: int = 0


@dataclass
class Results:
    """What was measured with one bundle.

    Attributes:
        bundle: Its name.
        engine: What the session's engine is.
        ways: The ways, :data:`WITHOUT` first.
    """

    bundle: str
    engine: str
    ways: list[Way]


class Images:
    """Images without end, each another one, that are given out while a gate is open."""

    def __init__(self, picture: npt.NDArray[np.uint8]) -> None:
        self.gate = threading.Event()
        self.waiting = threading.Event()
        self.given = 0
        self._picture, self._closed = picture, False

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        for count in itertools.count():
            if not self.gate.is_set():
                self.waiting.set()
                self.gate.wait()
            if self._closed:
                return
            image = self._picture.copy()
            image[0, 0] = count % 256, count // 256 % 256, os.getpid() % 256
            self.given += 1
            yield image

    def open(self) -> None:
        """Give images out."""
        self.waiting.clear()
        self.gate.set()

    def shut(self) -> None:
        """Give no more, and wait until the last one is done."""
        self.gate.clear()
        self.waiting.wait()

    def close(self) -> None:
        """End."""
        self._closed = True
        self.gate.set()


def in_a_thread(images: Images, opened: Callable[[], Model], *, idle: bool) -> threading.Thread:
    """Return a thread that encodes images, on a model that it opens itself."""

    def run() -> None:
        if idle:
            with suppress(OSError, AttributeError):
                os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))
        with opened() as model:
            for image in images:
                model.encode(image).on_host()

    return threading.Thread(target=run, daemon=True)


def measure(bundle: str, options: argparse.Namespace, folder: Path) -> Results:
    """Measure all ways with one bundle, in turns."""
    picture = load_rgb(PHOTO)
    store = FeatureStore(folder / Path(bundle).name, host_bytes=0, disk_bytes=1 << 30)
    sources: dict[str, Images] = {}
    with ExitStack() as open_ones:
        main = open_ones.enter_context(Model(bundle, engine=options.engine, store=store))
        name = main.engine.name

        def own() -> Model:
            return Model(main.bundle, engine=name, precision=main.engine.precision, threads=1)

        threads = {
            "the session's own engine and threads (naive)": (lambda: Model(main.bundle, engine=main.opened), False),
            "an engine of one thread": (own, False),
            "the same in a thread of lowest priority": (own, True),
        }
        for title, (opened, idle) in threads.items():
            sources[title] = Images(picture)
            in_a_thread(sources[title], opened, idle=idle).start()
        for priority in (Priority.LOW, Priority.IDLE):
            title = OURS if priority is Priority.IDLE else f'`Prefetcher(..., priority="{priority}")`'
            sources[title] = Images(picture)
            prefetcher = open_ones.enter_context(Prefetcher(main, priority=priority))
            prefetcher.add(sources[title])
        ways = [Way(WITHOUT), *(Way(title) for title in sources)]
        for title, source in sources.items():
            _say(f"{main.bundle.reference}: starting {title}")
            source.open()
            while source.given < 2:  # the first image is done
                time.sleep(0.05)
            source.shut()
        with main.session(history_limit=5) as session:
            session.set_image(picture)
            for turn in range(options.rounds):
                for way in [*ways[turn % len(ways) :], *ways[: turn % len(ways)]]:
                    _clicks(session, way, sources.get(way.name), options.clicks)
                _say(f"{main.bundle.reference}: round {turn + 1} of {options.rounds}")
        for source in sources.values():
            source.close()
        return Results(main.bundle.reference, str(main.engine), ways)


def _clicks(session: Session, way: Way, source: Images | None, count: int) -> None:
    session.reset()
    draw = np.random.default_rng(len(way.clicks))
    height, width = session.image_size
    before, start = 0 if source is None else source.given, time.perf_counter()
    if source is not None:
        source.open()
    for click in range(count + 2):
        time.sleep(draw.uniform(*PAUSES))
        x, y = draw.uniform(0, width - 1), draw.uniform(0, height - 1)
        begin = time.perf_counter()
        session.click(x, y).mask.any()
        if click >= 2:
            way.clicks.append(1e3 * (time.perf_counter() - begin))
    way.seconds += time.perf_counter() - start
    if source is not None:
        way.images += source.given - before - 1  # the last one is not done
        source.shut()


def targets(found: Results) -> list[Target]:
    """Return the goal of a bundle, and what was reached."""
    by_name = {way.name: way for way in found.ways}
    ours, without = by_name[OURS].clicks, by_name[WITHOUT].clicks
    reached = summarise(ours).p95 / summarise(without).p95 if ours and without else None
    return [Target(f"{found.bundle}: p95 of a click beside the Prefetcher / without", GOAL, reached)]


def markdown(all_found: Sequence[Results], machine: Sequence[tuple[str, str]], conditions: str) -> str:
    """Return the page with the tables, in Markdown."""
    lines = ["# Prefetch", "", conditions, ""]
    for found in all_found:
        lines += [
            f"## {found.bundle}",
            "",
            f"{found.engine}.",
            "",
            "| beside the clicks | p50, ms | p95 | p99 | p50, ratio | p95, ratio | p99, ratio | images a second |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
        ]
        base = summarise(found.ways[0].clicks)
        for way in found.ways:
            one = summarise(way.clicks)
            rate = "" if way.name == WITHOUT else f"{way.images / way.seconds:.2f}"
            lines.append(
                f"| {way.name} | {number(one.p50, 'ms')} | {number(one.p95, 'ms')} | {number(one.p99, 'ms')} |"
                f" {one.p50 / base.p50:.2f} | {one.p95 / base.p95:.2f} | {one.p99 / base.p99:.2f} | {rate} |"
            )
        lines += ["", *(str(target).strip() for target in targets(found)), ""]
    lines += ["## Machine", "", "| | |", "|---|---|", *(f"| {what} | {text} |" for what, text in machine)]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", action="append", help="a bundle; may be repeated (default: demo-small and demo)")
    parser.add_argument("--engine", help="the session's engine (default: the one that is chosen here)")
    parser.add_argument("--clicks", type=int, default=20, help="clicks of a turn (default 20)")
    parser.add_argument("--rounds", type=int, default=6, help="turns of every way (default 6)")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of results")
    options = parser.parse_args(arguments)
    # Where the weights of demo cannot be had, demo-small is measured alone.
    bundles = options.bundle or list(dict.fromkeys(["demo-small", ready_bundle("demo")[0]]))
    others, all_found = OtherPrograms(), []
    with tempfile.TemporaryDirectory(prefix="mmms-prefetch-", ignore_cleanup_errors=True) as folder:
        for bundle in bundles:
            all_found.append(measure(bundle, options, Path(folder)))
    machine = msgspec.structs.replace(describe_machine(), others=others.cpus())
    conditions = (
        f"`python benchmarks/prefetch.py`: {options.rounds} turns of {options.clicks} clicks beside each, on"
        f" `docs/images/photo.jpg`, with pauses of {1e3 * PAUSES[0]:.0f} to {1e3 * PAUSES[1]:.0f} ms. Ratios are to the"
        " clicks without a prefetch in the same run."
    )
    content: dict[str, Any] = {
        "schema": 1,
        "kind": "benchmarks/prefetch",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": to_builtins(machine),
        "results": [asdict(found) for found in all_found],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "prefetch.json", (json.dumps(content, indent=1) + "\n").encode())
    page = markdown(all_found, machine_lines(machine), conditions)
    write_text(options.out / "prefetch.md", page.encode())
    print(page)
    return 0 if all(target.met for found in all_found for target in targets(found)) else 1


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
