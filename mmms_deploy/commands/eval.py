"""``mmms-eval``: how many clicks a bundle needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from mmms_deploy.commands.cluster_options import ray_option
from mmms_deploy.commands.command import command
from mmms_deploy.commands.common import console, engine_options, say, warn, wrong_usage
from mmms_deploy.commands.datasets import DEFAULT, notes_on, open_datasets, parse_datasets
from mmms_deploy.commands.display import progress_bar, waiting
from mmms_deploy.commands.eval_cluster import on_cluster
from mmms_deploy.commands.eval_open import TORCH, Opening, Sides, results_folder
from mmms_deploy.commands.eval_report import write_replay, write_report
from mmms_deploy.commands.fetching import fetched_bundle, fetched_checkpoint
from mmms_deploy.commands.output import check_folder
from mmms_deploy.commands.parameters import FilePath, Number, OneOf, Text, Whole
from mmms_deploy.commands.places import DEMOS, check_bundle, check_checkpoint, check_results
from mmms_deploy.commands.sections import ENGINE, Sections
from mmms_deploy.files.leftovers import sweep
from mmms_deploy.hub import reference_of
from mmms_deploy.progress import Progress

if TYPE_CHECKING:
    from mmms_deploy.engines.request import EngineRequest
    from mmms_deploy.evaluation.datasets.argument import DatasetArgument
    from mmms_deploy.evaluation.results import SceneResult
    from mmms_deploy.evaluation.run import OnResult
    from mmms_deploy.evaluation.settings import Settings
    from mmms_deploy.progress import OnProgress

_THE_SAME = frozenset(
    {"bundle", "datasets", "protocol", "out", "fresh", "limit", "every", "workers", "ray", "worst", "parquet", "strict"}
)
"""Options by which results do not differ, or that name their folder by themselves."""


def parse_percent(text: str) -> float:
    """Parse ``90`` or ``0.9`` as a fraction."""
    try:
        value = float(text.removesuffix("%"))
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


_SECTIONS: Sections = {
    "Objects and clicks": "--dataset --limit --every --without --target --max-clicks --protocol --multi-surface "
    "--multi-instance --instance-clicks --zoom --flip --threshold --choose",
    "A second predictor": "--against --against-engine --against-precision --against-device",
    "Workers": "--workers --ray",
    "Results": "--out --fresh --worst --parquet --replay",
    **ENGINE,
}


@command(
    sections=_SECTIONS,
    epilog="""\b
