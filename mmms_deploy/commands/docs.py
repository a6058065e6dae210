"""``mmms-doctor --docs``: the documents that come with the package."""

from __future__ import annotations

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


def show_document(name: str) -> None:
    """Print a document, page by page on a terminal; or, without a name, the list of them.

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
    text = f"{file}\n\n{file.read_text(encoding='utf-8')}"
    if sys.stdout.isatty():
        click.echo_via_pager(text)
    else:
        click.echo(text, file=cast("IO[str]", Output()))
