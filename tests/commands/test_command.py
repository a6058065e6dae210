from __future__ import annotations

import logging
import warnings

import click
import pytest
from click.testing import Result

from mmms_deploy.commands.command import EXIT_ERROR, command
from mmms_deploy.errors import ClickError, MMMSDeployWarning
from tests.support.invoke import invoke


def run(error: BaseException | None = None, warning: Warning | None = None, times: int = 1) -> Result:
    @command(epilog="")
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
    assert result.exit_code == 130
    assert result.stderr == "error: interrupted\n"


def test_warnings_are_lines() -> None:
    result = run(warning=MMMSDeployWarning("slower"))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "done\n", "warning: slower\n")


def test_the_same_warning_of_many_sessions_is_one_line() -> None:
    assert run(warning=MMMSDeployWarning("slower"), times=3).stderr == "warning: slower\n"


def test_what_the_package_logs_is_a_line_like_a_warning() -> None:
    log = logging.getLogger("mmms_deploy.files.cache")

    @command(epilog="")
    def main() -> None:
        log.warning("%s cannot be written", "/cache")
        log.info("nothing to see")

    assert invoke(main).stderr == "warning: /cache cannot be written\n"
    assert logging.getLogger("mmms_deploy").handlers == [], "afterwards the log is the program's again"


def test_other_warnings_are_left_alone() -> None:
    with pytest.warns(UserWarning, match="foreign"):
        assert run(warning=UserWarning("foreign")).stdout == "done\n"


def test_usage_errors_are_clicks() -> None:
    assert run(click.UsageError("no")).exit_code == 2


def test_faults_of_the_package_keep_their_traceback() -> None:
    assert isinstance(run(RuntimeError("a bug")).exception, RuntimeError)
