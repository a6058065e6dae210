"""``mmms-verify``: replay a bundle's golden clicks on this machine."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from mmms_deploy.commands.command import command
from mmms_deploy.commands.common import console, engine_options, print_engine, print_facts, warn
from mmms_deploy.commands.display import progress_bars
from mmms_deploy.commands.fetching import fetched_bundle
from mmms_deploy.commands.parameters import FilePath, Number, Text
from mmms_deploy.commands.places import check_bundle
from mmms_deploy.commands.tables import print_table
from mmms_deploy.commands.verify_doors import verify_doors

if TYPE_CHECKING:
    from mmms_deploy.engines.request import EngineRequest
    from mmms_deploy.replay.verification import EngineOutcome, VerificationReport


@command(
    epilog="""\b
Examples:
  mmms-verify demo
  mmms-verify demo --device cpu --threads 1
  mmms-verify demo --all-engines
  mmms-verify demo --doors""",
)
@click.argument("bundle", type=FilePath())
@click.option(
    "--limit",
    type=Number(0.0, 1.0),
    default=None,
    help="Smallest IoU that passes.  [default: 0.99 for fp32, 0.97 for fp16, 0.95 for bf16 and int8]",
)
@click.option(
    "--all-engines",
    is_flag=True,
    help="Replay with every installed engine in every precision, and keep the results for --device auto.",
)
@click.option(
    "--doors",
    is_flag=True,
    help="Then click through every door that can be opened here (CVAT, Label Studio, napari, Triton, the API): each "
    "must give the same mask as a session, bit for bit.",
)
@click.option(
    "--door",
    "names",
    multiple=True,
    type=Text(),
    metavar="NAME",
    help="Such a door alone; may be repeated.",
)
@engine_options(allow_unproven=True)
def main(
    bundle: Path,
    limit: float | None,
    all_engines: bool,
    doors: bool,
    names: tuple[str, ...],
    request: EngineRequest,
) -> None:
    """Check that BUNDLE answers on this machine as its checkpoint did.

    Compares every file with its recorded hash, then replays the golden clicks in the bundle through a session, closed
    loop, and compares each mask with the checkpoint's own. Exits with 1 when a hash or a mask differs.

    The result is kept for this machine: the engine of the next session was measured. After --all-engines, --device auto
    takes the fastest engine and precision that passed. With it, the command exits with 1 when an engine in fp32 does
    not pass.

    --doors clicks the same clicks through the tools that people annotate with (mmms-doctor --docs integrations). The
    command exits with 1 when a door fails, or gives another mask than a session on the same engine; doors whose tool is
    not installed are listed with the command that installs it.
    """
    if all_engines:
        if request.engine is not None or request.precision is not None or limit is not None or request.strict:
            raise click.UsageError("--all-engines goes without --engine, --precision, --limit and --strict.")
        if doors or names:
            raise click.UsageError("--all-engines goes without --doors and --door: these take one engine.")
        check_bundle(bundle)
        _verify_all(fetched_bundle(bundle), request)
        return
    check_bundle(bundle)
    bundle = fetched_bundle(bundle)
    with progress_bars("comparing hashes, opening the engine") as on_progress:
        from mmms_deploy.bundle import Bundle
        from mmms_deploy.replay.verification import keep, replay

        opened = Bundle(bundle)
        report = replay(opened, request, limit=limit, on_progress=on_progress)
        keep(opened, request, report)
    print_table(_table(report))
    print_engine(report.engine)
    report.raise_for_failures()
    print_facts(
        f"[bold green]passed[/]: {len(report.checks)} clicks on {report.engine}; smallest IoU {report.worst.iou:.4f},"
        f" limit {report.limit}; {report.seconds:.1f} s"
    )
    if doors or names:
        verify_doors(opened, request, names)


def _verify_all(path: Path, request: EngineRequest) -> None:
    with progress_bars("comparing hashes, replaying golden clicks with every engine") as on_progress:
        from mmms_deploy.bundle import Bundle
        from mmms_deploy.engines.explain import reason
        from mmms_deploy.engines.request import EngineRequest
        from mmms_deploy.engines.select import choose
        from mmms_deploy.errors import VerificationError
        from mmms_deploy.replay.verification import replay_engines

        bundle = Bundle(path)
        outcomes = replay_engines(bundle, request, on_progress=on_progress)
    print_table(_engines_table(bundle.reference, outcomes))
    for outcome in outcomes:
        if outcome.error is not None:
            console.print(f"{outcome.engine} in {outcome.precision}: {escape(outcome.error.given)}", soft_wrap=True)
        elif outcome.report is not None and outcome.report.failures and outcome.precision != "fp32":
            # In fp32 it is an error, below.
            print_facts(
                f"{outcome.engine} in {outcome.precision} gives other masks than the checkpoint here:"
                f" --device {request.device} does not take it"
            )
    if any(outcome.report for outcome in outcomes) and not any(outcome.kept for outcome in outcomes):
        warn(
            "nothing could be kept; --device auto ignores these results (MMMS_DEPLOY_CACHE; mmms-doctor --docs engines)"
        )
    bad = [str(o.engine) for o in outcomes if o.precision == "fp32" and not o.passed]
    if bad or not any(outcome.passed for outcome in outcomes):
        raise VerificationError(
            f"{' and '.join(bad) or 'every engine'} did not pass the golden replay of {bundle.reference}",
            expected="the checkpoint's own masks from every engine in fp32",
            fix="see the table; reinstall or upgrade that engine, or report it with its version",
        )
    choice = choose(bundle, EngineRequest(device=request.device))
    print_facts(f"[bold green]--device {request.device}[/] takes [bold]{choice.order[0]}[/]: {escape(reason(choice))}")


def _engines_table(path: str, outcomes: tuple[EngineOutcome, ...]) -> Table:
    table = Table(title=escape(f"Golden replay of {path} on every engine"), title_justify="left")
    for heading in ("engine", "precision"):
        table.add_column(heading, no_wrap=True)
    for heading in ("threads", "worst IoU", "limit", "ms a click"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for outcome in outcomes:
        report = outcome.report
        if report is None:
            table.add_row(outcome.engine, outcome.precision, "", "", "", "", "[yellow]cannot run[/]")
            continue
        table.add_row(
            outcome.engine,
            outcome.precision,
            str(report.engine.threads or ""),
            f"{report.worst.iou:.4f}",
            f"{report.limit:g}",
            f"{report.milliseconds:.1f}",
            _word(outcome),
        )
    return table


def _word(outcome: EngineOutcome) -> str:
    if outcome.passed:
        return "[green]passed[/]"
    if outcome.report is not None and not outcome.report.failures:
        return "[yellow]shows nothing: all golden masks are empty or full[/]"
    return "[bold red]differs[/]"


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
