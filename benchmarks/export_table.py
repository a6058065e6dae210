"""What exporting full-size networks costs and produces, and what their split gains, with random weights.

    python benchmarks/export_table.py                          all networks (an hour on two cores, 8 GB of memory)
    python benchmarks/export_table.py --only dinov2 mae        some of them
    python benchmarks/export_table.py --only icmformer --add   measures one again, and keeps the other rows
    python benchmarks/export_table.py --keep bundles           keeps the bundles

Each network is exported, with its gate, in a process of its own, one after the other. Writes
benchmarks/results/export.md and export.json. Needs the [export,cpu] extras. The package imports nothing from here.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from alone import report_alone, run_alone
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from splits import SWIN_B, SWIN_S, Counted, count_all, table

HERE = Path(__file__).parent
SEED = 0
CHANNELS = 3
"""Of every modality, as in the paper's Table VI."""


GAINS = "## What the split gains"
"""Heading of the section that is counted without exporting."""


@dataclass(frozen=True)
class Network:
    """A network to export.

    Attributes:
        key: Its name on the command line.
        backbone: The network, or MMMS's backbone, for people.
        inputs: Its inputs, for people.
        overrides: Fields of its description that differ from the full-size MMMS on DINOv2.
        paper: Its parameters in millions by its paper; None where the paper does not say.
    """

    key: str
    backbone: str
    inputs: str
    overrides: dict[str, Any] = field(default_factory=dict)
    paper: float | None = None


def _with(*modalities: str) -> dict[str, Any]:
    return {"modalities": [{"name": name, "channels": CHANNELS} for name in modalities]}


def _on(backbone: str) -> dict[str, Any]:
    return {"backbone": {"name": backbone}}


NETWORKS = (
    Network("dinov2", "DINOv2-B14 reg", "RGB", paper=125.2),
    Network("dinov2-1", "DINOv2-B14 reg", "RGB + depth", _with("depth"), paper=144.1),
    Network("dinov2-2", "DINOv2-B14 reg", "RGB + depth + lidar", _with("depth", "lidar"), paper=159.7),
    Network("dinov2-3", "DINOv2-B14 reg", "RGB + depth + lidar + event", _with("depth", "lidar", "event"), paper=175.3),
    Network("mae", "MAE-B16", "RGB", _on("mae_b16")),
    Network("sam", "SAM-B16", "RGB", _on("sam_b16")),
    Network("ijepa", "I-JEPA-H16", "RGB", _on("ijepa_h16")),
    Network("hiera", "SAM 2 Hiera-T", "RGB", _on("sam2_hiera_t")),
    Network("hiera-1", "SAM 2 Hiera-T", "RGB + depth", _on("sam2_hiera_t") | _with("depth")),
    Network("skipclick", "SkipClick, DINOv2-B14 reg", "RGB", {"family": "skipclick"}),
    Network("simpleclick", "SimpleClick ViT-B", "RGB", {"family": "simpleclick"}),
    Network("mfp", "MFP ViT-B", "RGB", {"family": "mfp"}),
    Network("mfp-hrnet", "MFP HRNet-18", "RGB", {"family": "mfp", "hrnet": {}}),
    Network("interformer", "InterFormer-Light, 512 x 512", "RGB", {"family": "interformer"}),
    Network("dynamite", "DynaMITe Swin-T", "RGB", {"family": "dynamite"}),
    Network("disnet", "DISNet ViT-B, reconstructed", "RGB", {"family": "disnet"}),
    Network("icmformer", "iCMFormer ViT-B", "RGB", {"family": "icmformer"}, paper=124.81),
    Network("icmformer-swin-b", "iCMFormer Swin-B, 384 x 384", "RGB", SWIN_B, paper=104.25),
    Network("icmformer-swin-s", "iCMFormer Swin-S, 224 x 224", "RGB", SWIN_S, paper=68.14),
)


@dataclass
class StageFacts:
    """A stage: how often it runs, its ONNX nodes, 10^9 operations, MB of its files, MB of features it passes on."""

    name: str
    rate: str
    nodes: int
    gflop: float | None
    megabytes: float
    features: float


