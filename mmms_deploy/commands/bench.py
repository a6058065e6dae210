"""``mmms-bench``: what a bundle costs on this machine."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmms_deploy.commands.click_bundles import check_encodes
from mmms_deploy.commands.command import command
from mmms_deploy.commands.common import engine_options, warn, wrong_usage
from mmms_deploy.commands.display import progress_bar
from mmms_deploy.commands.fetching import fetched_bundle
from mmms_deploy.commands.parameters import FilePath, Number, OneOf, Text, Whole
from mmms_deploy.commands.places import check_benchmark, check_bundle
from mmms_deploy.commands.sections import ENGINE, Sections
from mmms_deploy.commands.tables import print_tables

if TYPE_CHECKING:
    from mmms_deploy.bench.compare import ReportComparison
    from mmms_deploy.bench.report import Report
    from mmms_deploy.bench.run import Settings
    from mmms_deploy.engines.request import EngineRequest


_MOST_SESSIONS = 1000


def parse_size(text: str) -> tuple[int, int]:
    """Parse ``1080x1920``, height first."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise click.BadParameter(f"{text!r} is no size such as 1080x1920 (height x width)")
    return int(match[1]), int(match[2])


def parse_counts(text: str | None) -> tuple[int, ...]:
    """Parse ``1,8,32``: numbers of annotators, each once, ascending."""
    if text is None:
        return ()
    counts = [int(part) if re.fullmatch(r"[1-9]\d{0,3}", part.strip()) else 0 for part in text.split(",")]
    if 0 in counts or max(counts) > _MOST_SESSIONS:
        raise click.BadParameter(f"{text!r} is no list of numbers from 1 to {_MOST_SESSIONS} such as 1,8,32")
    return tuple(sorted(set(counts)))


_SECTIONS: Sections = {
    "What is measured": "--recipe --clicks --images --image-size --eager --compiled --sweep",
    "Many annotators": "--sessions --think --at-once",
    "Reports": "--json --html --load --compare --threshold --anyway",
    **ENGINE,
}


