"""``mmms-demo``: the page to click on and its API, or a folder that shows one picture without a server."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from mmms_deploy.bundle.recognise import Thing, recognise
from mmms_deploy.commands.cleaning import cleaning_options
from mmms_deploy.commands.click_bundles import check_encodes
from mmms_deploy.commands.command import command
from mmms_deploy.commands.common import console, engine_options, print_engine, say, warn
from mmms_deploy.commands.display import on_terminal, progress_bars, waiting
from mmms_deploy.commands.fetching import fetched_bundle
from mmms_deploy.commands.listening import host_option, names_option
from mmms_deploy.commands.output import check_folder
from mmms_deploy.commands.parameters import FilePath, Number, Text, Whole
from mmms_deploy.commands.pictures import Picture, find_pictures, parse_named_file, size_of, with_inputs
from mmms_deploy.commands.places import check_bundle_and_images, names_bundle
from mmms_deploy.commands.sections import CLEANING, ENGINE, Sections
from mmms_deploy.errors import FeatureError, ImageError, SessionError

if TYPE_CHECKING:
    from mmms_deploy.bundle import Bundle
    from mmms_deploy.engines.request import EngineRequest
    from mmms_deploy.imaging.cleaning import MaskCleaning
    from mmms_deploy.server.settings import Settings

_BUNDLE = Path("demo")
_PORT = 8000
_DOCUMENT = "mmms-doctor --docs demo"


_SECTIONS: Sections = {
    "Images": "--modality --features --recursive",
    "Results": "--out --static --image --overwrite",
    **CLEANING,
    "Server": "--host --port --token --name --sessions --idle --upload --memory --open",
    **ENGINE,
}


@command(
    sections=_SECTIONS,
    epilog="""\b
Examples:
  mmms-demo
  mmms-demo demo photo.jpg
  mmms-demo bundles/mine photos/ --out annotations
  mmms-demo demo --host 0.0.0.0 --port 8080
  mmms-demo demo --static site --image photo.jpg

