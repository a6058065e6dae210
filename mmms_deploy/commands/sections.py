"""Headings under which ``--help`` lists the options of a command that has many.

A command names its sections in its decorator, in the order in which they are shown. Options that no section names come
last, under ``Other options``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

import click

Sections: TypeAlias = Mapping[str, str]
"""The options of every heading, as the command line has them, with spaces between: ``{"Clicks": "--pos --neg"}``."""

CLEANING: Sections = MappingProxyType({"Cleaned masks": "--fill-holes --drop-specks --keep-largest --simplify"})
"""The options of :func:`~mmms_deploy.commands.cleaning.cleaning_options`."""
ENGINE: Sections = MappingProxyType({"Engine": "--device --engine --precision --threads --strict --allow-unproven"})
"""Those of :func:`~mmms_deploy.commands.common.engine_options`."""


def write_sections(
    sections: Sections, params: list[click.Parameter], ctx: click.Context, formatter: click.HelpFormatter
) -> None:
    """Write options under their headings.

    Args:
        sections: The headings.
        params: The command's parameters, in their order; arguments have no line.
        ctx: The context.
        formatter: Receives the lines.
    """
    headings = {name: heading for heading, names in sections.items() for name in names.split()}
    found: dict[str, list[tuple[str, str]]] = {heading: [] for heading in (*sections, "Other options")}
    for option in params:
        record = option.get_help_record(ctx) if isinstance(option, click.Option) else None
        if record is not None:
            found[next((headings[name] for name in option.opts if name in headings), "Other options")].append(record)
    for heading, records in found.items():
        if records:
            with formatter.section(heading):
                formatter.write_dl(records)
