"""The options of commands that clean masks."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from mmms_deploy.commands import parameters
from mmms_deploy.commands.common import wrong_usage

_NAMES = ("fill_holes", "drop_specks", "keep_largest", "simplify")


def cleaning_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--fill-holes``, ``--drop-specks``, ``--keep-largest`` and ``--simplify``, next to each other in the help.

    The command receives them as one argument ``cleaning``, a :class:`~mmms_deploy.MaskCleaning`, or None where none of
    them is given. What it needs is looked for first, before anything is opened.

    Args:
        function: The command's function.
    """

    @wraps(function)
    def with_cleaning(*args: Any, **kwargs: Any) -> Any:
        given = {name: kwargs.pop(name) for name in _NAMES}
        if not any(given.values()):
            return function(*args, cleaning=None, **kwargs)
        from mmms_deploy.imaging.cleaning import MaskCleaning, checked_cleaning

        with wrong_usage():
            cleaning = MaskCleaning(**given)
        return function(*args, cleaning=checked_cleaning(cleaning), **kwargs)

    decorated: Callable[..., Any] = with_cleaning
    for option in reversed(
        (
            click.option(
                "--fill-holes",
                type=parameters.Whole(min=0),
                default=0,
                metavar="AREA",
                help="Clean masks: fill holes of at most AREA pixels, but none with a negative click.",
            ),
            click.option(
                "--drop-specks",
                type=parameters.Whole(min=0),
                default=0,
                metavar="AREA",
                help="Clean masks: drop parts of at most AREA pixels, but none with a positive click.",
            ),
            click.option(
                "--keep-largest",
                type=parameters.Whole(min=0),
                default=0,
                metavar="N",
                help="Clean masks: keep the parts with positive clicks, and the largest others up to N in all.",
            ),
            click.option(
                "--simplify",
                type=parameters.Number(min=0),
                default=0.0,
                metavar="PIXELS",
                help="Clean masks: move outlines by at most PIXELS, so that they have fewer corners.",
            ),
        )
    ):
        decorated = option(decorated)
    return decorated