@dataclass
class GateFacts:
    """The worst number of one comparison of the gate."""

    name: str
    measure: str
    worst: float
    limit: float
    samples: int


@dataclass
class Row:
    """The measurements of one network.

    Attributes:
        key: The network.
        backbone: For people.
        inputs: For people.
        paper: The paper's parameters, in millions.
        parameters: Parameters of the network as loaded, in millions.
        seconds: Export and gate together.
        peak: Most memory that its process held, in GiB.
        stages: Its stages.
        gate: Its gate.
        rewrites: The exact rewrites that found something to do.
        why: Why nothing was measured; empty when something was.
    """

    key: str
    backbone: str
    inputs: str
    paper: float | None = None
    parameters: float | None = None
    seconds: float | None = None
    peak: float | None = None
    stages: list[StageFacts] = field(default_factory=list)
    gate: list[GateFacts] = field(default_factory=list)
    rewrites: list[str] = field(default_factory=list)
    why: str = ""

    def gflop(self, rate: str) -> float | None:
        """Return 10^9 operations of all stages that run at one rate; None when one could not be counted."""
        counts = [stage.gflop for stage in self.stages if (stage.rate == "click") == (rate == "click")]
        return None if not counts or None in counts else sum(count for count in counts if count is not None)

    def gain(self) -> float | None:
        """Return how many times a click's operations the whole network has; None when they could not be counted."""
        image, click = self.gflop("image"), self.gflop("click")
        return None if image is None or not click else (image + click) / click

    def megabytes(self, rate: str) -> float:
        """Return MB of the graphs that run at one rate."""
        return sum(stage.megabytes for stage in self.stages if (stage.rate == "click") == (rate == "click"))

    def features(self) -> float:
        """Return MB of features that stay resident after the last stage before the clicks."""
        before = [stage.features for stage in self.stages if stage.rate != "click"]
        return before[-1] if before else 0.0


# --- in the child -----------------------------------------------------------------------------------------------------


def export_here(network: Network, out: Path, on_step: Callable[[str], None]) -> Row:
    """Export a network in this process.

    Args:
        network: The network.
        out: Where its bundle goes.
        on_step: Called with the name of each step.

    Returns:
        The measurements; the peak is that of this whole process.
    """
    import resource

    from mmms_deploy.bundle import Precision, Role
    from mmms_deploy.export.exporter import Source, export_bundle

    start = perf_counter()
    source = Source(random_seed=SEED, overrides=network.overrides)
    report = export_bundle(source, out, overwrite=True, on_progress=lambda step: on_step(step.task))
    seconds = perf_counter() - start
    # Before anything is counted, because that reads the graphs again.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30
    manifest = report.bundle.manifest
    stages = []
    for stage in manifest.stages:
        graph = stage.graphs[Precision.FP32]
        stages.append(
            StageFacts(
                name=stage.name,
                rate=stage.rate.name.lower(),
                nodes=report.nodes[graph.file],
                gflop=None if stage.flops is None else stage.flops / 1e9,
                megabytes=sum(manifest.files[name].size for name in (graph.file, graph.data) if name) / 1e6,
                features=sum(spec.nbytes for spec in graph.outputs if spec.role is Role.FEATURE) / 1e6,
            )
        )
    return Row(
        key=network.key,
        backbone=network.backbone,
        inputs=network.inputs,
        paper=network.paper,
        parameters=manifest.provenance.parameters / 1e6,
        seconds=seconds,
        peak=peak,
        stages=stages,
        gate=[GateFacts(c.name, c.measure, c.worst, c.limit, c.samples) for c in manifest.gate],
        rewrites=list(manifest.provenance.rewrites),
    )


# --- in the parent ----------------------------------------------------------------------------------------------------


def export_alone(network: Network, out: Path, on_step: Callable[[str], None] = lambda name: None) -> Row:
    """Export a network in a process of its own.

    Args:
        network: The network.
        out: Where its bundle goes.
        on_step: Called with the name of each step.

    Returns:
        The measurements, or why there are none.
    """
    command = [__file__, "--child", json.dumps(asdict(network)), "--keep", str(out)]
    found = run_alone(command, on_step)
    if "row" in found:
        return row_of(found["row"])
    return Row(network.key, network.backbone, network.inputs, network.paper, why=found["why"])


