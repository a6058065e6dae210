"""How many clicks the demo checkpoints need, on every engine and in every precision: ``python benchmarks/clicks.py``.

Exports the checkpoints. Runs ``mmms-eval`` once for each engine, precision and data set, each against a second
predictor on the same objects: ONNX Runtime in float32 against PyTorch, all others against ONNX Runtime in float32.
Writes ``results/clicks.md`` and ``clicks.json``. Results that are already in ``--work`` are used again. Needs the
``[export,cpu,eval]`` extras and real pictures (``--data``), which are not part of the project.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from mmms_deploy.bundle import Bundle
from mmms_deploy.engines.machine import describe_machine, machine_lines
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.select import candidates
from mmms_deploy.reporting.files import write_text

HERE = Path(__file__).parent
REFERENCE = ("onnxruntime", "fp32")


@dataclass(frozen=True)
class Data:
    """A data set, and the checkpoint that is evaluated on it.

    Attributes:
        title: Its name in the table.
        key: Short name, for files.
        argument: The value of ``--dataset``; ``{data}`` is replaced by the folder of data.
        ckpt: The checkpoint.
        every: Only every n-th image is evaluated.
    """

    title: str
    key: str
    argument: str
    ckpt: str
    every: int = 1


DATA = (
    Data("VOC objects", "voc-demo", "berkeley={data}/voc-objects:name=voc", "demo"),
    Data("VOC objects", "voc", "berkeley={data}/voc-objects:name=voc", "demo-small"),
    Data("DAVIS, every 4th frame", "davis", "davis={data}/davis", "demo-small", 4),
    Data("VOC objects", "voc-sam2", "berkeley={data}/voc-objects:name=voc", "sam2-tiny"),
    Data("DAVIS, every 4th frame", "davis-sam2", "davis={data}/davis", "sam2-tiny", 4),
    Data("MFNet, every 4th scene", "mfnet", "mfnet={data}/mfnet", "demo-thermal", 4),
)
SURFACES = "mfnet={data}/mfnet"
WITHOUT_PYTORCH = ("sam2-tiny",)
"""Checkpoints that are ONNX files, so that PyTorch cannot be asked."""


@dataclass(frozen=True)
class Run:
    """One call of ``mmms-eval``.

    Attributes:
        data: The data set.
        engine: Its engine.
        precision: Its precision.
    """

    data: Data
    engine: str
    precision: str

    @property
    def key(self) -> str:
        """The name of its folder."""
        return f"{self.data.key}-{self.engine}-{self.precision}"

    def arguments(self, bundle: Path) -> list[str]:
        """Return the options for the second predictor."""
        if (self.engine, self.precision) == REFERENCE:
            return [] if self.data.ckpt in WITHOUT_PYTORCH else ["--against", f"torch:{self.data.ckpt}"]
        return ["--against", str(bundle), "--against-engine", REFERENCE[0], "--against-precision", REFERENCE[1]]


def command(name: str, *arguments: object) -> None:
    """Run one of this package's commands; its progress goes to the terminal."""
    call = [sys.executable, "-m", f"mmms_deploy.commands.{name}", *map(str, arguments)]
    subprocess.run(call, check=True, stdout=subprocess.DEVNULL)


def runs(bundles: dict[str, Path], wanted: Sequence[Data]) -> Iterator[Run]:
    """Yield every engine and precision that executes the bundles of data sets here."""
    for data in wanted:
        for found in candidates(Bundle(bundles[data.ckpt], verify=False), EngineRequest(device="cpu")):
            yield Run(data, found.backend.name, found.precision.value)


def summary(folder: Path, *, timed: bool = True) -> dict[str, Any]:
    """Return the measures of a run, which has one data set.

    Args:
        folder: The folder of the evaluation.
        timed: Whether its times mean something; else they are None.
    """
    content: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    found = {"engine": content["run"]["predictor"]["engine"], **content["datasets"][0]}
    return found if timed else {**found, "time": None}


