"""Lines of facts on terminals that are too narrow for them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mmms_deploy.commands import common
from mmms_deploy.commands.common import print_facts
from tests.support.terminal import Terminal

LINE = "click 1  [green]+[/] (320, 240)  141.8 ms (engine 122.0, mask 19.7), mask 2310 px (+2310), 0.9 % of the image"
PLAIN = LINE.replace("[green]", "").replace("[/]", "")


def printed(monkeypatch: pytest.MonkeyPatch, line: str, file: io.StringIO, width: int = 80) -> str:
    monkeypatch.setattr(common, "console", Console(file=file, width=width, highlight=False, color_system=None))
    print_facts(line)
    return file.getvalue()


def test_a_terminal_gets_what_is_left_on_the_next_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed(monkeypatch, LINE, Terminal()).splitlines() == [
        "click 1  + (320, 240)  141.8 ms (engine 122.0, mask 19.7), mask 2310 px (+2310),",
        "         0.9 % of the image",
    ]


def test_a_wide_terminal_and_a_pipe_get_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed(monkeypatch, LINE, Terminal(), 120) == f"{PLAIN}\n"
    assert printed(monkeypatch, LINE, io.StringIO()) == f"{PLAIN}\n"


def test_paths_and_commands_are_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "         nothing was measured here yet, mmms-verify bundles/a-name-of-some-length --all-engines does"
    first, second = printed(monkeypatch, line, Terminal()).splitlines()
    assert first == "         nothing was measured here yet,"
    assert second == "         mmms-verify bundles/a-name-of-some-length --all-engines does"
    long = f"image    {'photos/' * 30}a.jpg (512 x 512)"
    assert printed(monkeypatch, long, Terminal()) == f"{long}\n"
