"""``--set NAME=VALUE``: a door's settings that have no option of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from mmms_deploy.commands.parameters import Text

if TYPE_CHECKING:
    from mmms_deploy.engines.request import EngineRequest


def settings_option(help_text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add ``--set``, which a command receives as ``given``.

    Args:
        help_text: Its help.
    """
    return click.option("--set", "given", type=Text(), multiple=True, metavar="NAME=VALUE", help=help_text)


def settings_of(given: Sequence[str], request: EngineRequest) -> dict[str, Any]:
    """Return settings by name: those of the engine's options, and those of ``--set``, which come last.

    Raises:
        click.UsageError: One is no NAME=VALUE.
    """
    settings: dict[str, Any] = {
        "device": request.device,
        "engine": request.engine,
        "precision": request.precision,
        "threads": request.threads,
        "strict": request.strict,
    }
    for line in given:
        name, equals, value = line.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--set takes NAME=VALUE, got {line}.")
        settings[name] = value
    return settings
