"""Many annotators on one CPU host: clicks a second and p95 at 1, 8 and 32 sessions, and what a model says of them.

    python benchmarks/load.py                              # demo-small and demo; about ten minutes
    python benchmarks/load.py --bundles demo-small --sessions 1 8

Measures, with one engine a bundle: a click and an image alone; how many calls should run at once (``--policy``
sessions, in turns, clicks alone and with images); and annotators with time to think, beside what ``queueing.py`` says
of them from the calls alone. Writes ``load.json`` and ``load.md`` into ``benchmarks/results/``, anew after each bundle.
Times on a machine that does something else are of that, too: the page says how many CPUs other programs kept busy.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, median

import msgspec
from queueing import Host, annotators, predicted

from mmms_deploy import Bundle, Session, open_engine
from mmms_deploy.bench.annotators import THINK, Load, see
from mmms_deploy.bench.report import percentile
from mmms_deploy.bench.text import number
from mmms_deploy.bench.workload import Picture, make_pictures
from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.engines.machine import OtherPrograms, describe_machine, machine_lines
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.reporting.files import write_text
from mmms_deploy.session.workers import AT_ONCE

HERE = Path(__file__).resolve().parent
SIZE = (1080, 1920)
LIMITS = (0.1, 0.25, 0.5, 1.0)
"""Seconds that 95 % of the clicks may take, for the table of how many annotators a host carries."""
_PICTURES = 3
_ROUNDS = 3
_SHORT = 0.5
"""Seconds to think when numbers of calls at once are compared with images among the clicks."""


@dataclass
class Point:
    """Annotators with time to think.

    Attributes:
        annotators: How many.
        clicks: Milliseconds of every click.
        images: Milliseconds of every image.
        rate: Clicks a second of all.
        busy: Clicks a second of all with no time to think.
        each: MiB of RAM a session; None where the system does not say.
        equal: Answers that equal those of a session alone, bit by bit.
        asked: Answers that were compared.
        click: Seconds of a click alone, on average, just before; what the model is given.
        image: Seconds of an image alone.
    """

    annotators: int
    clicks: list[float]
    images: list[float]
    rate: float
    busy: float
    each: float | None
    equal: int
    asked: int
    click: float
    image: float

    def host(self, load: Load) -> Host:
        """Return what the model needs."""
        return Host(self.click, self.image, load.clicks, load.think)


@dataclass
class Policy:
    """A number of calls at once.

    Attributes:
        at_once: How many.
        rates: Clicks a second with no time to think, each round.
        clicks: Milliseconds of every click with no time to think.
        mixed: Milliseconds of every click with a short time to think, images among them.
    """

    at_once: int
    rates: list[float] = field(default_factory=list)
    clicks: list[float] = field(default_factory=list)
    mixed: list[float] = field(default_factory=list)


@dataclass
class Found:
    """What was measured of a bundle.

    Attributes:
        bundle: Its name.
        engine: The engine.
        click: Milliseconds of every click alone.
        image: Milliseconds of every image alone.
        sessions: Sessions of the policies.
        policies: Numbers of calls at once.
        points: Numbers of annotators.
    """

    bundle: str
    engine: str
    click: list[float]
    image: list[float]
    sessions: int
    policies: list[Policy]
    points: list[Point]

    def host(self, load: Load) -> Host:
        """Return what the model needs."""
        return Host(1e-3 * mean(self.click), 1e-3 * mean(self.image), load.clicks, load.think)


def measure(name: str, options: argparse.Namespace) -> Found:
    """Measure a bundle."""
    bundle = Bundle(name)
    load = Load(options.think, options.clicks, options.at_once)
    pictures = make_pictures(bundle.manifest, _PICTURES, options.clicks, SIZE)
    engine = open_engine(bundle, engine=options.engine, threads=options.threads)
    try:
        _say(f"{name}: alone")
        counts = sorted({1, 2, 4, options.policy})
        policies = [Policy(count) for count in counts]
        found = Found(name, str(engine.info), *_alone(engine, pictures), options.policy, policies, [])
        for _ in range(_ROUNDS):
            for policy in found.policies:
                _say(f"{name}: {options.policy} sessions, {policy.at_once} calls at once")
                short = Load(_SHORT, options.clicks, policy.at_once)
                seen = see(engine, pictures, options.policy, short, compared=False)
                policy.rates.append(seen.busy.rate)
                policy.clicks += seen.busy.clicks
                policy.mixed += [] if seen.thinking is None else seen.thinking.clicks
        for count in options.sessions:
            _say(f"{name}: {count} annotators, {load}")
            clicks, images = _alone(engine, pictures)
            seen = see(engine, pictures, count, load)
            thinking = seen.thinking or seen.busy
            point = Point(
                annotators=count,
                clicks=thinking.clicks,
                images=thinking.images,
                rate=thinking.rate,
                busy=seen.busy.rate,
                each=seen.each,
                equal=sum(seen.equal),
                asked=len(seen.equal),
                click=1e-3 * mean(clicks),
                image=1e-3 * mean(images),
            )
            found.click += clicks
            found.image += images
            found.points.append(point)
    finally:
        engine.close()
    return found


def _alone(engine: Engine, pictures: Sequence[Picture]) -> tuple[list[float], list[float]]:
    """Return milliseconds of clicks and images of one session that nothing runs beside."""
    clicks: list[float] = []
    images: list[float] = []
    with Session(engine.bundle, engine=engine, keep_image=False) as session:
        for number_of, picture in enumerate((pictures[0], *pictures, *pictures)):
            timings = session.set_image(picture.rgb, **picture.modalities)
            row = [session.click(*point).timings.total for point in picture.clicks]
            if number_of:  # the first one warms up
                images.append(timings.total)
                clicks += row
    return clicks, images


# --- the page ---------------------------------------------------------------------------------------------------------


def markdown(found: Sequence[Found], load: Load, machine: Sequence[tuple[str, str]]) -> str:
    """Return the page with the tables, in Markdown."""
    height, width = SIZE
    lines = [
        "# Many annotators on one host",
        "",
        f"`python benchmarks/load.py`: pictures of {width} x {height}, one engine a bundle. An annotator thinks for"
        f" {load.think:g} s on average (log-normal), clicks and waits; one of {load.clicks} clicks comes after another"
        f" image was set. At most {load.at_once} calls run at once, unless a table says otherwise. A click's time is"
        " from asking to the answer, waiting included, in ms. *model*: what `benchmarks/queueing.py` says,"
        " from the times alone; [docs/many.md](../../docs/many.md#how-many-annotators-a-host-carries) describes it.",
        "",
    ]
    for one in found:
        host = one.host(load)
        lines += [
            f"## {one.bundle}",
            "",
            f"{one.engine}. Alone, a click takes {number(mean(one.click), 'ms')} ms on average and an image"
            f" {number(mean(one.image), 'ms')} ms: {number(1e3 * host.demand, 'ms')} ms for a click with its share of"
            " an image.",
            "",
            "| annotators | clicks/s | model | p50 | p95 | model | p99 | clicks/s, no time to think | MiB a session |"
            " answers equal to those alone |",
            "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for point in one.points:
            said, ordered = predicted(point.host(load), point.annotators), sorted(point.clicks)
            p50, p95, p99 = (number(percentile(ordered, p), "ms") for p in (50, 95, 99))
            each = "not measured" if point.each is None else f"{point.each:.1f}"
            lines.append(
                f"| {point.annotators} | {number(point.rate, '1/s')} | {number(said.rate, '1/s')} | {p50} | {p95} |"
                f" {number(1e3 * said.p95, 'ms')} | {p99} | {number(point.busy, '1/s')} | {each} |"
                f" {point.equal} of {point.asked} |"
            )
        lines += [
            "",
            f"Calls at once, {one.sessions} sessions, {_ROUNDS} rounds in turns: clicks alone with no time to think,"
            f" and with {_SHORT:g} s to think, with images among the clicks:",
            "",
            "| calls at once | clicks/s | p50 | p95 | p99 | with images, p50 | p95 | p99 |",
            "|---:|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for policy in one.policies:
            kinds = (sorted(policy.clicks), sorted(policy.mixed))
            cells = " | ".join(number(percentile(ordered, p), "ms") for ordered in kinds for p in (50, 95, 99))
            lines.append(f"| {policy.at_once} | {number(median(policy.rates), '1/s')} | {cells} |")
        lines += ["", "Annotators that the model lets this host carry, by what 95 % of the clicks may take:", ""]
        lines += [
            f"| {' | '.join(f'{1e3 * limit:.0f} ms' for limit in LIMITS)} |",
            f"|{'---:|' * len(LIMITS)}",
            f"| {' | '.join(str(annotators(host, limit)) for limit in LIMITS)} |",
            "",
        ]
    lines += ["## Machine", "", "| | |", "|---|---|", *(f"| {what} | {text} |" for what, text in machine)]
    return "\n".join(lines) + "\n"


def write(out: Path, found: Sequence[Found], load: Load, others: OtherPrograms) -> str:
    """Write both files of results, and return the page."""
    machine = msgspec.structs.replace(describe_machine(), others=others.cpus())
    content = {
        "schema": 1,
        "kind": "benchmarks/load",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": to_builtins(machine),
        "load": asdict(load),
        "results": [asdict(one) for one in found],
    }
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "load.json", (json.dumps(content, indent=1) + "\n").encode())
    page = markdown(found, load, machine_lines(machine))
    write_text(out / "load.md", page.encode())
    return page


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", nargs="+", default=["demo-small", "demo"], help="(default: demo-small demo)")
    parser.add_argument("--sessions", nargs="+", type=int, default=[1, 8, 32], help="annotators (default: 1 8 32)")
    parser.add_argument("--think", type=float, default=THINK, help=f"seconds to think (default {THINK:g})")
    parser.add_argument("--clicks", type=int, default=10, help="clicks on an image (default 10)")
    parser.add_argument("--policy", type=int, default=8, help="sessions that compare numbers of calls at once (8)")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help=f"calls at once (default {AT_ONCE})")
    parser.add_argument("--engine", default=None, help="the engine (default: the one that is chosen here)")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: all cores)")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of results")
    options = parser.parse_args(arguments)
    others, found = OtherPrograms(), []
    load = Load(options.think, options.clicks, options.at_once)
    for name in options.bundles:
        found.append(measure(name, options))
        page = write(options.out, found, load, others)  # what is done stays, should the next one not end
    print(page)
    return 0 if all(point.equal == point.asked for one in found for point in one.points) else 1


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
