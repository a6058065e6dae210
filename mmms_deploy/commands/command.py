"""What every command is: ``-h`` and ``--version``, named errors as messages, signals, closed pipes, exit codes.

Exit codes:

- 0: done
- 1: an error that :mod:`mmms_deploy.errors` names: what the command line names is not there, not what it should be, or
  does not work on this machine
- 2: wrong usage: the command line alone shows it, whatever the files hold
- 129, 130, 143: the terminal was closed, Ctrl-C, SIGTERM
- 141: standard output was closed
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO

import click

from mmms_deploy.commands import signals, streams
from mmms_deploy.commands.common import say, wrong_usage
from mmms_deploy.commands.help_text import fitted
from mmms_deploy.commands.sections import Sections, write_sections
from mmms_deploy.errors import Door, MMMSDeployError, MMMSDeployWarning
from mmms_deploy.version import __version__

EXIT_ERROR = 1
EXIT_CLOSED_PIPE = 141


class Command(click.Command):
    """A command whose user sees messages instead of tracebacks.

    A :class:`~mmms_deploy.errors.MMMSDeployError` becomes ``error: ...`` on stderr and exit code 1, and wrong usage and
    exit code 2 when it is raised while the command line is read. An
    :class:`~mmms_deploy.errors.MMMSDeployWarning` becomes a line ``warning: ...`` on stderr, and so does a warning that
    this package logs. Any other exception is a fault of this package and keeps its traceback.
    """

    def __init__(self, *args: Any, sections: Sections | None = None, **kwargs: Any) -> None:
        self.sections: Sections = sections or {}
        kwargs["context_settings"] = {"help_option_names": ["-h", "--help"], **kwargs.get("context_settings", {})}
        super().__init__(*args, **kwargs)
        click.version_option(__version__)(self)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command, and exit when it runs by itself."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        streams.prepare()
        with signals.handled():
            try:
                code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            except click.Abort:
                raise SystemExit(EXIT_ERROR) from None
            except click.ClickException as error:
                with _ending():
                    error.show()
                raise SystemExit(error.exit_code) from None
            with _ending():
                streams.Output().flush()
        raise SystemExit(code if isinstance(code, int) else 0)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the command line, or print the help or the version."""
        with _ending(), streams.named():
            return super().make_context(info_name, args, parent, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line; a named error is wrong usage here, because nothing ran yet."""
        try:
            with wrong_usage():
                return super().parse_args(ctx, args)
        except click.MissingParameter as error:
            message = error.message or self._example(error.param)
            raise click.MissingParameter(message, error.ctx, error.param, error.param_hint, error.param_type) from None

    def _example(self, missing: click.Parameter | None) -> str:
        """Return a sentence with the first example of the help that has what is missing."""
        examples = [line.strip() for line in (self.epilog or "").splitlines() if line.strip().startswith("mmms-")]
        if isinstance(missing, click.Option):
            examples = [line for line in examples if set(missing.opts) & set(line.split())]
        return f"For example: {examples[0]}" if examples else ""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, under headings where the command has some."""
        if self.sections:
            write_sections(self.sections, self.get_params(ctx), ctx, formatter)
        else:
            super().format_options(ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what comes below the options, fitted to the terminal."""
        if self.epilog:
            formatter.write_paragraph()
            with formatter.indentation():
                width = formatter.width - formatter.current_indent
                formatter.write_text(fitted(inspect.cleandoc(self.epilog), width))

    def invoke(self, ctx: click.Context) -> Any:
        """Do what the command does."""
        with _ending(), _printed_warnings(), _printed_log():
            return super().invoke(ctx)


class Group(Command, click.Group):
    """A command of which each subcommand is a :class:`Command` of its own."""

    def invoke(self, ctx: click.Context) -> Any:
        """Do what the subcommand does, which prints its own warnings."""
        with _ending():
            return click.Group.invoke(self, ctx)


def command(
    epilog: str, cls: type[Command] = Command, *, sections: Sections | None = None
) -> Callable[[Callable[..., Any]], Command]:
    """Decorate a function so that it becomes a command.

    Args:
        epilog: Text below the options of ``--help``.
        cls: The class of the command.
        sections: The headings of ``--help``, where there are many options.
    """
    return click.command(cls=cls, epilog=epilog, sections=sections)


@contextmanager
def _ending() -> Iterator[None]:
    """Say in one line, or not at all, what ended the command, and exit with its code."""
    try:
        yield
    except (SystemExit, click.ClickException, click.exceptions.Exit):
        raise
    except BaseException as error:
        _end(error)


def _end(error: BaseException) -> NoReturn:
    stopped = signals.stopped_by(error)
    if stopped is not None:
        say("error", str(stopped))
        signals.leave(stopped)
    if isinstance(error, MMMSDeployError):
        say("error", error.message(Door.COMMAND_LINE))
        raise SystemExit(EXIT_ERROR)
    if streams.is_closed_pipe(error):
        streams.abandon()
        raise SystemExit(EXIT_CLOSED_PIPE)
    raise error


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


class _Printer(logging.Handler):
    """Prints what the package logs as the commands print warnings."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        say("warning", record.getMessage())


@contextmanager
def _printed_log() -> Iterator[None]:
    """Print warnings that the package logs, such as that of a cache that cannot be written."""
    log, printer = logging.getLogger("mmms_deploy"), _Printer(logging.WARNING)
    log.addHandler(printer)
    try:
        yield
    finally:
        log.removeHandler(printer)
