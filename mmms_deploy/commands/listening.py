"""Where a server listens, and by which names it is called: options of every command that starts one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from mmms_deploy.commands.parameters import Text


def host_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--host``, the address."""
    return click.option(
        "--host",
        type=Text(),
        default="127.0.0.1",
        show_default=True,
        metavar="ADDRESS",
        help="Where to listen. Anything but this machine alone needs a token, which is drawn and printed.",
    )(function)


def names_option(callers: str, example: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add ``--name``, which a command receives as ``names``.

    Args:
        callers: Who calls the server.
        example: What has such a name, such as ``a proxy``.
    """
    return click.option(
        "--name",
        "names",
        multiple=True,
        type=Text(),
        metavar="HOST",
        help=f"Another name by which {callers} this server, such as that of {example}; repeat for more.",
    )