@command(
    sections=_SECTIONS,
    epilog="""\b
Examples:
  mmms-bench demo
  mmms-bench --recipe rgb --device cpu --json new.json --html new.html
  mmms-bench --recipe rgb --compare old.json --threshold 1.1
  mmms-bench demo --sessions 1,8,32 --think 2
  mmms-bench --load new.json --compare old.json""",
)
@click.argument("bundle", type=FilePath(), required=False)
@click.option(
    "--recipe",
    type=Text(),
    metavar="NAME",
    help="A network by name: demo, demo-small, rgb, rgbd or rgbdl; the last three are exported into bundles/ first.",
)
@click.option("--clicks", type=Whole(min=1), default=30, show_default=True, help="Clicks on each image.")
@click.option("--images", type=Whole(min=1), default=3, show_default=True, help="Images.")
@click.option(
    "--image-size",
    callback=lambda ctx, param, value: parse_size(value),
    default="1080x1920",
    show_default=True,
    metavar="HxW",
    help="Size of the images in pixels, height first.",
)
@click.option("--eager/--no-eager", default=True, help="Measure eager PyTorch too, where it is installed.")
@click.option(
    "--compiled/--no-compiled", default=True, help="Measure torch.compile too, on a GPU; compiling takes minutes."
)
@click.option("--sweep", type=OneOf(["threads"]), help="Measure clicks on 1 thread up to all cores, too.")
@click.option(
    "--sessions",
    callback=lambda ctx, param, value: parse_counts(value),
    metavar="N[,N...]",
    help="Measure so many annotators on one engine, too, each with a session: --sessions 1,8,32.",
)
@click.option(
    "--think",
    type=Number(min=0.0),
    default=2.0,
    show_default=True,
    help="With --sessions: seconds that an annotator thinks between clicks, on average; 0 for none.",
)
@click.option(
    "--at-once",
    type=Whole(min=1),
    default=4,
    show_default=True,
    help="With --sessions: calls of all annotators that run at once; the others wait.",
)
@click.option("--json", "json_file", type=FilePath(), help="Write the results here, with all samples.")
@click.option("--html", "html_file", type=FilePath(), help="Write a page with plots here.")
@click.option(
    "--load",
    type=FilePath(),
    metavar="FILE",
    help="Show results that --json wrote, instead of measuring.",
)
@click.option(
    "--compare",
    "old_file",
    type=FilePath(),
    metavar="OLD.json",
    help="Print ratios to older results; exit with 1 when something became worse.",
)
@click.option(
    "--threshold",
    type=Number(min=1.0),
    default=1.15,
    show_default=True,
    help="Factor by which --compare lets something become worse.",
)
@click.option("--anyway", is_flag=True, help="Compare with results of another machine, network or workload.")
@engine_options(allow_unproven=True)
def main(
    bundle: Path | None,
    recipe: str | None,
    clicks: int,
    images: int,
    image_size: tuple[int, int],
    eager: bool,
    compiled: bool,
    sweep: str | None,
    sessions: tuple[int, ...],
    think: float,
    at_once: int,
    json_file: Path | None,
    html_file: Path | None,
    load: Path | None,
    old_file: Path | None,
    threshold: float,
    anyway: bool,
    request: EngineRequest,
) -> None:
    """Measure what BUNDLE costs on this machine: start, images, clicks, throughput, memory, share of the peak.

    Every number comes from a measurement of this run; what could not be measured says why. An existing --json or --html
    file is replaced.
    """
    if sum(given is not None for given in (bundle, recipe, load)) != 1:
        raise click.UsageError("Give one of BUNDLE, --recipe NAME and --load FILE, such as mmms-bench demo.")
    _check_files(json_file, html_file, load, old_file)
    from mmms_deploy.bench.errors import ReportError
    from mmms_deploy.bench.report import encode, read_report

    for results in filter(None, (load, old_file)):
        check_benchmark(results, ReportError)
    old = None if old_file is None else read_report(old_file)
    if bundle is not None:
        check_bundle(bundle)
    if recipe is not None:
        from mmms_deploy.bench.workload import recipe as find_recipe

        with wrong_usage():
            find_recipe(recipe)
    if bundle is not None:
        bundle = fetched_bundle(bundle)
        from mmms_deploy.bundle import Bundle

        whole = Bundle(bundle, verify=False)
        check_encodes(whole, "measure the whole bundle; of a click bundle mmms-verify shows how long a click takes")

    from mmms_deploy.bench.compare import compare
    from mmms_deploy.bench.run import Settings
    from mmms_deploy.bench.text import render, render_comparison
    from mmms_deploy.reporting.files import write_text

    settings = Settings(
        request=request,
        clicks=clicks,
        images=images,
        image_size=image_size,
        eager=eager,
        compiled=compiled,
        sweep=sweep is not None,
        sessions=sessions,
        think=think,
        at_once=at_once,
    )
    report = read_report(load) if load is not None else _measure(bundle, recipe, settings)
    comparison = None if old is None else compare(report, old, threshold)
    print_tables(render(report))
    if json_file is not None:
        write_text(json_file, encode(report))
    if comparison is not None and not anyway:
        _write_page(html_file, report, None if comparison.differences else comparison)
        comparison.raise_for_differences()
    else:
        _write_page(html_file, report, comparison)
    if comparison is not None:
        for difference in comparison.differences:
            warn(f"these runs are of different things: {difference}")
        print_tables(render_comparison(comparison))
        comparison.raise_for_regressions()


def _check_files(json_file: Path | None, html_file: Path | None, load: Path | None, old: Path | None) -> None:
    """Fail before anything is measured when a file could not be written, or would replace one that is read."""
    from mmms_deploy.commands.output import check_output

    written = [path for path in (json_file, html_file) if path is not None]
    for path in written:
        check_output(path, overwrite=True)
    read = [path.resolve() for path in (load, old) if path is not None]
    if len({path.resolve() for path in written}) < len(written) or any(path.resolve() in read for path in written):
        raise click.UsageError("The files to read, --json and --html must all be different files.")


def _measure(bundle: Path | None, recipe: str | None, settings: Settings) -> Report:
    # It is drawn only when something is reported: a thread that draws ten times a second would be measured too.
    with progress_bar("starting", quiet=True) as on_progress:
        from mmms_deploy.bench.run import run_bench
        from mmms_deploy.bench.workload import bundle_of

        if bundle is None:
            bundle = bundle_of(
                str(recipe), on_progress=lambda step: on_progress(replace(step, task=f"exporting: {step.task}"))
            )
        return run_bench(bundle, settings, on_progress)


def _write_page(path: Path | None, report: Report, comparison: ReportComparison | None) -> None:
    if path is None:
        return
    from mmms_deploy.bench.page import render_page
    from mmms_deploy.reporting.files import write_text

    write_text(path, render_page(report, comparison).encode())


if __name__ == "__main__":
    main()