Examples:
  mmms-eval demo
  mmms-eval demo --dataset davis=data/DAVIS --dataset grabcut=data/GrabCut --out evaluations/demo
  mmms-eval bundles/skipclick --dataset grabcut=data/GrabCut --protocol published
  mmms-eval bundles/mmms --dataset mfnet=data/MFNet --multi-surface 80,70 --without thermal
  mmms-eval demo --dataset davis=data/DAVIS --against torch:demo --limit 50
  mmms-eval demo --dataset davis=data/DAVIS --precision bf16 --against demo --against-precision fp32
  mmms-eval --replay evaluations/demo davis:bmx-trees/00003:object""",
)
@click.argument("bundle", type=FilePath(), required=False)
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    type=Text(),
    metavar="KIND=PATH",
    help="A data set, with options KIND=PATH:OPTION=VALUE; repeat for more. See mmms-doctor --docs datasets."
    f"  [default: {DEFAULT}, drawn scenes to try it with]",
)
@click.option(
    "--out",
    type=FilePath(),
    help="Folder of the results; results that it holds are continued.  [default: one for the bundle, the data"
    " sets, the protocol and the options by which results differ, in evaluations/]",
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
@click.option("--max-clicks", type=Whole(min=1), default=20, show_default=True, help="Clicks on an object.")
@click.option(
    "--protocol",
    type=OneOf(["curve", "noc", "published"]),
    default="curve",
    show_default=True,
    help="curve: click up to the limit, so that curves are complete. noc: stop at the highest target. published: as"
    " noc, with the crop, the mirror image and the threshold of the published figures of BUNDLE's family; --zoom,"
    " --flip and --threshold go before.",
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
    type=Whole(min=1),
    default=10,
    show_default=True,
    help="Clicks per object in the budget of --multi-instance.",
)
@click.option(
    "--zoom/--no-zoom",
    default=None,
    help="Answer every click in the object's crop, by the rule of BUNDLE's family or else RITM's.",
)
@click.option(
    "--flip/--no-flip", default=None, help="Answer every click with the mean over the image and its mirror image."
)
@click.option(
    "--threshold",
    type=Number(0, 1, min_open=True, max_open=True),
    help="A pixel belongs to the mask when its probability is greater.  [default: the bundle's]",
)
@click.option(
    "--choose",
    type=OneOf(["score", "best"]),
    default="score",
    show_default=True,
    help="Which of several answers to a click is taken (SAM 2, DISNet): score: the network's own choice. best: the one"
    " of the largest IoU with the object, as an annotator takes it who sees all of them.",
)
@click.option(
    "--without", multiple=True, type=Text(), metavar="NAME", help="Leave out an optional modality; repeat for more."
)
@click.option(
    "--limit",
    type=Whole(min=1),
    help="At most this many images of each data set, the first ones; --every spreads them over it.",
)
@click.option("--every", type=Whole(min=1), default=1, show_default=True, help="Every n-th image only.")
@click.option(
    "--workers",
    type=Whole(min=1),
    default=None,
    help="Images evaluated at a time. They share one engine, and the results do not depend on their number; with --ray"
    " each has an actor with an engine of its own.  [default: 1; with --ray as many as the cluster has cores for]",
)
@ray_option()
@click.option(
    "--against",
    type=Text(),
    metavar="BUNDLE|torch:CKPT",
    help="Compare with another bundle, the same bundle on another engine, or a checkpoint in PyTorch (torch:demo is "
    "the one that ships with mmms-deploy, torch:FILE#ema the averaged weights of a file).",
)
@click.option("--against-engine", type=Text(), metavar="NAME", help="--engine of the bundle that --against names.")
@click.option(
    "--against-precision", type=Text(), metavar="NAME", help="--precision of the bundle that --against names."
)
@click.option(
    "--against-device",
    type=Text(),
    metavar="NAME",
    default="auto",
    show_default=True,
    help="--device of the bundle that --against names.",
)
@click.option(
    "--worst",
    type=Whole(min=0),
    default=6,
    show_default=True,
    help="Worst cases of each data set shown as pictures.",
)
@click.option("--parquet", is_flag=True, help="Also write objects.parquet (needs pyarrow).")
@click.option(
    "--replay",
    nargs=2,
    type=(FilePath(), Text()),
    metavar="OUT CASE",
    help="Do not evaluate: write a picture of every click of a case in OUT.",
)
@engine_options
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
    zoom: bool | None,
    flip: bool | None,
    threshold: float | None,
    choose: str,
    without: tuple[str, ...],
    limit: int | None,
    every: int,
    workers: int | None,
    ray: str | None,
    against: str | None,
    against_engine: str | None,
    against_precision: str | None,
    against_device: str,
    worst: int,
    parquet: bool,
    replay: tuple[Path, str] | None,
    request: EngineRequest,
) -> None:
    """Measure how many simulated clicks BUNDLE needs on data sets, and write a report.

    The results of every finished image are kept in --out, so that a stopped run goes on where it was. In that folder,
    report.html is one page with curves and the worst cases, objects.csv has a row for every object, and summary.json
    has all measures.
    """
    if replay is not None:
        from mmms_deploy.evaluation.errors import CaseError

        check_results(replay[0], CaseError)
        write_replay(*replay, bundle)
        return
    if bundle is None:
        raise click.UsageError("Give BUNDLE, such as mmms-eval demo, or --replay OUT CASE.")
    _check_usage(
        against,
        chosen=bool(against_engine or against_precision or against_device != "auto"),
        made=bool(protocol == "published" or zoom or flip or threshold is not None or choose != "score"),
    )

    from mmms_deploy.evaluation.settings import TARGETS, Protocol, Settings

    with wrong_usage():
        other = replace(request, device=against_device, engine=against_engine, precision=against_precision)
        settings = Settings(
            protocol=Protocol(protocol),
            max_clicks=max_clicks,
            targets=tuple(sorted(set(targets))) or TARGETS,
            multi_surface=tuple(dict.fromkeys(pairs)),
            multi_instance=tuple(dict.fromkeys(instances)),
            instance_clicks=instance_clicks,
        )
    arguments = parse_datasets(datasets or (DEFAULT,), "--dataset")
    check_bundle(bundle)
    notes = _say_notes(arguments, given=bool(datasets))
    _check_against(against)
    if out is not None:
        check_folder(out)
    bundle, against = fetched_bundle(bundle), _fetched_against(against)

    with waiting("listing the data sets"):
        from mmms_deploy.bundle import Bundle
        from mmms_deploy.evaluation.answering import Choose
        from mmms_deploy.evaluation.report.csv_parquet import parquet_library
        from mmms_deploy.evaluation.run import choose_scenes, evaluate

        if parquet:
            parquet_library()
        opened = open_datasets(arguments)
        name = Bundle(bundle, verify=False).manifest.name
        folder = out or results_folder(name, arguments, settings.protocol, _chosen())
        check_folder(folder)
        sweep(folder)
    with ExitStack() as stack:
        opening = Opening(
            bundle=str(bundle),
            against=against,
            request=request,
            against_request=other,
            arguments=tuple(arguments),
            without=without,
            published=protocol == "published",
            zoom=zoom,
            flip=flip,
            threshold=threshold,
            choose=Choose(choose),
            clicks=max_clicks,
        )
        sides = opening.open(stack)
        if opening.published:
            sides.note_sizes(zip(arguments, opened, strict=True))
        entries = opening.entries(sides, opened)
        tasks = choose_scenes(entries, limit, every)
        _take(stack, folder, fresh=fresh)
        _say_engines(sides)
        run = None if ray is None else stack.enter_context(on_cluster(opening, sides, settings, ray, workers))
        try:
            with _progress(settings, len(tasks)) as (on_progress, on_result):
                evaluation = evaluate(
                    entries,
                    sides.first,
                    settings,
                    against=sides.second,
                    out=folder,
                    workers=workers or 1,
                    limit=limit,
                    every=every,
                    on_progress=on_progress,
                    on_result=on_result,
                    run=run,
                )
        except KeyboardInterrupt:
            warn(f"the finished images are kept in {folder}; the same command goes on from there")
            raise
        write_report(
            evaluation, entries, sides.first, folder, worst=worst, parquet=parquet, notes=[*notes, *sides.notes]
        )


def _take(stack: ExitStack, folder: Path, *, fresh: bool) -> None:
    """Lock the folder of results until the report is written, and forget those that it holds if it is to be fresh."""
    from mmms_deploy.evaluation.lock import results_lock
    from mmms_deploy.evaluation.results import check_own, forget

    check_own(folder)
    stack.enter_context(results_lock(folder))
    if fresh:
        forget(folder)


def _say_engines(sides: Sides) -> None:
    console.print(f"{'engine':<8} {escape(sides.first.facts.engine)}")
    if sides.second is not None:
        console.print(f"{'against':<8} {escape(sides.second.facts.engine)}")


def _check_usage(against: str | None, *, chosen: bool, made: bool) -> None:
    """Refuse options of --against without it, and of bundles with PyTorch."""
    if against is None and chosen:
        raise click.UsageError("--against-engine, --against-precision and --against-device need --against.")
    if against is not None and against.startswith(TORCH) and made:
        raise click.UsageError(
            "--protocol published, --zoom, --flip, --threshold and --choose are for bundles; leave them out with"
            " --against torch:..."
        )


def _say_notes(arguments: list[DatasetArgument], *, given: bool) -> list[str]:
    if not given:
        yours = "--dataset KIND=PATH names yours (mmms-doctor --docs datasets)"
        say("note", f"no data set was given, so {DEFAULT} is taken; {yours}")
    notes = notes_on(arguments)
    for note in notes:
        warn(note)
    return notes


def _check_against(against: str | None) -> None:
    if against is None:
        return
    if not against.startswith(TORCH):
        check_bundle(Path(against))
        return
    checkpoint = against.removeprefix(TORCH)
    if checkpoint not in DEMOS:
        check_checkpoint(Path(_file_and_weights(checkpoint)[0]), "--against torch:")


def _fetched_against(against: str | None) -> str | None:
    """Return what is compared with: a bundle on the hub as the folder that was fetched, a checkpoint at its commit."""
    if against is None:
        return None
    if not against.startswith(TORCH):
        return str(fetched_bundle(Path(against)))
    checkpoint = against.removeprefix(TORCH)
    if checkpoint in DEMOS:
        return against
    file, weights = _file_and_weights(checkpoint)
    fetched = fetched_checkpoint(file)
    return f"{TORCH}{reference_of(fetched) or fetched}{weights}"


def _file_and_weights(checkpoint: str) -> tuple[str, str]:
    """Return a checkpoint and the set of weights in it, as ``#NAME`` or empty."""
    if Path(checkpoint).exists() or "#" not in checkpoint:
        return checkpoint, ""
    file, mark, weights = checkpoint.rpartition("#")
    return file, mark + weights


