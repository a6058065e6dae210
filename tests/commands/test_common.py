from __future__ import annotations

import io
import warnings

import click
import pytest
from click.testing import Result
from rich.console import Console

from mmms_deploy.commands import common
from mmms_deploy.commands.common import EXIT_ERROR, EXIT_INTERRUPTED, progress_bars, user_errors
from mmms_deploy.errors import ClickError, MMMSDeployWarning
from mmms_deploy.progress import Progress
from tests.support.invoke import invoke


def run(error: BaseException | None = None, warning: Warning | None = None, times: int = 1) -> Result:
    @click.command()
    @user_errors
    def main() -> None:
        for _ in range(times if warning is not None else 0):
            warnings.warn(warning, stacklevel=1)
        if error is not None:
            raise error
        click.echo("done")

    return invoke(main)


def test_success() -> None:
    result = run()
    assert (result.exit_code, result.stdout, result.stderr) == (0, "done\n", "")


def test_named_errors_become_messages() -> None:
    result = run(ClickError("given [1] /a/b", expected="expected", fix="pip install 'x[y]'"))
    assert result.exit_code == EXIT_ERROR == 1
    assert result.stderr == "error: given [1] /a/b\n  expected: expected\n  to fix: pip install 'x[y]'\n"
    assert result.stdout == ""


def test_long_messages_are_not_wrapped() -> None:
    assert run(ClickError("x" * 500)).stderr == f"error: {'x' * 500}\n"


def test_interrupt() -> None:
    result = run(KeyboardInterrupt())
    assert result.exit_code == EXIT_INTERRUPTED == 130
    assert result.stderr == "error: interrupted\n"


def test_warnings_are_lines() -> None:
    result = run(warning=MMMSDeployWarning("slower"))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "done\n", "warning: slower\n")


def test_the_same_warning_of_many_sessions_is_one_line() -> None:
    assert run(warning=MMMSDeployWarning("slower"), times=3).stderr == "warning: slower\n"


def test_other_warnings_are_left_alone() -> None:
    with pytest.warns(UserWarning, match="foreign"):
        assert run(warning=UserWarning("foreign")).stdout == "done\n"


def test_usage_errors_are_clicks() -> None:
    assert run(click.UsageError("no")).exit_code == 2


def test_faults_of_the_package_keep_their_traceback() -> None:
    assert isinstance(run(RuntimeError("a bug")).exception, RuntimeError)


def test_what_is_compiled_while_something_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(common, "err_console", Console(file=terminal, force_terminal=True, width=80))
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