def _row(run: Run, found: dict[str, Any]) -> str:
    noc = {round(100 * target["target"]): target for target in found["targets"]}
    curve, comparison, spent = found["curve"]["iou"], found.get("comparison"), found["time"]
    cells = [f"{100 * curve[k - 1]:.1f}" for k in (1, 3, 5, 10)]
    cells += [f"{noc[t]['noc']:.2f} ({100 * noc[t]['failure_rate']:.0f} %)" for t in (80, 85, 90)]
    if comparison is None:
        cells += ["reference", ""]
    else:
        at = next(d for d in comparison["differences"] if round(100 * d["target"]) == 90)
        cells.append(f"{at['difference']:+.3f} ({at['low']:+.3f} to {at['high']:+.3f})")
        cells.append(f"{100 * min(comparison['worst_agreement']):.2f}")
    if spent is None:
        cells.append("")
    else:
        infer, simulate = spent["click"], spent["click_with_simulation"] - spent["click"]
        cells.append(f"{1e3 * spent['image']:.0f} / {1e3 * infer:.1f} / {1e3 * simulate:.1f}")
    return f"| {found['engine'].replace(' on cpu', '')} | {' | '.join(cells)} |"


def tables(data: Data, found: Sequence[tuple[Run, dict[str, Any]]], level: str = "##") -> list[str]:
    """Return a data set's runs as lines of Markdown, after an empty one; none where there are no runs.

    Args:
        data: The data set.
        found: Runs of any data set, with their results.
        level: Mark of the heading.
    """
    own = [(run, result) for run, result in found if run.data == data]
    if not own:
        return []
    heads = ("engine", "IoU@1", "@3", "@5", "@10", "NoC@80 (failed)", "NoC@85", "NoC@90", "difference", "masks", "ms")
    lines = ["", f"{level} {data.title}: `{data.ckpt}`, {own[0][1]['objects']} objects", ""]
    lines += [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    return [*lines, *(_row(run, result) for run, result in own)]


def kept_runs(file: Path) -> list[tuple[Run, dict[str, Any]]]:
    """Return the runs of ``clicks.json`` with their results, of the data sets that are known; none without a file."""
    if not file.exists():
        return []
    known = {data.key: data for data in DATA}
    found = []
    for key, result in json.loads(file.read_text(encoding="utf-8"))["runs"].items():
        name, engine, precision = key.rsplit("-", 2)
        if name in known:
            found.append((Run(known[name], engine, precision), result))
    return found


def kept_surfaces(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return what ``clicks.json`` holds of several surfaces; none without a file."""
    return list(json.loads(file.read_text(encoding="utf-8"))["surfaces"].items()) if file.exists() else []


def count_surfaces(data: Path, work: Path, bundle: Path) -> list[tuple[str, dict[str, Any]]]:
    """Count the clicks on several surfaces at once, with the thermal images and without.

    Args:
        data: The folder of data.
        work: The folder of evaluations.
        bundle: The thermal demo's.

    Returns:
        What was seen, and the results.
    """
    surfaces = []
    for what, more in (("RGB + thermal", ()), ("RGB alone", ("--without", "thermal"))):
        folder = work / ("surfaces" + "-".join(("", *more[1:])))
        Console(stderr=True).print(folder.name)
        where = ["--dataset", SURFACES.format(data=data), "--out", folder, "--multi-surface", "80,70", *more]
        command("eval", bundle, "--engine", "openvino", "--precision", "fp32", *where)
        surfaces.append((what, summary(folder)))
    return surfaces


def foreign_clicks(file: Path) -> list[str]:
    """Return a section with the clicks that SAM 2 tiny needs, as lines of Markdown.

    Args:
        file: ``clicks.json``.
    """
    lines = ["## Clicks of SAM 2 tiny", ""]
    found = [line for data in DATA if data.ckpt == "sam2-tiny" for line in tables(data, kept_runs(file), "###")]
    if not found:
        return [*lines, "Not counted yet: `python benchmarks/clicks.py --only voc-sam2 --only davis-sam2` does it."]
    return [
        *lines,
        "The weights of all other networks here are random. SAM 2's are published, and counted on real pictures;"
        " [clicks.md](clicks.md) says how, and has the demo checkpoints on the same pictures.",
        *found,
    ]


def markdown(
    found: Sequence[tuple[Run, dict[str, Any]]],
    surfaces: Sequence[tuple[str, dict[str, Any]]],
    only: Sequence[str] = (),
) -> str:
    """Return all tables as a page in Markdown.

    Args:
        found: All runs, with their results.
        surfaces: What was seen, and the results with several surfaces.
        only: Keys of the data sets of this run, where the others are of an earlier one.
    """
    lines = [
        "# Clicks",
        "",
        "The demo checkpoints, and SAM 2 tiny as a bundle (docs/foreign.md), clicked by the "
        "simulated annotator (RITM's protocol, 20 clicks at most), in every engine and precision of this machine. "
        "*difference*: of NoC@90 to the reference on the same objects, with a paired 95 % bootstrap interval; the "
        "reference of ONNX Runtime in fp32 is PyTorch (SAM 2 has none), that of all others is ONNX Runtime in fp32. "
        "*masks*: least IoU, in percent, of two masks after the "
        "same clicks. *ms*: an image / a click / its simulation, on a shared machine; empty where it was busy. fp16 on "
        "ONNX Runtime's "
        "CPU computes most operators in float32 (docs/precision.md).",
    ]
    for data in DATA:
        lines += tables(data, found)
    if surfaces:
        lines += ["", "## MFNet: several surfaces in one joint mask, `demo-thermal`", ""]
        lines += ["| sees | images | surfaces | NoC@80 | NoCMS@(80, 70) | FRMS@(80, 70) |", "|---|" + "---:|" * 5]
        for what, result in surfaces:
            one, noc = result["multi_surface"][0], result["targets"][0]
            cells = (what, result["scenes"], one["surfaces"], f"{noc['noc']:.2f} ({100 * noc['failure_rate']:.0f} %)")
            cells += (f"{one['nocms']:.2f}", f"{100 * one['frms']:.1f} %")
            lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", "## Machine", "", "| | |", "|---|---|"]
    lines += [f"| {what} | {text} |" for what, text in machine_lines(describe_machine())]
    earlier = dict.fromkeys(f"{run.data.title}: {run.data.ckpt}" for run, _ in found if run.data.key not in only)
    if only and earlier:
        lines += ["", f"Of an earlier run, with the libraries that stand in its rows: {'; '.join(earlier)}."]
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), default=HERE.parents[1] / "shared" / "data")
@click.option("--work", type=click.Path(path_type=Path), default=Path("evaluations"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "results", help="Folder of the tables.")
@click.option(
    "--only",
    multiple=True,
    type=click.Choice([data.key for data in DATA]),
    help="A data set to evaluate; repeatable. The rows of all others stay as they are.",
)
@click.option("--engine", "engines", multiple=True, help="An engine, with --only; repeatable.  [default: all]")
@click.option("--busy", is_flag=True, help="The machine does other work meanwhile: leave times out.")
def main(data: Path, work: Path, out: Path, only: tuple[str, ...], engines: tuple[str, ...], busy: bool) -> None:
    """Count clicks on every engine of this machine."""
    if engines and not only:
        raise click.UsageError("--engine goes with --only: without it, all rows are made anew")
    console = Console(stderr=True)
    wanted = [known for known in DATA if not only or known.key in only]
    bundles = {known.ckpt: work / "bundles" / known.ckpt for known in wanted}
    for name, bundle in bundles.items():
        if not bundle.exists():
            console.print(f"exporting {name}")
            half = [] if name in WITHOUT_PYTORCH else ["--precision", "fp32,fp16"]
            command("export", "--ckpt", name, *half, "--out", bundle)
    kept = kept_runs(out / "clicks.json") if only else []
    asked = [run for run in runs(bundles, wanted) if not engines or run.engine in engines]
    found = [(run, result) for run, result in kept if run not in asked]
    for run in asked:
        console.print(run.key)
        bundle = bundles[run.data.ckpt]
        choice = ["--engine", run.engine, "--precision", run.precision, "--every", run.data.every]
        where = ["--dataset", run.data.argument.format(data=data), "--out", work / run.key]
        command("eval", bundle, *choice, *where, *run.arguments(bundle))
        found.append((run, summary(work / run.key, timed=not busy)))
    surfaces = kept_surfaces(out / "clicks.json") if only else count_surfaces(data, work, bundles["demo-thermal"])
    content = {
        "runs": {run.key: result for run, result in found},
        "surfaces": dict(surfaces),
    }
    write_text(out / "clicks.json", (json.dumps(content, indent=1) + "\n").encode())
    write_text(out / "clicks.md", markdown(found, surfaces, only).encode())
    console.print(f"{out / 'clicks.md'}")


if __name__ == "__main__":
    main()
