"""Every family at full size on this CPU: image and click in each engine, beside eager PyTorch in the same run.

    python benchmarks/families.py --prepare              exports the networks, one after the other (8 GB of memory)
    python benchmarks/families.py                        measures, and writes benchmarks/results/families.*
    python benchmarks/families.py --resume               goes on where a run was stopped
    python benchmarks/families.py --networks mmms --add  measures one again, and keeps the other rows

Random weights. Each network is exported, and measured, in a process of its own, and the results are written after each
one. A network that cannot be exported or measured here stays in the table and says why. Needs the [export,cpu] extras,
and npm's registry for SAM 2. The package imports nothing from here.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from alone import report_alone, run_alone
from clicks import foreign_clicks
from export_table import Network, export_alone
from families_table import FamilyRow, Part, Replay, joined, markdown, row_of
from splits import INTERFORMER_TINY, SWIN_B, SWIN_S, VIT_L, count
from turns import measure_in_turns
from variants import INPUTS, SAM2, EagerVariant, EngineVariant, Row, Variant, open_each, prepare_sam2, usable

from mmms_deploy.bench.workload import make_pictures
from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.bundle.split import split_of
from mmms_deploy.engines.cores import available_cores
from mmms_deploy.engines.machine import MachineFacts, OtherPrograms, describe_machine
from mmms_deploy.errors import MMMSDeployError
from mmms_deploy.replay.verification import EngineOutcome, replay
from mmms_deploy.reporting.files import write_text

HERE = Path(__file__).parent
SIZE = (1080, 1920)
"""Of the images, (H0, W0) in pixels."""
BUSY = 0.2
"""CPUs that other programs may keep busy before the script warns."""
WHOLE = ("simpleclick", "icmformer", "mfp")
"""Families whose published code runs the whole network at every click."""
NOT_EXPORTED = "families-not-exported.json"
"""Beside the bundles: why a network could not be exported."""

NETWORKS = (
    Network("mmms", "MMMS, DINOv2-B14", "RGB"),
    Network("skipclick", "SkipClick, DINOv2-B14", "RGB", {"family": "skipclick"}),
    Network("simpleclick-b", "SimpleClick ViT-B", "RGB", {"family": "simpleclick"}),
    Network("simpleclick-l", "SimpleClick ViT-L", "RGB", {"family": "simpleclick"} | VIT_L),
    Network("icmformer-b", "iCMFormer ViT-B", "RGB", {"family": "icmformer"}),
    Network("icmformer-swin-b", "iCMFormer Swin-B, 384 x 384", "RGB", SWIN_B),
    Network("icmformer-swin-s", "iCMFormer Swin-S, 224 x 224", "RGB", SWIN_S),
    Network("mfp-b", "MFP ViT-B", "RGB", {"family": "mfp"}),
    Network("mfp-hrnet", "MFP HRNet-18", "RGB", {"family": "mfp", "hrnet": {}}),
    Network("interformer-light", "InterFormer-Light, 512 x 512", "RGB", {"family": "interformer"}),
    Network("interformer-tiny", "InterFormer-Tiny, 512 x 512", "RGB", {"family": "interformer"} | INTERFORMER_TINY),
    Network("dynamite-swin-t", "DynaMITe Swin-T", "RGB", {"family": "dynamite"}),
    Network("disnet-b", "DISNet ViT-B, reconstructed", "RGB", {"family": "disnet"}),
    Network(SAM2, "SAM 2 tiny, 1024 x 1024", "RGB", {"family": "onnx"}),
)
SHARED = {"mmms": INPUTS["rgb"], SAM2: SAM2}
"""Bundles that other benchmarks have, too."""


def bundle_of(network: Network, bundles: Path) -> Path:
    """Return the path of a network's bundle."""
    return bundles / SHARED.get(network.key, f"family-{network.key}")


# --- exporting --------------------------------------------------------------------------------------------------------


def prepare(networks: Sequence[Network], bundles: Path, *, fresh: bool) -> int:
    """Export the bundles that are missing, each in a process of its own; note why one could not be.

    Args:
        networks: The networks.
        bundles: Their folder.
        fresh: Whether bundles that exist are exported again.

    Returns:
        The exit code: 1 when a network could not be exported.
    """
    bundles.mkdir(parents=True, exist_ok=True)
    failures = not_exported(bundles)
    for number, network in enumerate(networks, start=1):
        path, start = bundle_of(network, bundles), perf_counter()
        _say(f"{network.key} ({number} of {len(networks)})")
        failures.pop(network.key, None)
        if fresh or not usable(path):
            if network.key == SAM2:
                why = prepare_sam2(bundles, fresh=fresh).get(SAM2, "")
            else:
                why = export_alone(network, path, lambda step: _say(f"  {step}")).why
            if why:
                failures[network.key] = why
            _say(f"  {f'not exported: {why}' if why else f'{path}, {perf_counter() - start:.0f} s'}")
        else:
            _say(f"  {path} exists")
        write_text(bundles / NOT_EXPORTED, (json.dumps(failures, indent=1) + "\n").encode())
    return 1 if any(network.key in failures for network in networks) else 0


