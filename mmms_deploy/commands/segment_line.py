"""The clicks of ``mmms-segment``'s command line, in the order in which they are given."""

from __future__ import annotations

import math
from dataclasses import replace

import click

from mmms_deploy.commands.command import Command
from mmms_deploy.commands.segment_clicks import UNNAMED, ListedClick

Point = tuple[float, float]


def parse_point(text: str) -> Point:
    """Parse ``X,Y``."""
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not X,Y, such as 320,240") from None
    if not (math.isfinite(x) and math.isfinite(y)):
        raise click.BadParameter(f"{text!r} is no place; X and Y are finite numbers")
    return x, y


class OrderedCommand(Command):
    """A command that keeps the order of --pos, --neg, --choose and --object; the options alone lose it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and keep the order in the context."""
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(args=list(args))
            kept = ("pos", "neg", "choices", "objects")
            ctx.meta[__name__] = [parameter.name for parameter in order if parameter.name in kept]
        return super().parse_args(ctx, args)


def clicks_in_order(
    ctx: click.Context,
    pos: tuple[Point, ...],
    neg: tuple[Point, ...],
    choices: tuple[int, ...],
    objects: tuple[str, ...],
) -> list[ListedClick]:
    """Return the clicks of the command line, each with the object named last before it and the choice after it.

    Args:
        ctx: The context of an :class:`OrderedCommand`.
        pos: The places of ``--pos``.
        neg: Those of ``--neg``.
        choices: The numbers of ``--choose``.
        objects: The names of ``--object``.

    Raises:
        click.UsageError: An object or a choice has no click.
    """
    points, names, chosen = {"pos": iter(pos), "neg": iter(neg)}, iter(objects), iter(choices)
    clicks: list[ListedClick] = []
    current, used = UNNAMED, True
    for option in ctx.meta[__name__]:
        if option == "objects":
            if not used:
                raise click.UsageError(f"--object {current} has no click: --pos X,Y comes after it.")
            current, used = next(names), False
        elif option == "choices":
            choice = next(chosen)
            if not (pos or neg or objects) and len(choices) == 1:
                continue  # it is about the click at the centre
            if not clicks or not used or clicks[-1].choice is not None:
                raise click.UsageError(f"--choose {choice} has no click: it comes after its --pos X,Y or --neg X,Y.")
            clicks[-1] = replace(clicks[-1], choice=choice)
        else:
            x, y = next(points[option])
            clicks.append(ListedClick(current, x, y, option == "pos"))
            used = True
    if not used:
        raise click.UsageError(f"--object {current} has no click: --pos X,Y comes after it.")
    return clicks
