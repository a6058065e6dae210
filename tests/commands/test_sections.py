"""The headings of ``--help``: every command with many options has some, and they name all of its options."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import click
import pytest

from mmms_deploy.commands.command import Command, command
from mmms_deploy.commands.sections import CLEANING, ENGINE
from tests.support.documents import PROJECT
from tests.support.invoke import invoke

FEW = 12
"""Options that a reader takes in without headings."""
COMMON = {"--version", "--help"}


def commands() -> Iterator[Command]:
    for target in PROJECT["scripts"].values():
        function = target.rpartition(":")[2]
        found = import_module(f"mmms_deploy.commands.{'eval' if function == 'evaluate' else function}").main
        yield from found.commands.values() if isinstance(found, click.Group) else [found]


def options(found: click.Command) -> list[set[str]]:
    """The names of every option."""
    return [set(one.opts) for one in found.params if isinstance(one, click.Option)]


@pytest.mark.parametrize("found", list(commands()), ids=lambda found: found.name)
def test_headings_name_every_option_once(found: Command) -> None:
    there = [names for names in options(found) if not names & COMMON]
    assert found.sections or len(there) <= FEW
    if not found.sections:
        return
    named = [name for names in found.sections.values() for name in names.split()]
    assert len(named) == len(set(named))
    shared = {name for section in (CLEANING, ENGINE) for names in section.values() for name in names.split()}
    every = {name for names in there for name in names}
    assert set(named) - shared <= every, "a heading names what is no option"
    assert [names for names in there if not names & set(named)] in ([], [{"--json"}])


def test_the_help_has_the_headings_in_their_order() -> None:
    @command("", sections={"Where": "--to", "What": "--one --two"})
    @click.argument("place")
    @click.option("--one", help="The first.")
    @click.option("--two", "-t", help="The second.")
    @click.option("--to / --no-to", help="There.")
    @click.option("--unseen", hidden=True)
    @click.option("--left", help="In no section.")
    def main(**_: object) -> None:
        """Do it."""

    lines = [line for line in invoke(main, "--help").output.splitlines() if line.strip()]
    assert [line for line in lines if not line.startswith(" ")][1:] == ["Where:", "What:", "Other options:"]
    shown = [line.split()[0].rstrip(",") for line in lines if line.startswith("  -")]
    assert shown == ["--to", "--one", "-t", "--left", "--version", "-h"]


def test_without_headings_it_is_one_list() -> None:
    @command("")
    @click.option("--one")
    def main(**_: object) -> None:
        """Do it."""

    assert "\nOptions:\n" in invoke(main, "--help").output