def not_exported(bundles: Path) -> dict[str, str]:
    """Return why networks could not be exported, by their key."""
    file = bundles / NOT_EXPORTED
    found: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


# --- measuring one network --------------------------------------------------------------------------------------------


def open_network(network: Network, bundle: Path, threads: int) -> tuple[list[Variant], list[Row]]:
    """Open a network in PyTorch and in every engine.

    Args:
        network: The network.
        bundle: Its bundle.
        threads: Threads of each.

    Returns:
        The variants that run here, and a row for every variant; PyTorch's comes first.
    """
    whole = network.overrides.get("family", "mmms") in WHOLE
    eager = Row(f"{network.key}/eager", f"PyTorch eager{', whole' if whole else ''}", network.key)
    pairs: list[tuple[Row, Callable[[Row], Variant]]] = [
        (eager, lambda row: EagerVariant(row, bundle, threads, whole=whole))
    ]
    for engine, label, precision in (
        ("onnxruntime", "ONNX Runtime", "fp32"),
        ("openvino", "OpenVINO float32", "fp32"),
        ("openvino", "OpenVINO BF16", "bf16"),
    ):
        row = Row(f"{network.key}/{engine}-{precision}", label, network.key, ours=True, precision=precision)
        pairs.append((row, lambda row, engine=engine: EngineVariant(row, bundle, engine, threads)))
    return open_each(pairs), [row for row, _ in pairs]


def measure_here(
    network: Network, bundles: Path, settings: dict[str, int], on_step: Callable[[str], None]
) -> FamilyRow:
    """Measure a network in this process.

    Args:
        network: The network.
        bundles: The folder of bundles.
        settings: ``threads`` of every variant, ``images`` and ``clicks`` on each.
        on_step: Called with what was done.

    Returns:
        The measurements.
    """
    start, others = perf_counter(), OtherPrograms()
    path = bundle_of(network, bundles)
    manifest = Bundle(path, verify=False).manifest
    on_step("opening PyTorch and the engines")
    variants, rows = open_network(network, path, settings["threads"])
    found = FamilyRow(network.key, network.backbone, network.overrides.get("family", "mmms") in WHOLE, variants=rows)
    found.parameters = manifest.provenance.parameters / 1e6 or None
    split = split_of(manifest)
    if split is not None:
        found.image, found.click, found.gain = split.before / 1e9, split.click / 1e9, split.gain
    for variant in variants:
        if isinstance(variant, EngineVariant) and variant.row.precision != "fp32":
            on_step(f"golden replay, {variant.row.label}")
            found.replays[variant.row.key] = replayed(path, variant)
    for row in rows:
        if row.why:
            on_step(f"{row.label}: {row.why}")
    if variants:
        pictures = make_pictures(manifest, settings["images"], settings["clicks"], SIZE)
        measure_in_turns(variants, pictures, on_step, reference=("eager", "onnxruntime-fp32"))
    else:
        found.why = next(row.why for row in reversed(rows))
    found.others, found.seconds = others.cpus(), perf_counter() - start
    return found


def replayed(path: Path, variant: EngineVariant) -> Replay:
    """Replay a bundle's golden clicks on an open engine, and judge it as ``mmms-verify`` does."""
    report = replay(Bundle(path, verify=False), engine=variant.engine)
    precision = Precision(variant.row.precision)
    passed = EngineOutcome(variant.engine.info.name, precision, report, None, kept=False).passed
    return Replay(passed, report.worst.iou, report.limit, report.telling)


# --- all networks -----------------------------------------------------------------------------------------------------


def measure_alone(
    network: Network, bundles: Path, settings: dict[str, int], on_step: Callable[[str], None]
) -> FamilyRow:
    """Measure a network in a process of its own; one that cannot be measured says why. As :func:`measure_here`."""
    path = bundle_of(network, bundles)
    if not usable(path):
        why = not_exported(bundles).get(network.key)
        return unmeasured(network, f"its export failed: {why}" if why else "it was not exported; --prepare does it")
    child = json.dumps({"network": asdict(network), "settings": settings})
    found = run_alone([__file__, "--child", child, "--bundles", str(bundles)], on_step)
    return row_of(found["row"]) if "row" in found else unmeasured(network, found["why"])