\b
The API behind the page, for programs: mmms-doctor --docs server""",
)
@click.argument("places", nargs=-1, type=FilePath(), metavar="[BUNDLE] [IMAGE]...")
@click.option("--image", "image", type=FilePath(), metavar="FILE", help="The picture of --static.")
@click.option(
    "--modality",
    "modalities",
    multiple=True,
    type=parse_named_file,
    metavar="NAME=PATH",
    help="An extra modality: a file for one image, or a folder with files of the images' names; repeat for more.",
)
@click.option(
    "--features",
    type=FilePath(),
    metavar="PATH",
    help="What the images were encoded to (.features), for a click bundle: a file for one image, or a folder with files"
    " of the images' names.",
)
@click.option("--recursive", is_flag=True, help="Take the images in the folders below a folder, too.")
@click.option(
    "--out",
    "out",
    type=FilePath(),
    metavar="DIR",
    help="Save the annotations of the images that are named here: NAME.png (labels) and NAME.json (clicks), from which"
    " the page goes on next time.",
)
@click.option(
    "--static",
    "static",
    type=FilePath(),
    metavar="DIR",
    help="Write a folder that any web server can show, and start none: --image, its features, the click stage and the"
    " page, where clicks run in the browser.",
)
@cleaning_options
@click.option("--overwrite", is_flag=True, help="Replace the folder of --static.")
@host_option
@click.option(
    "--port",
    type=Whole(min=0, max=65535),
    default=None,
    help=f"The port; 0 takes a free one.  [default: {_PORT}, or a free one]",
)
@click.option(
    "--token", type=Text(), metavar="TEXT", envvar="MMMS_DEMO_TOKEN", help="The token that callers must know."
)
@names_option("browsers call", "a proxy")
@click.option(
    "--sessions", type=Whole(min=1), default=128, show_default=True, help="Pages that may be open at the same time."
)
@click.option(
    "--idle",
    type=Number(min=0.1),
    default=30.0,
    show_default=True,
    metavar="MINUTES",
    help="Free the features of a page that did nothing for so long; it goes on with its next click.",
)
@click.option("--upload", type=Whole(min=1), default=64, show_default=True, metavar="MIB", help="The largest upload.")
@click.option(
    "--memory",
    type=Number(min=0.1),
    default=4.0,
    show_default=True,
    metavar="GIB",
    help="The most memory for the features and pictures of all pages.",
)
@click.option(
    "--open/--no-open",
    "show",
    default=None,
    help="Open the page in your browser.  [default: on a terminal with a display]",
)
@engine_options
@click.pass_context
def main(
    ctx: click.Context,
    places: tuple[Path, ...],
    image: Path | None,
    modalities: tuple[tuple[str, Path], ...],
    features: Path | None,
    recursive: bool,
    out: Path | None,
    static: Path | None,
    overwrite: bool,
    host: str,
    port: int | None,
    token: str | None,
    names: tuple[str, ...],
    sessions: int,
    idle: float,
    upload: int,
    memory: float,
    show: bool | None,
    cleaning: MaskCleaning | None,
    request: EngineRequest,
) -> None:
    """Open a page to click on, with the network in BUNDLE (default: demo) and images or folders of them.

    Images can also be opened or dropped on the page. The page and its API are served on this machine alone, until
    Ctrl-C, unless --host says otherwise.
    """
    bundle, images = _sorted(places)
    if image is not None:
        images = (*images, image)
    if static is not None:
        _check_static(ctx, images)
    if overwrite and static is None:
        raise click.UsageError("--overwrite is about the folder of --static, which is missing.")
    if modalities and not images:
        raise click.UsageError("--modality needs the image that it belongs to.")
    if features is not None and (modalities or not images):
        raise click.UsageError(
            "--features needs the images that it belongs to, and has their modalities in it already."
        )
    check_bundle_and_images(bundle, images, "mmms-demo")
    if static is not None:
        _write_static(bundle, images[0], modalities, static, overwrite, request.threads)
        return
    if out is not None:
        if not images:
            raise click.UsageError("--out is for the images that the command line names, and there are none.")
        check_folder(out)
    from mmms_deploy.server.packages import check_packages

    check_packages()
    with waiting("looking at the images"):
        pictures = find_pictures(images, recursive=recursive, without=out) if images else []
        pictures = with_inputs(pictures, modalities, features)
        _check_named(pictures, images)
    from mmms_deploy.server.settings import GIB, MIB, Settings

    settings = Settings(
        host=host,
        port=_PORT if port is None else port,
        token=token,
        most_sessions=sessions,
        idle_seconds=60 * idle,
        upload_bytes=upload * MIB,
        most_bytes=int(memory * GIB),
        out=out,
        allowed_hosts=names,
        cleaning=cleaning,
    )
    _serve(fetched_bundle(bundle), pictures, settings, request, any_port=port is None, show=show)


def _sorted(places: Sequence[Path]) -> tuple[Path, tuple[Path, ...]]:
    """Return the bundle and the images that the arguments name; without a bundle it is the demo."""
    if not places:
        return _BUNDLE, ()
    if recognise(places[0]).thing in (Thing.PICTURE, Thing.PICTURES) and not any(map(names_bundle, places)):
        return _BUNDLE, tuple(places)
    return places[0], tuple(places[1:])


def _check_named(pictures: Sequence[Picture], named: Sequence[Path]) -> None:
    """Check that every file that the command line names is a picture; the page says it of those in folders.

    Raises:
        ImageError: One is none, as its header shows.
    """
    for picture in pictures:
        if picture.path in named and picture.features is None:
            size_of(picture)


def _check_static(ctx: click.Context, images: Sequence[Path]) -> None:
    """Check what the command line shows about ``--static``."""
    given = len(images)
    if given != 1:
        raise click.UsageError(
            f"--static shows one image, and {given or 'none'} {'is' if given < 2 else 'are'} named: pass --image FILE."
        )
    own = {"places", "image", "modalities", "static", "overwrite", "threads"}
    for option in ctx.command.params:
        name = option.name or ""
        if name not in own and ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            shown = " / ".join([*option.opts, *option.secondary_opts])
            raise click.UsageError(f"{shown} is about a server, and --static starts none.")


def _serve(
    bundle: Path,
    pictures: Sequence[Picture],
    settings: Settings,
    request: EngineRequest,
    *,
    any_port: bool,
    show: bool | None,
) -> None:
    with ExitStack() as resources:
        with progress_bars("opening the bundle") as on_progress:
            from mmms_deploy.bundle import Bundle
            from mmms_deploy.engines.select import open_request
            from mmms_deploy.server import ServedPicture, serve

            opened = Bundle(bundle)
            _check_takes_pictures(opened, pictures)
            engine = resources.enter_context(closing(open_request(opened, request, on_progress)))
        _say_what_is_served(opened, settings)
        print_engine(engine.info)

        def listening(url: str) -> None:
            console.print(f"page     {escape(url)}", soft_wrap=True)
            console.print("         Ctrl-C ends it", soft_wrap=True)
            if _shown(show):
                click.launch(url)

        offered = tuple(
            ServedPicture(one.path, one.name, one.key, dict(one.modalities), one.features) for one in pictures
        )
        serve(engine, settings, offered, on_listening=listening, any_port=any_port)


def _check_takes_pictures(bundle: Bundle, pictures: Sequence[Picture]) -> None:
    """Check that the page can open pictures with a bundle.

    Raises:
        BundleError: It is a click bundle, and some picture was not encoded, or there is none.
        FeatureError: A backbone's features are given.
        SessionError: It was exported without its backbone.
    """
    from mmms_deploy.bundle import Role

    backbone = next((one.features for one in pictures if one.features is not None and not one.encoded), None)
    if backbone is not None:
        raise FeatureError(
            f"{backbone} has a backbone's features",
            expected="files of features that mmms-package --image wrote",
            fix="name these, or leave --features out",
        )
    if bundle.manifest.click_only and pictures and all(one.encoded for one in pictures):
        return
    check_encodes(bundle, "name images, and with --features what mmms-package --image made of them")
    graphs = (graph for stage in bundle.manifest.stages for graph in stage.graphs.values())
    if not any(spec.role is Role.IMAGE for graph in graphs for spec in graph.inputs):
        raise SessionError(
            f"{bundle.reference} was exported without its backbone, so that it takes no picture",
            expected="a bundle that takes pictures",
            fix="export again without --cut black-box",
        )


def _shown(asked: bool | None) -> bool:
    """Return whether the page is opened in the user's browser."""
    if asked is not None:
        return asked
    display = sys.platform in ("darwin", "win32") or bool(os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"})
    return display and on_terminal()


def _say_what_is_served(bundle: Bundle, settings: Settings) -> None:
    """Say on stderr what the page cannot do, and who reaches the server."""
    if not bundle.manifest.trained:
        warn(f"the weights of {bundle.reference} are random, so its masks mean nothing")
    from mmms_deploy.page.features import UNCLEANED
    from mmms_deploy.page.model import browser_model
    from mmms_deploy.page.runtime import runtime_files

    model = browser_model(bundle)
    if model.available and settings.cleaning is not None:
        say("note", f"clicks run on the server: {UNCLEANED}")
    elif not model.available:
        say("note", f"clicks run on the server: {model.why}")
    elif runtime_files() is None:
        fetch = f"python -m mmms_deploy.page.runtime fetches it, {_DOCUMENT}"
        say("note", f"clicks run on the server alone: onnxruntime-web is not here ({fetch})")
    if not settings.loopback:
        warn(
            f"others on the network reach {settings.host}; they need the token in the page's address, and nothing is"
            " encrypted: put a proxy with TLS before it"
        )


def _write_static(
    bundle: Path,
    image: Path,
    modalities: Sequence[tuple[str, Path]],
    out: Path,
    overwrite: bool,
    threads: int | None,
) -> None:
    if image.is_dir():
        raise ImageError(
            f"{image} is a folder", expected="one picture", fix="name one file", command_fix="pass --image FILE"
        )
    picture = with_inputs(find_pictures([image]), modalities, None)[0]
    bundle = fetched_bundle(bundle)
    with waiting(f"writing {out}"):
        from mmms_deploy.bundle import Bundle
        from mmms_deploy.page.static import write_static

        check_encodes(Bundle(bundle, verify=False), "write the folder with the whole bundle")
        write_static(out, bundle, picture.path, picture.modalities, overwrite=overwrite, threads=threads)
    console.print(f"page     {escape(str(out))}", soft_wrap=True)
    console.print(
        f"         try it: python -m http.server --directory {escape(str(out))} --bind 127.0.0.1 8000", soft_wrap=True
    )


if __name__ == "__main__":
    main()
