from __future__ import annotations

import io

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from mmms_deploy.commands.common import say
from mmms_deploy.commands.console import VisibleConsole

EVIL = "a\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe"
"""A name that sets the title of a terminal, clears it, colours it, and turns the direction of text around."""
CONTROLS = {"\x1b]", "\x1b[2J", "\x07", "\x9b", "\u202e"}


def printed(*what: object) -> str:
    console = VisibleConsole(file=io.StringIO(), width=200, force_terminal=True, highlight=False)
    for one in what:
        console.print(one)
    return console.file.getvalue()


def test_text_from_outside_does_nothing_on_a_terminal() -> None:
    table = Table("head")
    table.add_row(EVIL)
    text = printed(EVIL, Text(EVIL), table)
    assert not any(control in text for control in CONTROLS)
    assert text.count(r"\x1b]0;owned") == 3
    assert r"\u202egnp.exe" in text


def test_what_the_console_itself_sends_stays() -> None:
    assert "\x1b[1;31m" in printed("[bold red]error[/]")
    assert printed("first\nsecond") == "first\nsecond\n"
    console = VisibleConsole(file=io.StringIO(), width=80, force_terminal=True)
    with Progress(TextColumn("{task.description}"), console=console, transient=True) as display:
        display.add_task(EVIL, total=1)
    shown = console.file.getvalue()
    assert "\x1b[?25l" in shown, "the cursor is hidden"
    assert r"\x1b]0;owned" in shown
    assert "\x1b]0;" not in shown


def test_errors_and_warnings_show_names(capsys: pytest.CaptureFixture[str]) -> None:
    say("error", f"there is no file {EVIL}\n  to fix: check the path")
    said = capsys.readouterr().err
    assert not any(control in said for control in CONTROLS)
    assert "\n  to fix: check the path" in said


def test_messages_are_neither_wrapped_nor_markup(capsys: pytest.CaptureFixture[str]) -> None:
    say("note", f"{'word ' * 40}[bold] \x1b[31m")
    assert capsys.readouterr().err == f"note: {'word ' * 40}[bold] \\x1b[31m\n"
