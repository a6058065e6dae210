"""``mmms-doctor --docs``: the documents that come with the package."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import IO, cast

import click
from rich.markup import escape
from rich.table import Table

from mmms_deploy.commands.common import console
from mmms_deploy.commands.streams import Output
from mmms_deploy.commands.tables import print_table
from mmms_deploy.documents import FOLDER, document, documents
from mmms_deploy.spelling import did_you_mean

_WIDEST = 120
"""Columns of a document on a wide terminal."""


def show_document(name: str) -> None:
    """Print a document, on a terminal drawn for its width and page by page; or, without a name, the list of them.

    Args:
        name: Its name, e.g. ``engines``; empty for the list.

    Raises:
        UsageError: There is no such document.
    """
    known = documents()
    if not name:
        table = Table(title="Documents", title_justify="left")
        table.add_column("name", no_wrap=True)
        table.add_column("says")
        for each, says in known.items():
            table.add_row(each, escape(says))
        print_table(table)
        console.print(f"mmms-doctor --docs NAME shows one; they lie in {escape(str(FOLDER))}", soft_wrap=True)
        return
    name = name.removeprefix("docs/").removesuffix(".md")
    if name not in known:
        raise click.UsageError(
            f"There is no document {name!r}{did_you_mean(name, known)} (the documents: {', '.join(known)})"
        )
    file = Path(document(name))
    text = file.read_text(encoding="utf-8")
    if sys.stdout.isatty():
        click.echo_via_pager(f"{file}\n\n{_drawn(text, min(console.width, _WIDEST))}")
    else:
        click.echo(f"{file}\n\n{text}", file=cast("IO[str]", Output()))


def _drawn(text: str, width: int) -> str:
    """Return a document of Markdown as a terminal shows it, in lines of at most ``width`` columns."""
    from rich.console import Console
    from rich.markdown import Markdown

    drawn = io.StringIO()
    Console(file=drawn, width=width, force_terminal=True).print(
        Markdown(text, code_theme="ansi_dark", hyperlinks=False)
    )
    return drawn.getvalue()
