"""``mmms-verify``: replay a bundle's golden clicks on this machine."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from mmms_deploy.commands.common import console, engine_options, err_console, user_errors

if TYPE_CHECKING:
    from mmms_deploy.verify import VerificationReport


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  mmms-verify bundles/demo
  mmms-verify bundles/demo --device cpu --threads 1""",
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--limit",
    type=click.FloatRange(0.0, 1.0),
    default=None,
    help="Smallest IoU that passes.  [default: 0.99 for fp32, 0.97 for fp16, 0.95 for bf16]",
)
@engine_options
@click.version_option(package_name="mmms-deploy")
@user_errors
def main(
    bundle: Path,
    limit: float | None,
    device: str,
    engine: str | None,
    precision: str | None,
    threads: int | None,
    strict: bool,
) -> None:
    """Check that BUNDLE answers on this machine as its checkpoint did.

    Compares every file with its recorded hash, then replays the golden clicks in the bundle through a session, closed
    loop, and compares each mask with the checkpoint's own. Exits with 1 when a hash or a mask differs.
    """
    from mmms_deploy.verify import replay

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=err_console, transient=True) as progress:
        task = progress.add_task("comparing hashes, opening the engine", total=None)
        report = replay(
            bundle,
            device=device,
            engine=engine,
            precision=precision,
            threads=threads,
            strict=strict,
            limit=limit,
            on_progress=lambda done, total: progress.update(
                task, description="replaying golden clicks", completed=done, total=total
            ),
        )
    console.print(_table(report))
    report.raise_for_failures()
    console.print(
        f"[bold green]passed[/]: {len(report.checks)} clicks on {report.engine}; smallest IoU {report.worst.iou:.4f},"
        f" limit {report.limit}; {report.seconds:.1f} s",
        soft_wrap=True,
    )


def _table(report: VerificationReport) -> Table:
    table = Table(title=escape(f"Golden replay of {report.bundle}"), title_justify="left")
    table.add_column("image", justify="right")
    table.add_column("clicks", justify="right")
    table.add_column("smallest IoU", justify="right")
    table.add_column("at click", justify="right")
    table.add_column("pixels compared", justify="right")
    table.add_column("ms a click", justify="right")
    table.add_column("")
    for case, group in groupby(report.checks, key=lambda check: check.case):
        checks = list(group)
        worst = min(checks, key=lambda check: check.iou)
        times = sorted(check.milliseconds for check in checks)
        table.add_row(
            str(case + 1),
            str(len(checks)),
            f"{worst.iou:.4f}",
            str(worst.click + 1),
            f"{100 * sum(check.certain for check in checks) / len(checks):.2f} %",
            f"{times[len(times) // 2]:.1f}",
            "[green]ok[/]" if worst.iou >= report.limit else "[bold red]differs[/]",
        )
    return table


if __name__ == "__main__":
    main()
