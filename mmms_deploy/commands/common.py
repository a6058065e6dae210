"""What all commands share: errors, warnings, interrupts, progress bars, and the options for an engine.

Exit codes: 0 done; 1 an error that :mod:`mmms_deploy.errors` names; 2 wrong usage; 130 interrupted; 143 terminated.
"""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import FrameType
from typing import TYPE_CHECKING, Any, ParamSpec, TextIO, TypeVar

import click
from rich.markup import escape

from mmms_deploy.commands.console import VisibleConsole
from mmms_deploy.errors import Door, MMMSDeployError, MMMSDeployWarning
from mmms_deploy.reporting.visible import visible

if TYPE_CHECKING:
    from rich.progress import Progress as Display

    from mmms_deploy.engines.protocol import EngineInfo
    from mmms_deploy.progress import OnProgress, Progress

P = ParamSpec("P")
R = TypeVar("R")

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

console = VisibleConsole(highlight=False)
"""Where results go (stdout)."""

err_console = VisibleConsole(stderr=True, highlight=False)
"""Where progress, warnings and errors go (stderr)."""


def user_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a command so that its user sees messages instead of tracebacks.

    A :class:`~mmms_deploy.errors.MMMSDeployError` becomes ``error: ...`` on stderr and exit code 1, an interrupt exit
    code 130, and an :class:`~mmms_deploy.errors.MMMSDeployWarning` a line ``warning: ...`` on stderr. SIGTERM unwinds
    the command too, so that half-written files are removed. Any other exception is a fault of this package and keeps
    its traceback.
    """

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with _printed_warnings(), _exit_when_terminated():
                return function(*args, **kwargs)
        except MMMSDeployError as error:
            say("error", error.message(Door.COMMAND_LINE))
            sys.exit(EXIT_ERROR)
        except KeyboardInterrupt:
            say("error", "interrupted")
            sys.exit(EXIT_INTERRUPTED)

    return wrapped


@contextmanager
def _exit_when_terminated() -> Iterator[None]:
    """Turn SIGTERM into an exit that runs every clean-up; Python's default handler runs none."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets no other thread handle signals
        return

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(EXIT_TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def warn(message: str) -> None:
    """Print a warning on stderr."""
    say("warning", message)


def say(kind: str, message: str) -> None:
    """Print ``kind: message`` on stderr, unwrapped, so that paths and commands can be copied."""
    start = click.style(f"{kind}:", fg="red" if kind == "error" else "yellow", bold=True)
    click.echo(f"{start} {visible(message)}", err=True)


def print_engine(info: EngineInfo) -> None:
    """Print what executes, and why."""
    console.print(f"engine   {info}", soft_wrap=True)
    if info.reason:
        console.print(f"         [dim]{escape(info.reason)}[/]", soft_wrap=True)


@contextmanager
def progress_bars(what: str) -> Iterator[OnProgress]:
    """Show on stderr that something is done, and a bar for every task that reports how far it is.

    Args:
        what: What is done while no task reports, such as ``opening the bundle``.

    Yields:
        What receives the tasks' steps: the ``on_progress`` of whatever works.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Display

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Display(*columns, TimeElapsedColumn(), console=err_console, transient=True) as display:
        display.add_task(what, total=None)
        yield bars_of(display)


def bars_of(display: Display) -> OnProgress:
    """Return what shows tasks as bars of a display, nested as they are; a bar goes when its task is over."""
    bars: dict[tuple[str, int], Any] = {}

    def show(step: Progress) -> None:
        key = step.task, step.depth
        if step.finished:
            if key in bars:
                display.remove_task(bars.pop(key))
            return
        if key not in bars:
            bars[key] = display.add_task(f"{'  ' * step.depth}{escape(step.task)}")
        display.update(bars[key], completed=step.done, total=None if step.total is None else max(1, step.total))

    return show


@contextmanager
def _printed_warnings() -> Iterator[None]:
    """Print every warning once: several sessions of one command may raise the same."""
    said: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", MMMSDeployWarning)
        usual = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, MMMSDeployWarning):
                if str(message) not in said:
                    say("warning", str(message))
                said.add(str(message))
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def engine_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--device``, ``--engine``, ``--precision``, ``--threads`` and ``--strict``.

    The command receives them as one argument ``request``, an :class:`~mmms_deploy.engines.request.EngineRequest`.
    """

    @wraps(function)
    def with_request(*args: Any, **kwargs: Any) -> Any:
        from mmms_deploy.engines.request import EngineRequest

        names = ("device", "engine", "precision", "threads", "strict")
        return function(*args, request=EngineRequest(**{name: kwargs.pop(name) for name in names}), **kwargs)

    options = (
        click.option(
            "--device", default="auto", show_default=True, help="auto, cpu, cuda, or cuda:1 for the second GPU."
        ),
        click.option(
            "--engine",
            default=None,
            help="tensorrt, onnxruntime-cuda, openvino or onnxruntime."
            "  [default: the fastest that passed mmms-verify --all-engines]",
        ),
        click.option(
            "--precision",
            default=None,
            help="fp32, fp16 or bf16.  [default: fp32, or a faster one that passed mmms-verify --all-engines]",
        ),
        click.option(
            "--threads",
            type=click.IntRange(min=1),
            default=None,
            help="CPU threads.  [default: the physical cores this process may use]",
        ),
        click.option(
            "--strict",
            is_flag=True,
            help="Refuse another engine, precision or number of threads than requested instead of warning; take fp32"
            " when no precision is requested.",
        ),
    )
    decorated: Callable[..., Any] = with_request
    for option in reversed(options):
        decorated = option(decorated)
    return decorated
