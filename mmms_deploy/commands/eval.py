"""``mmms-eval``: how many clicks a bundle needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mmms_deploy.commands.common import console, engine_options, err_console, user_errors, warn

if TYPE_CHECKING:
    from mmms_deploy.evaluation.results import RunFacts, SceneResult
    from mmms_deploy.evaluation.run import Contestant, Entry, Evaluation
    from mmms_deploy.evaluation.settings import Settings
    from mmms_deploy.evaluation.summary import DatasetSummary

TORCH = "torch:"
"""What stands before a checkpoint that is compared with."""


def parse_percent(text: str) -> float:
    """Parse ``90`` or ``0.9`` as a fraction."""
    try:
        value = float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no number such as 90") from None
    fraction = value / 100 if value > 1 else value
    if not 0 < fraction <= 1:
        raise click.BadParameter(f"{text!r} is not above 0 and at most 100")
    return fraction


def parse_pair(text: str) -> tuple[float, float]:
    """Parse ``80,70`` as two fractions, the second at most the first."""
    first, comma, second = text.partition(",")
    if not comma:
        raise click.BadParameter(f"{text!r} is not T,A, such as 80,70")
    target, average = parse_percent(first), parse_percent(second)
    if average > target:
        raise click.BadParameter(f"{text!r}: the mean IoU to reach (A) is above that of every surface (T)")
    return target, average


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  mmms-eval bundles/demo --dataset davis=data/DAVIS --dataset grabcut=data/GrabCut
  mmms-eval bundles/mmms --dataset mfnet=data/MFNet --multi-surface 80,70 --without thermal
  mmms-eval bundles/demo --dataset davis=data/DAVIS --against torch:demo --limit 50
  mmms-eval bundles/demo --dataset davis=data/DAVIS --precision bf16 --against bundles/demo --against-precision fp32
  mmms-eval --replay evaluations/demo davis:bmx-trees/00003:object""",
)
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    metavar="KIND=PATH",
    help="A data set, with options KIND=PATH:OPTION=VALUE; repeat for more. See docs/datasets.md.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the results; one that holds some is continued.  [default: evaluations/NAME]",
)
@click.option("--fresh", is_flag=True, help="Forget the results in --out and start over.")
@click.option(
    "--target",
    "targets",
    multiple=True,
    type=parse_percent,
    metavar="T",
    help="The t of NoC@t in percent; repeat for more.  [default: 80 85 90]",
)
@click.option("--max-clicks", type=click.IntRange(min=1), default=20, show_default=True, help="Clicks on an object.")
@click.option(
    "--protocol",
    type=click.Choice(["curve", "noc"]),
    default="curve",
    show_default=True,
    help="curve: click up to the limit, so that curves are complete. noc: stop at the highest target.",
)
@click.option(
    "--multi-surface",
    "pairs",
    multiple=True,
    type=parse_pair,
    metavar="T,A",
    help="Also NoCMS and FRMS at (t, a), in percent: all surfaces of an image in one joint mask.",
)
@click.option(
    "--multi-instance",
    "instances",
    multiple=True,
    type=parse_percent,
    metavar="T",
    help="Also NCI, NFO and NFI at t, in percent: all objects of an image on one budget of clicks.",
)
@click.option(
    "--instance-clicks",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Clicks per object that the budget of --multi-instance is made of.",
)
@click.option("--flip", is_flag=True, help="Answer every click with the mean over the image and its mirror image.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="A pixel belongs to the mask when its probability is greater.  [default: the bundle's]",
)
@click.option("--without", multiple=True, metavar="NAME", help="Leave out an optional modality; repeat for more.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many images of each data set.")
@click.option("--every", type=click.IntRange(min=1), default=1, show_default=True, help="Every n-th image only.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Images in work at a time; they share one engine, and the results do not depend on it.",
)
@click.option(
    "--against",
    metavar="BUNDLE|torch:CKPT",
    help="Compare with another bundle, the same one on another engine, or a checkpoint in PyTorch (torch:demo is the "
    "one that ships with mmms-deploy).",
)
@click.option("--against-engine", help="--engine of what is compared with.")
@click.option("--against-precision", help="--precision of what is compared with.")
@click.option("--against-device", default="auto", show_default=True, help="--device of what is compared with.")
@click.option("--worst", type=click.IntRange(min=0), default=6, show_default=True, help="Pictures of worst cases.")
@click.option("--parquet", is_flag=True, help="Also write objects.parquet (needs pyarrow).")
@click.option(
    "--replay",
    nargs=2,
    type=(click.Path(path_type=Path), str),
    metavar="OUT CASE",
    help="Instead of an evaluation: write a picture of every click of a case of OUT.",
)
@engine_options
@click.version_option(package_name="mmms-deploy")
@user_errors
def main(
    bundle: Path | None,
    datasets: tuple[str, ...],
    out: Path | None,
    fresh: bool,
    targets: tuple[float, ...],
    max_clicks: int,
    protocol: str,
    pairs: tuple[tuple[float, float], ...],
    instances: tuple[float, ...],
    instance_clicks: int,
    flip: bool,
    threshold: float | None,
    without: tuple[str, ...],
    limit: int | None,
    every: int,
    workers: int,
    against: str | None,
    against_engine: str | None,
    against_precision: str | None,
    against_device: str,
    worst: int,
    parquet: bool,
    replay: tuple[Path, str] | None,
    device: str,
    engine: str | None,
    precision: str | None,
    threads: int | None,
    strict: bool,
) -> None:
    """Measure how many simulated clicks BUNDLE needs on data sets, and write a report.

    Every finished image is kept in --out, so that a run that was stopped goes on where it was. There, report.html is
    one page with curves and the worst cases, objects.csv has a row for every object, and summary.json all measures.
    """
    if replay is not None:
        _replay(*replay, bundle)
        return
    if bundle is None or not datasets:
        raise click.UsageError("Give BUNDLE and --dataset KIND=PATH, or --replay OUT CASE.")
    if against is None and (against_engine or against_precision or against_device != "auto"):
        raise click.UsageError("--against-engine, --against-precision and --against-device need --against.")

    from mmms_deploy.evaluation.datasets import parse_dataset_argument
    from mmms_deploy.evaluation.run import evaluate, plan
    from mmms_deploy.evaluation.settings import TARGETS, Protocol, Settings
    from mmms_deploy.evaluation.tables import parquet_library

    if parquet:
        parquet_library()  # told before minutes are spent
    settings = Settings(
        protocol=Protocol(protocol),
        max_clicks=max_clicks,
        targets=tuple(sorted(set(targets))) or TARGETS,
        multi_surface=tuple(dict.fromkeys(pairs)),
        multi_instance=tuple(dict.fromkeys(instances)),
        instance_clicks=instance_clicks,
    )
    arguments = [parse_dataset_argument(text) for text in datasets]
    with err_console.status("listing the data sets"):
        opened = [(str(argument), argument.open()) for argument in arguments]
    engine_settings = _engine_settings(device, engine, precision, threads, strict)
    against_settings = _engine_settings(against_device, against_engine, against_precision, threads, strict)
    with ExitStack() as stack:
        sides = _open_sides(stack, bundle, against, engine_settings, against_settings, flip, threshold, without)
        entries = [sides.entry(argument, dataset, without) for argument, dataset in opened]
        tasks = plan(entries, limit, every)
        folder = out or Path("evaluations") / sides.first.facts.name
        if fresh:
            _forget(folder)
        for facts in (sides.first.facts, sides.second.facts if sides.second else None):
            if facts is not None:
                console.print(f"{'engine' if facts is sides.first.facts else 'against':<8} {escape(facts.engine)}")
        try:
            with _progress(settings, len(tasks)) as on_scene:
                evaluation = evaluate(
                    entries,
                    sides.first,
                    settings,
                    against=sides.second,
                    out=folder,
                    workers=workers,
                    limit=limit,
                    every=every,
                    on_scene=on_scene,
                )
        except KeyboardInterrupt:
            warn(f"the finished images are kept in {folder}; the same command goes on from there")
            raise
        _report(evaluation, entries, sides.first, folder, worst=worst, parquet=parquet, notes=sides.notes)


# --- opening ----------------------------------------------------------------------------------------------------------


class _Sides:
    """What is evaluated, and what it is compared with."""

    def __init__(self, first: Contestant, second: Contestant | None, bundles: Sequence[Any]) -> None:
        self.first, self.second = first, second
        self._bundles = bundles
        self.notes: list[str] = []

    def entry(self, argument: str, dataset: Any, without: tuple[str, ...]) -> Entry:
        """Decide what of a data set each side is shown; what is ignored is said aloud."""
        from mmms_deploy.evaluation.modalities import choose_modalities
        from mmms_deploy.evaluation.run import Entry

        choices = [choose_modalities(specs, name, dataset, without) for name, specs in self._bundles]
        ignored = [name for name in choices[0].ignored if name not in without]
        if ignored:
            note = f"{', '.join(ignored)} of {dataset.name} is ignored: {self.first.facts.name} does not take it"
            warn(note)
            self.notes.append(note)
        second = choices[1].used if len(choices) > 1 else None
        return Entry(dataset, choices[0].used, second, argument)


def _open_sides(
    stack: ExitStack,
    bundle: Path,
    against: str | None,
    engine_settings: Mapping[str, Any],
    against_settings: Mapping[str, Any],
    flip: bool,
    threshold: float | None,
    without: tuple[str, ...],
) -> _Sides:
    with err_console.status("opening"):
        first, specs = _open(stack, str(bundle), engine_settings, flip, threshold, without)
        if not first.facts.trained:
            warn("the weights of this bundle are random: its measures mean nothing")
        if against is None:
            return _Sides(first, None, [(first.facts.source, specs)])
        second, other_specs = _open(stack, against, against_settings, flip, threshold, without)
    return _Sides(first, second, [(first.facts.source, specs), (second.facts.source, other_specs)])


def _open(
    stack: ExitStack,
    source: str,
    engine_settings: Mapping[str, Any],
    flip: bool,
    threshold: float | None,
    without: tuple[str, ...],
) -> tuple[Contestant, Any]:
    """Open a bundle, or a checkpoint in PyTorch; returns it with the modalities it takes."""
    options = {"flip": "" if flip else None, "threshold": None if threshold is None else f"{threshold:g}"}
    options["without"] = ", ".join(without) or None
    if source.startswith(TORCH):
        return _open_torch(source, options)
    from mmms_deploy.bundle import Bundle
    from mmms_deploy.evaluation.bundles import BundleSource
    from mmms_deploy.evaluation.results import PredictorFacts
    from mmms_deploy.evaluation.run import Contestant

    opened = BundleSource(Bundle(source), engine_settings, flip=flip, threshold=threshold)
    stack.callback(opened.close)
    manifest, info = opened.bundle.manifest, opened.info
    facts = PredictorFacts(
        name=manifest.name,
        source=str(opened.bundle.path.resolve()),
        identity=manifest.digest,
        engine=str(info),
        options={
            **options,
            "engine": info.name,
            "device": info.device,
            "precision": str(info.precision),
            "threads": None if info.threads is None else str(info.threads),
        },
        trained=manifest.trained,
    )
    return Contestant(opened.open, facts), manifest.modalities


def _open_torch(source: str, options: Mapping[str, str | None]) -> tuple[Contestant, Any]:
    """Open a checkpoint in PyTorch; the evaluation itself knows nothing of the half that exports."""
    if any(value is not None for name, value in options.items() if name != "without"):
        raise click.UsageError("--flip and --threshold are for bundles; leave them out with --against torch:...")
    try:
        from mmms_deploy.export.predictor import open_torch
    except ImportError as error:
        from mmms_deploy.errors import ExportError

        raise ExportError(
            f"comparing with PyTorch needs a package that is not installed: {error.name or error}",
            expected="the [export] extra",
            fix='pip install "mmms-deploy[export,cpu]"',
        ) from error
    return open_torch(source.removeprefix(TORCH), {"without": options["without"]})


def _engine_settings(
    device: str, engine: str | None, precision: str | None, threads: int | None, strict: bool
) -> dict[str, Any]:
    return {"device": device, "engine": engine, "precision": precision, "threads": threads, "strict": strict}


def _forget(folder: Path) -> None:
    """Remove the results of a folder, and nothing else."""
    from mmms_deploy.evaluation.results import SCENES_FILE, SETTINGS_FILE

    if (folder / SETTINGS_FILE).exists():
        for name in (SCENES_FILE, SETTINGS_FILE):
            (folder / name).unlink(missing_ok=True)


# --- running ----------------------------------------------------------------------------------------------------------


@contextmanager
def _progress(settings: Settings, total: int) -> Iterator[Callable[[SceneResult, int, int], None]]:
    """A bar with the NoC so far, at the highest target."""
    from mmms_deploy.evaluation.measures import noc
    from mmms_deploy.evaluation.text import percent

    target = settings.targets[-1]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    clicks = objects = 0
    with Progress(*columns, console=err_console, transient=True) as progress:
        task = progress.add_task("evaluating", total=total)

        def show(result: SceneResult, done: int, total: int) -> None:
            nonlocal clicks, objects
            clicks += sum(noc(one.ious, target, settings.max_clicks) for one in result.objects)
            objects += len(result.objects)
            running = f"NoC@{percent(target)} {clicks / objects:.2f}" if objects else "no objects yet"
            progress.update(task, completed=done, description=f"{escape(result.dataset)}  {running}")

        yield show


def _report(
    evaluation: Evaluation,
    entries: Sequence[Entry],
    contestant: Contestant,
    folder: Path,
    *,
    worst: int,
    parquet: bool,
    notes: Sequence[str],
) -> None:
    """Print the measures and write the files."""
    import msgspec

    from mmms_deploy.bench.machine import describe_machine
    from mmms_deploy.bench.text import machine_lines
    from mmms_deploy.evaluation.cases import draw_cases
    from mmms_deploy.evaluation.page import render_page
    from mmms_deploy.evaluation.replay import worst_cases
    from mmms_deploy.evaluation.summary import summarise_run
    from mmms_deploy.evaluation.table import render
    from mmms_deploy.evaluation.tables import rows_of, write_csv, write_parquet
    from mmms_deploy.reporting.files import write_text

    facts = evaluation.facts
    with err_console.status("writing the report"):
        summaries = summarise_run(facts, evaluation)
        _check_any(summaries, entries)
        paired = facts.against is not None
        write_csv(folder / "objects.csv", rows_of(evaluation, facts.settings, paired=paired))
        if parquet:
            write_parquet(folder / "objects.parquet", rows_of(evaluation, facts.settings, paired=paired))
        content = msgspec.json.encode({"run": facts, "datasets": summaries})
        write_text(folder / "summary.json", msgspec.json.format(content, indent=1) + b"\n")
        chosen = worst_cases(evaluation, worst, facts.settings.max_clicks)
        page = render_page(
            facts,
            summaries,
            cases=draw_cases(chosen, entries, contestant, str(folder)),
            machine=machine_lines(describe_machine()),
            notes=notes,
            created=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        )
        write_text(folder / "report.html", page.encode())
    console.print(render(summaries))
    console.print(f"\n[bold green]{escape(str(folder / 'report.html'))}[/]", soft_wrap=True)


def _check_any(summaries: Sequence[DatasetSummary], entries: Sequence[Entry]) -> None:
    if not summaries:
        from mmms_deploy.errors import EvaluationSettingsError

        raise EvaluationSettingsError(
            f"no object in {', '.join(entry.dataset.name for entry in entries)}",
            expected="an object with a pixel that is not void",
            fix="check the data set's folder, or its option that chooses surfaces",
        )


# --- replaying --------------------------------------------------------------------------------------------------------


def _replay(folder: Path, name: str, bundle: Path | None) -> None:
    """Write a picture of every click of a case."""
    from mmms_deploy.commands.output import write_atomically
    from mmms_deploy.errors import CaseError
    from mmms_deploy.evaluation.datasets import parse_dataset_argument
    from mmms_deploy.evaluation.replay import draw_frame, draw_truth, find_case, replay, surface_of
    from mmms_deploy.evaluation.results import read_facts, read_scenes
    from mmms_deploy.evaluation.run import shown

    facts: RunFacts = read_facts(folder)
    case = find_case(read_scenes(folder), name)
    dataset = next(entry for entry in facts.datasets if entry.name == case.scene.dataset)
    if not dataset.argument:
        raise CaseError(
            f"the results in {folder} were made from Python",
            expected="results of mmms-eval, which say where their data set is",
            fix="use mmms_deploy.evaluation.replay.replay with the data set",
        )
    scene = shown(parse_dataset_argument(dataset.argument).open()[case.scene.index], dataset.modalities)
    options = facts.predictor.options
    engine_settings = {
        "device": options["device"],
        "engine": options["engine"],
        "precision": options["precision"],
        "threads": None if options["threads"] is None else int(options["threads"]),
    }
    pictures = folder / "replay" / re.sub(r"[^\w.-]+", "_", case.name)
    pictures.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        threshold = options["threshold"]
        contestant, _ = _open(
            stack,
            str(bundle or facts.predictor.source),
            engine_settings,
            options["flip"] is not None,
            None if threshold is None else float(threshold),
            (),
        )
        if contestant.facts.identity != facts.predictor.identity:
            warn("this is another bundle than the one that was evaluated: its masks may differ")
        predictor: Any = contestant.open()
        stack.callback(predictor.close)
        console.print(f"{escape(case.name)}: {case.result.pixels:,} pixels", soft_wrap=True)
        surface = surface_of(scene, case.result.name)
        write_atomically(pictures / "00-object.png", draw_truth(scene, surface), overwrite=True)
        for number, frame in enumerate(replay(predictor, scene, case.result), start=1):
            newest, recorded = frame.clicks[-1], case.result.ious[number - 1]
            differs = "" if abs(frame.iou - recorded) < 1e-9 else f"   (was {100 * recorded:.2f} %)"
            sign = "+" if newest.positive else "-"
            place = f"({newest.x:.0f}, {newest.y:.0f})"
            console.print(f"click {number:>2} {sign} {place:<13} IoU {100 * frame.iou:6.2f} %{differs}")
            write_atomically(pictures / f"{number:02}.png", draw_frame(scene, frame), overwrite=True)
    console.print(f"[bold green]{escape(str(pictures))}[/]", soft_wrap=True)


if __name__ == "__main__":
    main()
