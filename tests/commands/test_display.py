from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from mmms_deploy.commands import display
from mmms_deploy.commands.display import Lines, print_result, progress_bar, progress_bars, waiting
from mmms_deploy.progress import Progress
from tests.support.terminal import Terminal


def test_what_is_compiled_while_something_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(display, "err_console", Console(file=terminal, force_terminal=True, width=80))
    with progress_bars("opening the bundle") as on_progress:
        for done in range(3):
            on_progress(Progress("image: Building [engine]", done, 3, 0))
            on_progress(Progress("image: Timing", done, 4, 1))
        on_progress(Progress("image: Timing", 4, 4, 1, finished=True))
        shown = terminal.getvalue()
        on_progress(Progress("image: Building [engine]", 3, 3, 0, finished=True))
        on_progress(Progress("image: never heard of", 1, 1, 0, finished=True))
        terminal.truncate(0)
        on_progress(Progress("click: Building [engine]", 0, 3, 0))
    for line in ("opening the bundle", "image: Building [engine]", "  image: Timing"):
        assert line in shown
    assert "click: Building" in terminal.getvalue()
    assert "image: " not in terminal.getvalue(), "what is over is not shown any more"


# --- lines, where stderr is no terminal -------------------------------------------------------------------------------


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a pipe or a log receives, although colours are wanted."""
    log = io.StringIO()
    monkeypatch.setattr(display, "err_console", Console(file=log, force_terminal=True, width=40, highlight=False))
    monkeypatch.setattr(display, "_lines", Lines())
    return log


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(display, "monotonic", lambda: now[0])
    return now


def test_a_line_is_said_at_once(said: io.StringIO) -> None:
    for show in (waiting, progress_bar, progress_bars):
        with show(f"opening {show.__name__}"):
            assert said.getvalue().endswith(f"opening {show.__name__} ...\n")
    assert "\r" not in said.getvalue()
    assert "\x1b[" not in said.getvalue().replace("\x1b[0m", "")


def test_how_far_a_task_is_comes_every_ten_seconds(said: io.StringIO, clock: list[float]) -> None:
    with progress_bars("opening") as on_progress:
        for done in range(100):
            clock[0] += 0.5
            on_progress(Progress("clicks [1]", done, 100))
            on_progress(Progress("a part of it", done, 100, depth=1))
    lines = said.getvalue().splitlines()
    assert lines[:3] == ["opening ...", "clicks [1] 1/100 ...", "clicks [1] 21/100 ..."]
    assert len(lines) == 6


def test_new_tasks_come_at_most_every_second(said: io.StringIO, clock: list[float]) -> None:
    with progress_bar("starting") as on_progress:
        for done in range(40):
            clock[0] += 0.25
            on_progress(Progress(f"step {done}", done, 40))
    assert said.getvalue().splitlines()[:3] == ["starting ...", "step 3 3/40 ...", "step 7 7/40 ..."]


def test_details_are_said_where_they_are_the_result_so_far(said: io.StringIO, clock: list[float]) -> None:
    with progress_bar("evaluating") as on_progress:
        clock[0] += 20
        on_progress(Progress("evaluating", 3, 9, detail="davis  NoC@90 7.20"))
    assert said.getvalue().splitlines()[-1] == "evaluating  davis  NoC@90 7.20 3/9 ..."


def test_one_bar_shows_the_newest_task(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(display, "err_console", Console(file=terminal, force_terminal=True, width=80))
    with progress_bar("starting", quiet=True) as on_progress:
        assert "starting" in terminal.getvalue()
        on_progress(Progress("clicks [1]", 1, 3, detail="NoC 7"))
    assert "clicks [1]  NoC 7" in terminal.getvalue()


@pytest.mark.parametrize("bars", [progress_bars, progress_bar])
def test_numbers_are_whole_on_narrow_terminals(monkeypatch: pytest.MonkeyPatch, bars: Any) -> None:
    terminal = Terminal()
    console = Console(file=terminal, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(display, "err_console", console)
    what = "writing the graphs, and replaying the clicks of each through sessions of its own"
    with bars("starting") as on_progress:
        on_progress(Progress("short [1]", 10, 20))
        on_progress(Progress("short [1]", 20, 20, finished=True))
        terminal.truncate(0)
        on_progress(Progress(what, 1363, 18140))
        if bars is progress_bars:
            on_progress(Progress("inside", 7, 30, depth=1))
    drawn = [line for line in re.split(r"[\r\n]|\x1b\[\S*?[A-Za-z]", terminal.getvalue()) if "writing" in line]
    assert drawn
    assert all("1363/18140 0:00:00" in line and len(line) <= 80 for line in drawn), drawn
    assert all("replaying the clicks" in line for line in drawn), "the text takes what is left"


def test_results_go_above_the_bar_on_a_terminal_and_else_to_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(display, "err_console", Console(file=terminal, force_terminal=True, width=80))
    with progress_bar("segmenting") as show:
        show(Progress("segmenting", 1, 3))
        print_result("to a file")
        assert capsys.readouterr().out == "to a file\n"
        assert "to a file" not in terminal.getvalue()
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdout.isatty", lambda: True)
            print_result("to the terminal")
        assert capsys.readouterr().out == ""
        assert "to the terminal\n" in terminal.getvalue().replace("\r", "")
