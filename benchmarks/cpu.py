"""Full-size MMMS on this CPU, beside alternatives; everything in one run, in turns.

    python benchmarks/cpu.py --prepare     exports the bundles and fetches the peer (minutes, several GB)
    python benchmarks/cpu.py               measures, and writes benchmarks/results/cpu.*

Needs the [export,cpu] extras, and npm for the peer. The package imports nothing from here.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
from agreement import measure_agreement, photographs
from peers import PeerError, fetch
from results import KINDS, TEN, TITLES, best_peer, markdown, middle, plot, targets, wait
from turns import measure_in_turns
from variants import INPUTS, Row, open_variants, prepare_bundles

from mmms_deploy.bench.errors import NotMeasuredError
from mmms_deploy.bench.peak import Peak, measure_peak
from mmms_deploy.bench.workload import make_pictures
from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.engines.cores import available_cores
from mmms_deploy.engines.machine import OtherPrograms, describe_machine
from mmms_deploy.reporting.files import write_text

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
SIZE = (1080, 1920)
"""Of the images, (H0, W0) in pixels."""
BUSY = 0.2
"""CPUs that other programs may keep busy before the script warns."""


def main() -> int:
    """Run the command; return its exit code."""
    options = _options().parse_args()
    threads = options.threads or available_cores()
    failures: dict[str, dict[str, str]] = {}
    for inputs in options.inputs:
        failures[inputs] = prepare_bundles(inputs, options.bundles, fresh=options.fresh)
        for name, why in failures[inputs].items():
            _say(f"{name}: {why}")
    if not options.no_peer:
        try:
            fetch(CACHE)
        except PeerError as error:
            _say(f"SAM 2 tiny: {error}")
    if options.prepare:
        return 0
    start = perf_counter()
    others = OtherPrograms()
    rows: list[Row] = []
    peaks: dict[str, Peak] = {}
    _measure_peaks(peaks, threads)
    for number, inputs in enumerate(options.inputs):
        cache = None if number or options.no_peer else CACHE
        variants, known = open_variants(inputs, options.bundles, cache, threads, failures[inputs], options.clicks)
        for row in known:
            rewrites = f", {len(row.rewrites)} rewrites" if row.ours and not row.why else ""
            _say(f"{row.key}: {row.why or row.library}{rewrites}{f' ({row.evidence})' if row.evidence else ''}")
        if any(variant.row.inputs for variant in variants):
            manifest = Bundle(options.bundles / INPUTS[inputs], verify=False).manifest
            _say("comparing masks on photographs")
            measure_agreement(variants, photographs(manifest))
            measure_in_turns(variants, make_pictures(manifest, options.images, options.clicks, SIZE), _say)
        rows += known
    rows.sort(key=lambda row: not row.inputs)
    _measure_peaks(peaks, threads)
    machine = msgspec.structs.replace(describe_machine(), others=others.cpus())
    if machine.others is not None and machine.others > BUSY:
        _say(f"other programs kept {machine.others:.2f} CPUs busy meanwhile: these times are too long")
    conditions = (
        f"{_networks(rows)} on {threads} threads; {options.images} images of 1920 x 1080, {options.clicks} clicks on"
        " each, all variants in turns in one run. A click is the whole `Session.click`, with the mask at the image's"
        " size; of SAM 2's graphs alone only they are timed, without preparing the image and enlarging the mask, the"
        " decoder compiled for each number of points beforehand."
    )
    _write(options.out, rows, peaks, machine, conditions)
    _print(rows, peaks)
    _say(f"measured in {perf_counter() - start:.0f} s; written to {options.out}")
    return 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", action="store_true", help="only export and fetch, measure nothing")
    parser.add_argument(
        "--fresh",
        nargs="?",
        const="all",
        choices=["all", "deployed"],
        help="export bundles that exist again: all of them, or only those with rewrites",
    )
    parser.add_argument("--inputs", nargs="+", choices=list(INPUTS), default=list(INPUTS), help="networks to measure")
    parser.add_argument("--images", type=int, default=4, help="images (default 4)")
    parser.add_argument("--clicks", type=int, default=15, help="clicks on each image (default 15)")
    parser.add_argument("--threads", type=int, help="threads of every variant (default: the physical cores)")
    parser.add_argument("--no-peer", action="store_true", help="leave SAM 2 tiny out")
    parser.add_argument("--bundles", type=Path, default=HERE.parent / "bundles", help="folder of bundles")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of results")
    return parser


def _networks(rows: Sequence[Row]) -> str:
    sizes = {row.inputs: row.parameters / 1e6 for row in rows if row.parameters}
    listed = " and ".join(f"{TITLES[inputs]} ({size:.1f} M parameters)" for inputs, size in sizes.items())
    return f"MMMS, {listed or 'no network'}, random weights,"


def _measure_peaks(peaks: dict[str, Peak], threads: int) -> None:
    """Measure the machine's matrix peak, and keep the best seen: before, between and after."""
    for precision in (Precision.FP32, Precision.BF16):
        try:
            peak = measure_peak(precision, threads, with_torch=True)
        except NotMeasuredError as error:
            _say(f"matrix products in {precision}: not measured: {error.given}")
            continue
        known = peaks.get(str(precision))
        if known is None or max(peak.rates) > max(known.rates):
            peaks[str(precision)] = peak


