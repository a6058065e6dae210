"""Progress on stderr: bars on a terminal, and plain lines elsewhere, such as in a pipe or a log.

Something is said at once, before what takes long is imported. A line says what is done and, at most every ten seconds,
how far it is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from mmms_deploy.commands.common import console, err_console

if TYPE_CHECKING:
    from rich.progress import Progress as Display
    from rich.progress import ProgressColumn

    from mmms_deploy.progress import OnProgress, Progress


_LEAST_BAR = 2
_LEAST_TEXT = 12
_CLOCK = len("0:00:00")


def on_terminal() -> bool:
    """Whether stderr is a terminal that can draw; a wish for colours in a pipe (``FORCE_COLOR``) makes it none."""
    isatty = getattr(err_console.file, "isatty", None)
    return isatty is not None and isatty() and not err_console.is_dumb_terminal


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show on stderr what is done, when nothing says how far it is.

    Args:
        what: What is done, such as ``loading PyTorch``.
    """
    if on_terminal():
        with err_console.status(escape(what)):
            yield
    else:
        _lines.task(what)
        yield


@contextmanager
def progress_bars(what: str) -> Iterator[OnProgress]:
    """Show on stderr that something is done, and a bar for every task that reports how far it is.

    Args:
        what: What is done while no task reports, such as ``opening the bundle``.

    Yields:
        What receives the tasks' steps: the ``on_progress`` of whatever works.
    """
    if not on_terminal():
        _lines.task(what)
        yield _lines.step
        return
    from rich.progress import Progress as Display
    from rich.progress import SpinnerColumn

    with Display(SpinnerColumn(), *_columns(), console=err_console, transient=True) as display:
        display.add_task(escape(what), total=None)
        yield _bars_of(display)


@contextmanager
def progress_bar(what: str, *, remaining: bool = False, quiet: bool = False) -> Iterator[OnProgress]:
    """Show one bar on stderr, for the newest task.

    Args:
        what: What is done before the first task reports.
        remaining: Whether to show the time that is left.
        quiet: Whether to draw only when something is reported: a thread that draws ten times a second would be measured
            too.

    Yields:
        What receives the tasks' steps.
    """
    if not on_terminal():
        _lines.task(what)
        yield lambda step: _lines.step(step, detailed=True)
        return
    from rich.progress import Progress as Display
    from rich.progress import SpinnerColumn

    columns = [*(() if quiet else (SpinnerColumn(),)), *_columns(remaining=remaining)]
    with Display(
        *columns, console=err_console, transient=True, auto_refresh=not quiet, redirect_stdout=False
    ) as display:
        bar = display.add_task(escape(what), total=None)
        display.refresh()

        def show(step: Progress) -> None:
            total = None if step.total is None else max(1, step.total)
            display.update(bar, description=escape(_text(step)), completed=step.done, total=total)
            if quiet:
                display.refresh()

        yield show


def _columns(*, remaining: bool = False) -> list[ProgressColumn]:
    """Return what a bar shows after the spinner: what is done, the bar, how far it is, and the time.

    On a narrow terminal the bar gives way first, then the end of what is done; never a number.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Remaining
    from rich.table import Column
    from rich.text import Text

    class What(ProgressColumn):
        """What is done, cut where the numbers after it would not fit."""

        def render(self, task: Task) -> Text:
            """Return it as one line."""
            text = Text.from_markup(task.description)
            far = len(str(int(task.completed))) + 1 + len("?" if task.total is None else str(int(task.total)))
            others = 2 + (1 + _LEAST_BAR) + (1 + far) + (1 + _CLOCK) * (2 if remaining else 1)
            text.truncate(max(_LEAST_TEXT, err_console.width - others), overflow="ellipsis")
            return text

    return [
        What(table_column=Column(no_wrap=True)),
        BarColumn(),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        *([Remaining(table_column=Column(no_wrap=True))] if remaining else []),
    ]


def print_result(line: str) -> None:
    """Print a line of results while a bar is shown: above it where both are on a terminal, and else on stdout alone.

    Args:
        line: The line, with the markup of rich.
    """
    both = on_terminal() and sys.stdout is not None and sys.stdout.isatty()
    (err_console if both else console).print(line, soft_wrap=True)


def _bars_of(display: Display) -> OnProgress:
    """Return what shows tasks as bars of a display, nested as they are; a bar goes when its task is over."""
    bars: dict[tuple[str, int], Any] = {}

    def show(step: Progress) -> None:
        key = step.task, step.depth
        if step.finished:
            if key in bars:
                display.remove_task(bars.pop(key))
            return
        total = None if step.total is None else max(1, step.total)
        if key not in bars:
            what = f"{'  ' * step.depth}{escape(step.task)}"
            bars[key] = display.add_task(what, completed=step.done, total=total)
        display.update(bars[key], completed=step.done, total=total)

    return show


class Lines:
    """Progress as lines: no bars and no carriage returns.

    A new task is a line, but not within a second of the line before; how far a task is, is a line every ten seconds.
    """

    new_task_seconds = 1.0
    same_task_seconds = 10.0

    def __init__(self) -> None:
        self._newest = ""
        self._since = float("-inf")

    def task(self, what: str) -> None:
        """Say at once what is done now, unless it is the same as before."""
        now = monotonic()
        if what != self._newest or now - self._since >= self.new_task_seconds:
            self._say(what, f"{what} ...", now)

    def step(self, step: Progress, *, detailed: bool = False) -> None:
        """Say how far a task is, when it is time to; with its detail where that is wanted."""
        now = monotonic()
        pause = self.new_task_seconds if step.task != self._newest and not step.depth else self.same_task_seconds
        if step.finished or now - self._since < pause:
            return
        far = f" {step.done}" if step.total is None and step.done else ""
        if step.total:
            far = f" {step.done}/{step.total}"
        self._say(step.task, f"{_text(step) if detailed else step.task}{far} ...", now)

    def _say(self, task: str, line: str, now: float) -> None:
        self._newest, self._since = task, now
        err_console.print(line, markup=False, soft_wrap=True)


def _text(step: Progress) -> str:
    return f"{step.task}  {step.detail}" if step.detail else step.task


_lines = Lines()
