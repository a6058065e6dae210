from __future__ import annotations

import inspect

import click
from click.testing import CliRunner, Result


def invoke(command: click.Command, *args: object) -> Result:
    """Run a command in this process, stdout and stderr apart, which click before 8.2 does on request only."""
    apart = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
    return CliRunner(**apart).invoke(command, [str(arg) for arg in args])
