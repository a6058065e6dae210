"""What ``mmms-verify --doors`` shows: the golden clicks through every door."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from mmms_deploy.commands.common import console, print_facts
from mmms_deploy.commands.display import progress_bars
from mmms_deploy.commands.serve_settings import settings_of
from mmms_deploy.commands.tables import print_table

if TYPE_CHECKING:
    from mmms_deploy.bundle import Bundle
    from mmms_deploy.doors.conformance.comparison import ConformanceReport, DoorReport
    from mmms_deploy.engines.request import EngineRequest


def verify_doors(bundle: Bundle, request: EngineRequest, names: Collection[str]) -> None:
    """Click through doors and on a session in turns, and show how many masks are the same and what doors cost.

    Args:
        bundle: The bundle.
        request: Which engine answers.
        names: The doors' names; empty for all that can be opened here.

    Raises:
        DoorError: There is no such door, one of these names cannot be opened here, or one fails.
        VerificationError: A mask differs.
    """
    from mmms_deploy.doors.conformance.comparison import checked_doors, compare_doors
    from mmms_deploy.doors.opening import Opening
    from mmms_deploy.errors import DoorError

    doors = checked_doors(names)
    opening = Opening.of(settings_of((), request))
    with progress_bars("opening doors") as on_progress:
        report = compare_doors(bundle, opening, doors, on_progress=on_progress)
    print_table(_table(report))
    absent = [door for door in report.doors if door.missing is not None]
    for door in absent:
        console.print(f"{escape(door.title)}: {escape(str(door.missing))}", soft_wrap=True)
    report.raise_for_failures()
    if names and absent:
        raise DoorError(
            f"{absent[0].title} cannot be opened here: {absent[0].missing}",
            expected="a door whose tool is installed",
            fix="install it, or leave the name out to compare the doors that there are",
        )
    compared = [door for door in report.doors if door.missing is None]
    many = "1 door" if len(compared) == 1 else f"{len(compared)} doors"
    print_facts(f"[bold green]the same mask[/] at {many} and in a session, on {escape(str(report.engine))}")


def _table(report: ConformanceReport) -> Table:
    table = Table(title=escape(f"Golden clicks of {report.bundle} through every door"), title_justify="left")
    table.add_column("door", no_wrap=True)
    for heading in ("masks equal", "worst IoU", "ms added, p50", "p95"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for door in report.doors:
        if door.clicks:
            numbers = (
                f"{door.equal} of {len(door.clicks)}",
                f"{min(click.iou for click in door.clicks):.4f}",
                f"{door.added(50):.1f}",
                f"{door.added(95):.1f}",
            )
        else:
            numbers = ("", "", "", "")
        table.add_row(door.name, *numbers, _word(door))
    return table


def _word(door: DoorReport) -> str:
    if door.missing is not None:
        return "[yellow]not here[/]"
    if door.error is not None:
        return "[bold red]failed[/]"
    return "[green]same[/]" if door.passed else "[bold red]differs[/]"