def unmeasured(network: Network, why: str) -> FamilyRow:
    """Return the row of a network that was not measured: what can be counted of it, and why."""
    family = network.overrides.get("family", "mmms")
    row = FamilyRow(network.key, network.backbone, family in WHOLE, why=why)
    if family == "onnx":
        return row
    with suppress(MMMSDeployError):  # what makes an export impossible may make the count impossible, too
        counted = count(network.backbone, network.overrides)
        row.parameters, row.image, row.click, row.gain = counted.parameters, counted.image, counted.click, counted.gain
    return row


def earlier_parts(file: Path) -> list[Part]:
    """Return what earlier runs measured, each machine's rows in a part of their own; nothing where there is no file.

    Args:
        file: The earlier runs' JSON.
    """
    if not file.exists():
        return []
    content = json.loads(file.read_text(encoding="utf-8"))
    return [
        Part(part["machine"], part["settings"], part["created"], [row_of(row) for row in part["rows"]])
        for part in content["parts"]
    ]


def part_here(parts: list[Part], machine: MachineFacts, settings: dict[str, int]) -> Part:
    """Return the part of this machine, its libraries and these settings, which is put behind the others if it is new.

    Args:
        parts: The earlier ones.
        machine: This machine.
        settings: As for :func:`measure_here`.
    """
    here: dict[str, Any] = json.loads(json.dumps(to_builtins(machine)))
    for part in parts:
        if {**part.machine, "others": None} == {**here, "others": None} and part.settings == settings:
            return part
    parts.append(Part(here, settings, "", []))
    return parts[-1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 1 when a network is missing, 130 when it was stopped."""
    options = _options().parse_args(arguments)
    if options.child is not None:
        asked = json.loads(options.child)
        network, settings = Network(**asked["network"]), asked["settings"]
        return report_alone(lambda on_step: asdict(measure_here(network, options.bundles, settings, on_step)))
    wanted = [network for network in NETWORKS if not options.networks or network.key in options.networks]
    try:
        if options.prepare:
            return prepare(wanted, options.bundles, fresh=options.fresh)
        return _measure_all(wanted, options)
    except KeyboardInterrupt:
        _say("stopped; what was done is kept, and --resume goes on")
        return 130


def _measure_all(wanted: Sequence[Network], options: argparse.Namespace) -> int:
    settings = {"threads": options.threads or available_cores(), "images": options.images, "clicks": options.clicks}
    machine, start = describe_machine(), perf_counter()
    parts = earlier_parts(options.out / "families.json") if options.resume or options.add else []
    part = part_here(parts, machine, settings)
    done = {row.key for row in part.rows if not row.why} if options.resume else set()
    options.out.mkdir(parents=True, exist_ok=True)
    for number, network in enumerate(wanted, start=1):
        _say(f"{network.key} ({number} of {len(wanted)})")
        if network.key in done:
            _say("  measured before")
            continue
        row = measure_alone(network, options.bundles, settings, lambda step: _say(f"  {step}"))
        part.rows = joined([row], part.rows, [known.key for known in NETWORKS])
        part.created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        _write(options.out, parts)
        _say(f"  {_summary(row)}")
        if row.others is not None and row.others > BUSY:
            _say(f"  other programs kept {row.others:.2f} CPUs busy meanwhile: these times are too long")
    _write(options.out, parts)
    _say(f"measured in {perf_counter() - start:.0f} s; written to {options.out}")
    return 1 if any(row.why for row in part.rows) else 0


def _summary(row: FamilyRow) -> str:
    if row.why:
        return f"not measured: {row.why}"
    best, ratio = row.best, row.ratio
    shown = "no engine" if best is None else best.label
    return f"{shown}{'' if ratio is None else f', {ratio:.2f} of eager PyTorch a click'}, {row.seconds or 0.0:.0f} s"


def _write(out: Path, parts: Sequence[Part]) -> None:
    content = {"schema": 2, "kind": "benchmarks/families", "parts": [asdict(part) for part in parts]}
    write_text(out / "families.json", (json.dumps(content, indent=1) + "\n").encode())
    write_text(out / "families.md", markdown(parts, SIZE, foreign_clicks(out / "clicks.json")).encode())


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", action="store_true", help="only export, measure nothing")
    parser.add_argument("--fresh", action="store_true", help="export bundles that exist again")
    keys = [network.key for network in NETWORKS]
    parser.add_argument("--networks", nargs="+", choices=keys, metavar="NAME", help=f"some of {', '.join(keys)}")
    parser.add_argument("--resume", action="store_true", help="keep the rows that were measured, and measure the rest")
    parser.add_argument("--add", action="store_true", help="keep the other rows, those of other machines too")
    parser.add_argument("--images", type=int, default=4, help="images (default 4)")
    parser.add_argument("--clicks", type=int, default=10, help="clicks on each image (default 10)")
    parser.add_argument("--threads", type=int, help="threads of every variant (default: the physical cores)")
    parser.add_argument("--bundles", type=Path, default=HERE.parent / "bundles", help="folder of bundles")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of results")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
