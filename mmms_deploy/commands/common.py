"""What all commands share: what they print to, and the options for an engine."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, wraps
from typing import IO, TYPE_CHECKING, Any, cast

import click
from rich.markup import escape
from rich.text import Text

from mmms_deploy.commands import parameters
from mmms_deploy.commands.console import VisibleConsole
from mmms_deploy.commands.streams import Messages, Output
from mmms_deploy.errors import Door, MMMSDeployError

if TYPE_CHECKING:
    from mmms_deploy.engines.protocol import EngineInfo


ALLOW_UNPROVEN = (
    "TensorRT: warn of a plan whose kernels show another type than its precision, and list them, instead of refusing"
    " it; for a first look on a GPU."
)
"""Help of ``--allow-unproven``."""


_INDENT = " " * 9


class _Console(VisibleConsole):
    """A console that lets the command decide what a closed pipe means."""

    def on_broken_pipe(self) -> None:
        """Pass the error on."""
        raise  # noqa: PLE0704 (called while the error is handled)


console = _Console(highlight=False, file=cast("IO[str]", Output()))
"""Where results go (stdout)."""

err_console = _Console(stderr=True, highlight=False, file=cast("IO[str]", Messages()))
"""Where progress, warnings and errors go (stderr)."""


def warn(message: str) -> None:
    """Print a warning on stderr."""
    say("warning", message)


def say(kind: str, message: str) -> None:
    """Print ``kind: message`` on stderr, unwrapped, so that paths can be copied; above a bar while one is shown.

    Args:
        kind: ``error``, ``warning`` or ``note``.
        message: The message.
    """
    start = (f"{kind}:", "bold red" if kind == "error" else "bold yellow")
    with contextlib.suppress(OSError):
        err_console.print(Text.assemble(start, " ", message), soft_wrap=True)


def print_facts(line: str) -> None:
    """Print a line of facts on stdout; on a terminal that is too narrow for it, it goes on below them.

    It is broken behind commas, colons and semicolons alone, so that a path or a command in it can be copied, and not
    at all in a pipe or a file.

    Args:
        line: The line, with the markup of rich; the first nine columns name what it is about.
    """
    text = Text.from_markup(line)
    isatty = getattr(console.file, "isatty", None)
    if isatty is not None and isatty() and text.cell_len > console.width:
        text = Text("\n").join(_broken(text, console.width))
    console.print(text, soft_wrap=True)


def _broken(text: Text, width: int) -> list[Text]:
    lines: list[Text] = []
    for part in text.divide([found.end() for found in re.finditer(r"[,;:] +", text.plain)]):
        last = lines[-1].cell_len if lines else 0
        if lines and last + len(part.plain.rstrip()) <= width:
            lines[-1].append_text(part)
        elif lines:
            lines.append(Text(_INDENT).append_text(part))
        else:
            lines.append(part)
    for each in lines:
        each.rstrip()
    return lines


def print_engine(info: EngineInfo) -> None:
    """Print what executes, and why."""
    print_facts(f"engine   {escape(str(info))}")
    if info.reason:
        print_facts(f"{_INDENT}[dim]{escape(info.reason)}[/]")


@contextmanager
def wrong_usage() -> Iterator[None]:
    """Turn a named error about what the command line alone shows into wrong usage, with exit code 2."""
    try:
        yield
    except MMMSDeployError as error:
        raise click.UsageError(error.message(Door.COMMAND_LINE), click.get_current_context(silent=True)) from error


def engine_options(
    function: Callable[..., Any] | None = None, *, precision: bool = True, allow_unproven: bool = False
) -> Callable[..., Any]:
    """Add ``--device``, ``--engine``, ``--precision``, ``--threads`` and ``--strict``.

    The command receives them as one argument ``request``, an :class:`~mmms_deploy.engines.request.EngineRequest`.

    Args:
        function: The command's function; None where options of this decorator are given.
        precision: Whether ``--precision`` is one of them; a command may have another one of this name.
        allow_unproven: Whether ``--allow-unproven`` is one of them, for commands that look at an engine.
    """
    if function is None:
        return partial(engine_options, precision=precision, allow_unproven=allow_unproven)
    named = function

    names = ("device", "engine", *(("precision",) if precision else ()), "threads", "strict")

    @wraps(named)
    def with_request(*args: Any, **kwargs: Any) -> Any:
        from mmms_deploy.engines.cuda.options import CudaOptions
        from mmms_deploy.engines.request import EngineRequest

        with wrong_usage():
            request = EngineRequest(**{name: kwargs.pop(name) for name in names})
            if allow_unproven and kwargs.pop("allow_unproven"):
                request = replace(request, cuda_options=CudaOptions(allow_unproven=True))
        return named(*args, request=request, **kwargs)

    options = {
        "device": click.option(
            "--device",
            type=parameters.Text(),
            metavar="NAME",
            default="auto",
            show_default=True,
            help="auto, cpu, cuda, or cuda:1 for the second GPU.",
        ),
        "engine": click.option(
            "--engine",
            type=parameters.Text(),
            metavar="NAME",
            default=None,
            help="tensorrt, onnxruntime-cuda, openvino or onnxruntime."
            "  [default: the fastest that passed mmms-verify --all-engines]",
        ),
        "precision": click.option(
            "--precision",
            type=parameters.Text(),
            metavar="NAME",
            default=None,
            help="fp32, fp16, bf16 or int8.  [default: fp32, or a faster one that passed mmms-verify --all-engines]",
        ),
        "threads": click.option(
            "--threads",
            type=parameters.Whole(min=1),
            default=None,
            help="CPU threads.  [default: the physical cores this process may use]",
        ),
        "strict": click.option(
            "--strict",
            is_flag=True,
            help="Refuse another engine, precision or number of threads than requested instead of warning; take fp32"
            " when no precision is requested.",
        ),
    }
    decorated: Callable[..., Any] = with_request
    if allow_unproven:
        decorated = click.option("--allow-unproven", is_flag=True, help=ALLOW_UNPROVEN)(decorated)
    for name in reversed(names):
        decorated = options[name](decorated)
    return decorated
