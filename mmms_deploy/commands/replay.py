"""``mmms-replay``: repeat a journal or a file of work, and report every mask that differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import click
from rich.markup import escape
from rich.table import Table

from mmms_deploy.commands.command import command
from mmms_deploy.commands.common import console, engine_options, warn
from mmms_deploy.commands.display import progress_bars
from mmms_deploy.commands.fetching import fetched_bundle
from mmms_deploy.commands.parameters import FilePath, Number, Text
from mmms_deploy.commands.places import check_bundle
from mmms_deploy.commands.streams import Output
from mmms_deploy.commands.tables import print_table

if TYPE_CHECKING:
    from mmms_deploy.engines.request import EngineRequest
    from mmms_deploy.journal.report import Compared, Replayed

_MOST_ROWS = 40
"""The most rows that are printed where not all are asked for."""


@command(
    epilog="""\b
Examples:
  mmms-replay work.jsonl --images photos
  mmms-replay work.jsonl --bundle demo --images photos --engine onnxruntime
  mmms-replay work.jsonl --images photos --engine openvino --against onnxruntime
  mmms-replay photo.work.json --images photo.jpg --json""",
)
@click.argument("file", metavar="FILE", type=FilePath())
@click.option("--bundle", type=FilePath(), help="The bundle.  [default: the one that FILE names]")
@click.option(
    "--images",
    type=FilePath(),
    multiple=True,
    help="A folder of images, modalities or features, with all folders below it, or one file; they are found by their"
    " content and not by their names. May be repeated.",
)
@click.option(
    "--against",
    type=Text(),
    metavar="ENGINE",
    default=None,
    help="Repeat everything on this engine too, and compare every mask of both.",
)
@click.option(
    "--limit",
    type=Number(0.0, 1.0),
    default=None,
    help="The least IoU that passes.  [default: masks that are the same in every pixel]",
)
@click.option("--all", "show_all", is_flag=True, help=f"Print every row, also where there are more than {_MOST_ROWS}.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@engine_options
def main(
    file: Path,
    bundle: Path | None,
    images: tuple[Path, ...],
    against: str | None,
    limit: float | None,
    show_all: bool,
    as_json: bool,
    request: EngineRequest,
) -> None:
    """Repeat what was done, and report every mask that is another one now.

    FILE is a journal that a session wrote, or a file of work of Session.save. It is repeated with the bundle, the
    engine and the images of this machine. Exits with 1 when a mask differs, or when something cannot be repeated, such
    as for an image that is not there.
    """
    if bundle is not None:
        check_bundle(bundle)
        bundle = fetched_bundle(bundle)
    with progress_bars("reading the file, opening the engine") as on_progress:
        from mmms_deploy.journal.images import Images
        from mmms_deploy.journal.replaying import is_work_file, replay_journal, replay_work

        work = is_work_file(file)
        replay = replay_work if work else replay_journal
        found = replay(file, bundle, Images(images), request=request, against=against, on_progress=on_progress)
    if not found.same_bundle:
        warn("the bundle is another one than the recorded one; its masks are its own")
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=1), file=cast("IO[str]", Output()))
    else:
        _print(found, limit, show_all=show_all)
    found.raise_for_failures(limit)
    if not as_json:
        _passed(found, limit)


def _print(found: Replayed, limit: float | None, *, show_all: bool) -> None:
    bundle, engine = found.recorded[0]
    console.print(f"recorded {escape(bundle.name)} {bundle.digest[:12]} on {engine}", soft_wrap=True)
    console.print(f"now      {escape(found.bundle.name)} {found.bundle.digest[:12]} on {found.engine}", soft_wrap=True)
    if found.against is not None:
        console.print(f"against  {found.against}", soft_wrap=True)
    if found.lost:
        console.print(f"[yellow]{found.lost} events were lost when the journal was written[/]")
    if found.open:
        console.print(f"{found.open} of {len(found.recorded)} sessions were never closed")
    rows = list(found.rows)
    if not show_all and len(rows) > _MOST_ROWS:
        rows = [*found.failures(limit)][:_MOST_ROWS]
        console.print(f"{len(found.rows)} events; those that do not pass, {len(rows)} at most (--all prints every one)")
    if rows:
        print_table(_table(found, rows))
    for row in rows:
        if row.error and row.outcome in ("failed", "missing"):
            console.print(f"{row.n}: {escape(row.error)}", soft_wrap=True)


def _table(found: Replayed, rows: list[Compared]) -> Table:
    table = Table(title=escape(f"Replay of {found.path}"), title_justify="left")
    several, beside = len(found.recorded) > 1, found.against is not None
    if several:
        table.add_column("session", justify="right")
    table.add_column("no.", justify="right")
    table.add_column("object" if found.kind == "work" else "event")
    table.add_column("surface")
    for heading in ("area", "IoU", "pixels", "ms then", "now"):
        table.add_column(heading, justify="right")
    for heading in ("IoU of both", "pixels", "ms there") if beside else ():
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in rows:
        cells = [str(row.session)] if several else []
        cells += [str(row.n), escape(row.event), escape(row.surface), _area(row), _iou(row.iou), _whole(row.pixels)]
        cells += [_ms(row.ms), _ms(row.ms_now)]
        if beside:
            other = row.against
            cells += ["", "", ""] if other is None else [_iou(other.iou), _whole(other.pixels), _ms(other.ms)]
        table.add_row(*cells, _word(row))
    return table


def _area(row: Compared) -> str:
    if row.area is None:
        return ""
    return f"{row.area}" if row.area_now in (None, row.area) else f"{row.area} > {row.area_now}"


def _iou(value: float | None) -> str:
    return "" if value is None else "1" if value == 1 else f"{value:.6f}"


def _whole(value: int | None) -> str:
    return "" if value is None else str(value)


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _word(row: Compared) -> str:
    word = str(row.outcome)
    colour = {"same": "green", "differs": "bold red", "failed": "bold red", "missing": "bold red", "skipped": "yellow"}
    shown = f"[{colour[word]}]{word}[/]" if word in colour else word
    return f"{shown}: {escape(row.error)}" if word == "refused" else shown


def _passed(found: Replayed, limit: float | None) -> None:
    unit = "objects" if found.kind == "work" else "events"
    same = len(found.compared) - len(found.differing)
    said = f"{len(found.rows)} {unit}, {same} masks the same in every pixel"
    if found.differing or found.apart:
        said += f", the smallest IoU {found.worst:.6f}, limit {limit:g}" if limit is not None else ""
    console.print(f"[bold green]passed[/]: {said}", soft_wrap=True)


if __name__ == "__main__":
    main()