def row_of(raw: dict[str, Any]) -> Row:
    """Return the row that was written as JSON."""
    stages = [StageFacts(**stage) for stage in raw.pop("stages", [])]
    return Row(**raw | {"stages": stages, "gate": [GateFacts(**check) for check in raw["gate"]]})


def joined(rows: Sequence[Row], file: Path) -> list[Row]:
    """Return the rows of an earlier run with new ones in their place, in the order of ``NETWORKS``.

    Args:
        rows: The new rows.
        file: The earlier run's JSON; nothing is added where there is none.
    """
    earlier = json.loads(file.read_text())["rows"] if file.exists() else []
    found = {row["key"]: row_of(row) for row in earlier} | {row.key: row for row in rows}
    order = [network.key for network in NETWORKS]
    return sorted(found.values(), key=lambda row: order.index(row.key) if row.key in order else len(order))


def _shown(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:,.{0 if value >= 1000 else digits}f}"


HEADINGS = (
    ("parameters, M", "weights\nM"),
    ("paper, M", "paper\nM"),
    ("GFLOP an image", "image\nGFLOP"),
    ("GFLOP a click", "click\nGFLOP"),
    ("gain of the split", "gain\nx"),
    ("MB an image", "image\nMB"),
    ("MB a click", "click\nMB"),
    ("features, MB", "kept\nMB"),
    ("export, s", "time\ns"),
    ("peak, GiB", "peak\nGiB"),
    ("of the gate's limits", "gate\nused"),
)
"""Headings of the page, and shorter ones for the terminal, which may be narrow."""


def cells(row: Row) -> list[str]:
    """Return the row's numbers, in the order of ``HEADINGS``."""
    # A comparison that has to be equal uses nothing of its limit, which is 0.
    shares = [check.worst / check.limit for check in row.gate if check.limit > 0]
    return [
        _shown(row.parameters),
        _shown(row.paper),
        _shown(row.gflop("image")),
        _shown(row.gflop("click")),
        _shown(row.gain(), 2),
        _shown(row.megabytes("image")),
        _shown(row.megabytes("click")),
        _shown(row.features()),
        _shown(row.seconds, 0),
        _shown(row.peak),
        f"{max(shares):.1%}" if shares else "",
    ]


def markdown(rows: Sequence[Row], machine: Sequence[tuple[str, str]], counted: Sequence[Counted]) -> str:
    """Return all rows as a page.

    Args:
        rows: All networks.
        machine: The machine, as pairs of a heading and a text.
        counted: What was counted without exporting.
    """
    lines = [
        "# Export",
        "",
        "Full-size networks at 448 x 448 where nothing else is said, MMMS where only a backbone is named. Random"
        " weights, float32 graphs; each network exported and checked in a process of its own. *paper*: parameters by"
        " the network's paper. *gain of the split*: how many times a click's operations the whole network has."
        " *features*: what stays resident between an image and its clicks. *peak*: the most memory the process held."
        " *of the gate's limits*: how much of its limit the worst comparison used.",
        "",
        f"| network | inputs | {' | '.join(long for long, _ in HEADINGS)} |",
        "|---|---|" + "---:|" * len(HEADINGS),
    ]
    for row in rows:
        shown = (
            f"not measured: {row.why.splitlines()[0]}" + " |" * len(HEADINGS[1:]) if row.why else " | ".join(cells(row))
        )
        lines.append(f"| {row.backbone} | {row.inputs} | {shown} |")
    lines += ["", *gains(counted), "", "## The gate's worst numbers", ""]
    checks = list(dict.fromkeys((check.name, check.measure, check.limit) for row in rows for check in row.gate))
    checked = [row for row in rows if row.gate]
    lines.append("| compared | measure | limit | " + " | ".join(f"{r.backbone}, {r.inputs}" for r in checked) + " |")
    lines.append("|---|---|---:|" + "---:|" * len(checked))
    for name, measure, limit in checks:
        worst = [[c.worst for c in row.gate if (c.name, c.measure) == (name, measure)] for row in checked]
        shown = " | ".join(f"{values[0]:.1e}" if values else "" for values in worst)
        lines.append(f"| {name} | {measure} | {limit:g} | {shown} |")
    lines += ["", "## Machine", "", "| | |", "|---|---|", *(f"| {what} | {text} |" for what, text in machine)]
    return "\n".join(lines) + "\n"


