"""What all commands share: how errors, warnings and an interrupt reach the user.

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
from rich.console import Console
from rich.markup import escape

from mmms_deploy.errors import Door, MMMSDeployError, MMMSDeployWarning

if TYPE_CHECKING:
    from rich.progress import Progress

    from mmms_deploy.engines.protocol import EngineInfo
    from mmms_deploy.engines.tensorrt.build import OnPhase, Phase

P = ParamSpec("P")
R = TypeVar("R")

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

console = Console(highlight=False)
"""Where results go (stdout)."""

err_console = Console(stderr=True, highlight=False)
"""Where progress, warnings and errors go (stderr)."""


def user_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a command so that its user meets messages instead of tracebacks.

    A :class:`~mmms_deploy.errors.MMMSDeployError` becomes ``error: ...`` on stderr and exit code 1, an interrupt exit
    code 130, and an :class:`~mmms_deploy.errors.MMMSDeployWarning` a line ``warning: ...`` on stderr. A request to
    terminate unwinds the command too, so that what is half written is removed. Any other exception is a fault of this
    package and keeps its traceback.
    """

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with _spoken_warnings(), _unwound_when_terminated():
                return function(*args, **kwargs)
        except MMMSDeployError as error:
            say("error", error.message(Door.COMMAND_LINE))
            sys.exit(EXIT_ERROR)
        except KeyboardInterrupt:
            say("error", "interrupted")
            sys.exit(EXIT_INTERRUPTED)

    return wrapped


@contextmanager
def _unwound_when_terminated() -> Iterator[None]:
    """Turn SIGTERM into an exit that runs every clean-up; Python's own answer to it runs none."""
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
    """Tell the user of a command something to beware of, on stderr."""
    say("warning", message)


def say(kind: str, message: str) -> None:
    """Print ``kind: message`` on stderr, unwrapped, so that paths and commands can be copied."""
    click.echo(f"{click.style(f'{kind}:', fg='red' if kind == 'error' else 'yellow', bold=True)} {message}", err=True)


def print_engine(info: EngineInfo) -> None:
    """Print what executes, and why."""
    console.print(f"engine   {info}", soft_wrap=True)
    if info.reason:
        console.print(f"         [dim]{escape(info.reason)}[/]", soft_wrap=True)


@contextmanager
def opening(what: str) -> Iterator[OnPhase]:
    """Show that something is opened, and the phases of what is compiled for it.

    Args:
        what: What is done, such as ``opening the bundle``.

    Yields:
        What ``on_progress`` of a ``Session`` takes.
    """
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err_console, transient=True) as progress:
        progress.add_task(what, total=None)
        yield show_phases(progress)


def show_phases(progress: Progress) -> OnPhase:
    """Return what shows the phases of a build as bars of a display, nested as the library nests them."""
    tasks: dict[tuple[str, str], Any] = {}

    def show(phase: Phase) -> None:
        key = phase.stage, phase.name
        if phase.finished:
            if key in tasks:
                progress.remove_task(tasks.pop(key))
            return
        if key not in tasks:
            tasks[key] = progress.add_task(f"{'  ' * phase.depth}{escape(phase.stage)}: {escape(phase.name)}")
        progress.update(tasks[key], completed=phase.done, total=max(1, phase.total))

    return show


@contextmanager
def _spoken_warnings() -> Iterator[None]:
    """Print what is warned of, each message once: every session of a command may meet the same."""
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
    """Add ``--device``, ``--engine``, ``--precision``, ``--threads`` and ``--strict``, as ``Session`` takes them."""
    for option in reversed(
        (
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
                help="Refuse what was not asked for instead of warning; fp32 when nothing was.",
            ),
        )
    ):
        function = option(function)
    return function