def _write(out: Path, rows: Sequence[Row], peaks: dict[str, Peak], machine: Any, conditions: str) -> None:
    described = {
        precision: {"gflops": max(peak.rates), "library": peak.library, "tried": peak.tried}
        for precision, peak in peaks.items()
    }
    known = {precision: peak["gflops"] for precision, peak in described.items()}
    best = best_peer(rows)
    content = {
        "schema": 1,
        "kind": "benchmarks/cpu",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": to_builtins(machine),
        "conditions": conditions,
        "peaks": described,
        "best_peer": None if best is None else best.key,
        "rows": [asdict(row) | {f"image_and_{TEN}_clicks": wait(row)} for row in rows],
        "targets": {
            row.key: [asdict(target) | {"met": target.met} for target in targets(row, rows, known)]
            for row in rows
            if row.ours and row.inputs == "rgb"
        },
    }
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "cpu.json", (json.dumps(content, indent=1) + "\n").encode())
    write_text(out / "cpu.md", markdown(rows, machine, described, conditions).encode())
    for kind in KINDS:
        write_text(out / f"cpu-{kind}.svg", plot(rows, kind).encode())


def _print(rows: Sequence[Row], peaks: dict[str, Peak]) -> None:
    heads = (f"image + {TEN}, ms", "click, ms", "host, ms", "image, ms", "masks", "off by")
    print(f"{'':<44}{''.join(f'{head:>16}' for head in heads)}")
    for row in rows:
        shown = f"{row.inputs or 'instead'}: {row.label}"
        if row.why:
            print(f"{shown:<44}  not measured: {row.why.splitlines()[0]}")
            continue
        cells = [wait(row), middle(row.click), middle(row.host), middle(row.image)]
        text = "".join(f"{'' if value is None else f'{value:.1f}':>16}" for value in cells)
        text += f"{'' if row.iou is None else f'{row.iou:.4f}':>16}"
        print(f"{shown:<44}{text}{'' if row.difference is None else f'{row.difference:.1e}':>16}")
    best = best_peer(rows)
    print(f"SAM 2 tiny's best engine: {'none that keeps its masks' if best is None else best.label}")
    for precision, peak in peaks.items():
        print(f"matrix products, {precision}: {max(peak.rates):.0f} GFLOP/s ({peak.library})")
    known = {precision: max(peak.rates) for precision, peak in peaks.items()}
    for row in rows:
        if row.ours and row.inputs == "rgb" and not row.why:
            print(f"targets, {row.label}:")
            for target in targets(row, rows, known):
                print(target)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