def gains(counted: Sequence[Counted]) -> list[str]:
    """Return the section about what splits gain, without an empty line at its end."""
    return [
        GAINS,
        "",
        "Counted without exporting (`benchmarks/splits.py`), at the sizes above and at those whose export needs more"
        " memory than here. A gain near 1 is early fusion: what depends on the image alone is small, and a click costs"
        " about as much as the whole network.",
        "",
        *table(counted),
    ]


def with_gains(page: str, counted: Sequence[Counted]) -> str:
    """Return a page with a new section about what splits gain, before that of the gate."""
    before, _, after = page.partition("## The gate's worst numbers")
    section = "\n".join(gains(counted))
    return f"{before.partition(GAINS)[0].rstrip()}\n\n{section}\n\n## The gate's worst numbers{after}"


def _print(rows: Sequence[Row], console: Console) -> None:
    table = Table(box=box.SIMPLE, padding=(0, 0, 0, 1))
    table.add_column("network", no_wrap=True)
    for _, short in HEADINGS:
        table.add_column(short, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row.key, *([] if row.why else cells(row)))
    console.print(table)
    for row in rows:
        if row.why:
            console.print(f"[yellow]{row.key}[/]: not measured: {row.why}")


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=[n.key for n in NETWORKS], help="networks to export (default: all)"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the bundles here (default: they are removed)")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of results")
    parser.add_argument("--no-export", action="store_true", help="only count what the splits gain, into export.md")
    parser.add_argument("--add", action="store_true", help="keep the rows of networks that are not exported now")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 1 when a network could not be exported."""
    options = _options().parse_args(arguments)
    if options.child is not None:
        network = Network(**json.loads(options.child))
        return report_alone(lambda on_step: asdict(export_here(network, options.keep, on_step)))
    import msgspec

    from mmms_deploy.bundle.contract import to_builtins
    from mmms_deploy.engines.machine import OtherPrograms, describe_machine, machine_lines
    from mmms_deploy.export.exporter import count_steps
    from mmms_deploy.export.samples import sample_images
    from mmms_deploy.reporting.files import write_text

    wanted = [network for network in NETWORKS if not options.only or network.key in options.only]
    if options.no_export:
        page = options.out / "export.md"
        write_text(page, with_gains(page.read_text(encoding="utf-8"), count_all()).encode())
        return 0
    steps = count_steps(len(sample_images(())))
    console = Console(stderr=True)
    earlier = joined([], options.out / "export.json") if options.add else []
    if any(not row.stages and not row.why for row in earlier if row.key not in {network.key for network in wanted}):
        console.print("the earlier rows have no stages; export all networks, without --add")
        return 1
    rows = []
    others = OtherPrograms()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        total = progress.add_task("networks", total=len(wanted))
        for network in wanted:
            task = progress.add_task(f"{network.key}: starting", total=steps)

            def on_step(name: str, task: Any = task, key: str = network.key) -> None:
                progress.update(task, description=f"{key}: {name}")
                progress.advance(task)

            with tempfile.TemporaryDirectory(prefix="mmms-export-") as folder:
                out = (options.keep or Path(folder)) / f"export-{network.key}"
                rows.append(export_alone(network, out, on_step))
            progress.remove_task(task)
            progress.advance(total)
            made = rows[-1]
            console.print(f"{network.key}: {made.why or f'{made.seconds:.0f} s, {made.peak:.1f} GiB'}")
    if options.add:
        rows = joined(rows, options.out / "export.json")
    machine = msgspec.structs.replace(describe_machine(), others=others.cpus())
    content = {
        "schema": 1,
        "kind": "benchmarks/export",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": to_builtins(machine),
        "rows": [asdict(row) for row in rows],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "export.json", (json.dumps(content, indent=1) + "\n").encode())
    write_text(options.out / "export.md", markdown(rows, machine_lines(machine), count_all()).encode())
    _print(rows, Console())
    return 1 if any(row.why for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
