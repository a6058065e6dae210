"""``mmms-precompute``: encode the images of a data set before they are clicked on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from mmms_deploy.commands.click_bundles import check_encodes
from mmms_deploy.commands.cluster_options import opened_pool, ray_option
from mmms_deploy.commands.command import command
from mmms_deploy.commands.common import console, engine_options, say, warn
from mmms_deploy.commands.display import print_result, progress_bar
from mmms_deploy.commands.fetching import fetched_bundle, lasting_name
from mmms_deploy.commands.output import check_folder
from mmms_deploy.commands.parameters import FilePath, OneOf, Whole
from mmms_deploy.commands.pictures import Picture, find_pictures, parse_named_file, with_inputs
from mmms_deploy.commands.places import check_bundle, check_bundle_and_images
from mmms_deploy.commands.sections import ENGINE, Sections
from mmms_deploy.errors import MMMSDeployError

if TYPE_CHECKING:
    from mmms_deploy.engines.request import EngineRequest
    from mmms_deploy.precompute import Item, Outcome, Summary

_SHOWN = 20


_SECTIONS: Sections = {
    "Images": "--bundle --recursive --modality --features",
    "Results": "--out --for-clicks --half",
    "Workers": "--workers --ray",
    **ENGINE,
}


@command(
    sections=_SECTIONS,
    epilog="""\b
Examples:
  mmms-precompute photos --bundle demo --out features
  mmms-precompute photos --recursive --bundle demo --out features --workers 4
  mmms-precompute rgb --modality thermal=thermal --bundle bundles/demo-thermal --out features
  mmms-precompute photos --bundle demo --out for-the-service --for-clicks
  mmms-precompute photos --bundle demo --out features --ray 10.0.0.1:6379

\b
A session then clicks without running the backbone:
  session = Session("demo", store=FeatureStore("features"))

\b
Stores, sizes, and Ray: mmms-doctor --docs precompute""",
)
@click.argument("images", type=FilePath(), nargs=-1, required=True)
@click.option("--bundle", type=FilePath(), required=True, metavar="BUNDLE", help="The bundle that encodes them.")
@click.option(
    "--out",
    type=FilePath(),
    required=True,
    metavar="STORE",
    help="Folder of the store, made where it is not there; with --for-clicks that of the files.",
)
@click.option("--recursive", is_flag=True, help="The folders below count too.")
@click.option(
    "--modality",
    "modalities",
    multiple=True,
    type=parse_named_file,
    metavar="NAME=FOLDER",
    help="An extra modality: a folder with a file for every image, of the same name; repeat for more.",
)
@click.option(
    "--features",
    type=FilePath(),
    metavar="FOLDER",
    help="The backbone's features (.npz) of every image, for a bundle exported with --cut black-box.",
)
@click.option(
    "--for-clicks",
    is_flag=True,
    help="Write a file for every image, NAME.features, with its pixels and what the click stage reads, and no"
    " modality: what a service gets that has a click bundle alone (mmms-package).",
)
@click.option(
    "--half",
    type=OneOf(["auto", "off"]),
    default="auto",
    show_default=True,
    help="auto: store features in half precision where the bundle's golden clicks allow it. off: never.",
)
@click.option(
    "--workers",
    type=Whole(min=1),
    help="Processes, each with an engine of its own; with --ray, actors.  [default: as many as there are cores for]",
)
@ray_option()
@engine_options
def main(
    images: tuple[Path, ...],
    bundle: Path,
    out: Path,
    recursive: bool,
    modalities: tuple[tuple[str, Path], ...],
    features: Path | None,
    for_clicks: bool,
    half: str,
    workers: int | None,
    ray: str | None,
    request: EngineRequest,
) -> None:
    """Encode IMAGES, files and folders, with a bundle, and keep their features in a store.

    Sessions with this store run no backbone for these images. What the store has is not encoded again, so that the
    same command goes on where it was stopped. Each worker computes with one thread, unless --threads says otherwise:
    so the files are the same bytes by one process, by several, and on a Ray cluster.
    """
    names = [name for name, _ in modalities]
    if len(set(names)) < len(names):
        raise click.UsageError(f"--modality names one modality twice: {', '.join(names)}.")
    check_bundle_and_images(bundle, images, "mmms-precompute")
    check_bundle(bundle)
    check_folder(out)
    pictures = with_inputs(find_pictures(images, recursive=recursive, without=out), modalities, features)
    folder = fetched_bundle(bundle)

    from mmms_deploy.bundle import Bundle
    from mmms_deploy.precompute import ClickFiles, IntoStore, Recipe, precompute

    opened = Bundle(folder, verify=False)  # every worker compares the hashes
    check_encodes(opened, "name the bundle that it was made of")
    if not opened.manifest.trained:
        warn(f"the weights of {bundle} are random: features of it mean nothing")
    threads = request.threads or 1
    request = replace(request, threads=threads)
    sink = ClickFiles(out.resolve()) if for_clicks else IntoStore(out.resolve(), half)
    recipe = Recipe(lasting_name(opened), sink, request)
    items = _items(pictures)
    counted = _Counted(len(items))
    with ExitStack() as stack:
        pool, who = stack.enter_context(opened_pool(ray, workers, threads))
        console.print(f"images   {len(items)}, by {who}", soft_wrap=True)
        try:
            with progress_bar("encoding", remaining=True) as show:
                summary = precompute(items, recipe, pool, on_progress=show, on_outcome=counted)
        except KeyboardInterrupt:
            say("note", f"{counted.done} of {len(items)} images are in {out}; the same command goes on from there")
            raise
    _report(summary, out)
    if summary.failed:
        raise click.exceptions.Exit(1)


def _items(pictures: Sequence[Picture]) -> list[Item]:
    from mmms_deploy.precompute import Item

    return [
        Item(
            picture.path.resolve(),
            picture.name,
            {name: path.resolve() for name, path in picture.modalities.items()},
            None if picture.features is None else picture.features.resolve(),
        )
        for picture in pictures
    ]


class _Counted:
    """Prints the images that fail, and counts the others."""

    def __init__(self, total: int) -> None:
        self.done = 0
        self._failed = 0
        self._total = total

    def __call__(self, item: Item, outcome: Outcome) -> None:
        if outcome.error is None:
            self.done += 1
            return
        self._failed += 1
        if self._failed <= _SHOWN:
            print_result(f"[red]failed[/]   {escape(_first_line(outcome.error))}")


def _first_line(error: MMMSDeployError) -> str:
    return error.given.partition("\n")[0]


def _report(summary: Summary, out: Path) -> None:
    done = summary.encoded + summary.found
    rate = summary.encoded / summary.seconds if summary.seconds > 0 else 0.0
    console.print(
        f"encoded  {summary.encoded} in {summary.seconds:.1f} s, {rate:.2f} images a second; {summary.found} were there"
        " before",
        soft_wrap=True,
    )
    if done:
        console.print(
            f"store    {escape(str(out))}: {summary.nbytes / 1e6:.1f} MB for {done} images,"
            f" {summary.nbytes / done / 1e6:.2f} MB each",
            soft_wrap=True,
        )
    if summary.failed:
        more = f", of which {_SHOWN} are shown" if len(summary.failed) > _SHOWN else ""
        console.print(
            f"[red]failed[/]   {len(summary.failed)} of {len(summary.failed) + done} images{more}", soft_wrap=True
        )
