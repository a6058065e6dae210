"""``mmms-doctor``: which engines work on this machine, and how to fix the others."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, cast

import click
from rich.markup import escape
from rich.table import Table

from mmms_deploy.commands.command import EXIT_ERROR, command
from mmms_deploy.commands.common import console
from mmms_deploy.commands.display import waiting
from mmms_deploy.commands.docs import show_document
from mmms_deploy.commands.streams import Output
from mmms_deploy.commands.tables import print_table

if TYPE_CHECKING:
    from mmms_deploy.commands.health import EngineHealth, Health

_FLAGS = (
    ("AVX2", ("avx2",)),
    ("AVX-512", ("avx512f",)),
    ("VNNI", ("avx512_vnni", "avx_vnni")),
    ("BF16", ("avx512_bf16", "amx_bf16", "bf16")),
    ("FP16", ("avx512_fp16", "asimdhp")),
    ("AMX", ("amx_tile",)),
    ("NEON", ("asimd",)),
    ("SVE", ("sve", "sve2")),
)
"""Instruction sets that decide how fast matrices are multiplied: their name, and how Linux names them."""


@command(
    epilog="""\b
Examples:
  mmms-doctor
  mmms-doctor --json > machine.json
  mmms-doctor --docs
  mmms-doctor --docs engines""",
)
@click.option("--json", "as_json", is_flag=True, help="Print the same as JSON.")
@click.option(
    "--docs",
    is_flag=False,
    flag_value="",
    type=str,
    default=None,
    metavar="[NAME]",
    help="Do not look at the machine: show the document NAME, or list the documents.",
)
def main(as_json: bool, docs: str | None) -> None:
    """Show what mmms-deploy can use on this machine: processor, GPUs, driver, libraries, engines.

    For every engine that does not work, it says why and which command fixes it. It needs no bundle, downloads nothing,
    and leaves nothing on a GPU. Exits with 1 when no engine works.
    """
    if docs is not None:
        if as_json:
            raise click.UsageError("--json goes without --docs.")
        show_document(docs)
        return
    with waiting("looking at this machine"):
        from mmms_deploy.commands.health import examine

        health = examine()
    if as_json:
        import msgspec

        facts = {"works": health.works, **msgspec.to_builtins(health)}
        click.echo(msgspec.json.format(msgspec.json.encode(facts), indent=2), file=cast("IO[str]", Output()))
    else:
        _print(health)
    if not health.works:
        raise click.exceptions.Exit(EXIT_ERROR)


def _print(health: Health) -> None:
    print_table(_machine(health))
    console.print()
    print_table(_engines(health))
    _print_advice(health)
    console.print()
    if health.works:
        names = " and ".join(engine.name for engine in health.engines if engine.works)
        console.print(f"[bold green]ready[/]: {names}; [bold]mmms-verify BUNDLE --all-engines[/] measures them")
    else:
        console.print("[bold red]no engine works[/]: one of the commands above fixes it", soft_wrap=True)


def _machine(health: Health) -> Table:
    machine, gpu = health.machine, health.gpu
    table = Table(title="This machine", title_justify="left", show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    flags = [name for name, known in _FLAGS if set(known) & set(machine.flags)]
    table.add_row("system", escape(f"{machine.system}, Python {machine.python}"))
    table.add_row("processor", escape(machine.cpu))
    table.add_row("", f"{_count(machine.cores, 'core')}, {_count(machine.logical_cpus, 'thread')} for this process")
    table.add_row("", f"instructions {' '.join(flags) or 'unknown'}")
    table.add_row("memory", f"{machine.memory_gib:.1f} GiB")
    for index, name in enumerate(gpu.gpus):
        table.add_row("GPU" if index == 0 else "", escape(name))
    if gpu.problem:
        table.add_row("GPU", f"none: {escape(gpu.problem)}")
    if gpu.driver or gpu.cuda:
        runs = f"runs CUDA {gpu.cuda}" if gpu.cuda else ""
        table.add_row("driver", escape(", ".join(filter(None, (gpu.driver, runs)))))
    table.add_row("cache", escape(health.cache_problem or health.cache or ""))
    table.add_row("telemetry", escape(health.telemetry))
    table.add_section()
    for name, version in health.packages.items():
        table.add_row(escape(name), escape(version))
    return table


def _engines(health: Health) -> Table:
    table = Table(title="Engines", title_justify="left")
    table.add_column("engine", no_wrap=True)
    table.add_column("device")
    table.add_column("")
    table.add_column("precisions")
    table.add_column("library, or why not", overflow="fold")
    for engine in health.engines:
        table.add_row(
            engine.name,
            engine.device,
            "[green]works[/]" if engine.works else "[yellow]does not[/]",
            ", ".join(engine.precisions),
            escape("; ".join(filter(None, (engine.library, engine.why)))),
            style="" if engine.works else "dim",
        )
    return table


def _print_advice(health: Health) -> None:
    """Print the fixes unwrapped, so that commands can be copied."""
    groups: dict[str, list[EngineHealth]] = {}
    for engine in health.engines:
        if engine.fix:
            groups.setdefault(engine.fix, []).append(engine)
    if not groups and not health.conflicts:
        return
    console.print()
    for conflict in health.conflicts:
        console.print(f"[bold red]conflict[/] {escape(conflict)}", soft_wrap=True)
    for fix, engines in groups.items():
        names = " and ".join(engine.name for engine in engines)
        console.print(f"[bold]to use {names}[/]: {escape(fix)}", soft_wrap=True)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


if __name__ == "__main__":
    main()