def _chosen() -> dict[str, str]:
    """Return the options of the command line by which results differ, where they are not the default."""
    context = click.get_current_context()
    default = {option.name: option.get_default(context) for option in context.command.params}
    given = click.core.ParameterSource.COMMANDLINE
    return {
        name: str(value)
        for name, value in context.params.items()
        if name not in _THE_SAME and context.get_parameter_source(name) is given and value != default[name]
    }


@contextmanager
def _progress(settings: Settings, total: int) -> Iterator[tuple[OnProgress, OnResult]]:
    """Show a bar with the NoC so far, at the highest target."""
    from mmms_deploy.evaluation.measures import noc
    from mmms_deploy.evaluation.report.text import percent

    target = settings.targets[-1]
    clicks = objects = done = 0
    running = ""
    with progress_bar("evaluating", remaining=True) as show:

        def update() -> None:
            show(Progress("evaluating", done, total, detail=running))

        def on_progress(step: Progress) -> None:
            nonlocal done
            done = step.done
            update()

        def on_result(result: SceneResult) -> None:  # its step follows, and shows it
            nonlocal clicks, objects, running
            clicks += sum(noc(one.ious, target, settings.max_clicks) for one in result.objects)
            objects += len(result.objects)
            average = f"NoC@{percent(target)} {clicks / objects:.2f}" if objects else "no objects yet"
            running = f"{result.dataset}  {average}"

        update()
        yield on_progress, on_result


if __name__ == "__main__":
    main()
