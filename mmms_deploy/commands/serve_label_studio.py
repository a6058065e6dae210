"""``mmms-serve label-studio``: a bundle as a model of Label Studio, whose points are answered with masks."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from mmms_deploy.commands.click_bundles import check_encodes
from mmms_deploy.commands.command import command
from mmms_deploy.commands.common import console, engine_options, print_engine, say, warn, wrong_usage
from mmms_deploy.commands.display import progress_bars
from mmms_deploy.commands.fetching import fetched_bundle, lasting_name
from mmms_deploy.commands.listening import host_option, names_option
from mmms_deploy.commands.parameters import FilePath, Number, Text, Whole
from mmms_deploy.commands.places import check_bundle
from mmms_deploy.commands.sections import ENGINE, Sections
from mmms_deploy.commands.serve_settings import settings_of, settings_option

if TYPE_CHECKING:
    from mmms_deploy.doors.label_studio.settings import LabelStudio
    from mmms_deploy.doors.opening import Opening
    from mmms_deploy.engines.request import EngineRequest
    from mmms_deploy.server.settings import Settings

_PORT = 9090
_ENVIRONMENT = "LABEL_STUDIO_API_KEY"


_SECTIONS: Sections = {
    "Label Studio": "--label-studio --access-token --image-host",
    "Server": "--host --port --token --name --sessions --idle --upload --seconds --set",
    **ENGINE,
}


@command(
    sections=_SECTIONS,
    epilog="""\b
Examples:
  mmms-serve label-studio demo --access-token TOKEN
  mmms-serve label-studio bundles/mine --label-studio https://labels.example.com --host 0.0.0.0 --token SECRET
  mmms-serve label-studio demo --image-host images.example.com --set zoom=true""",
)
@click.argument("bundle", type=FilePath(), metavar="BUNDLE")
@click.option(
    "--label-studio",
    "address",
    type=Text(),
    metavar="URL",
    default="http://localhost:8080",
    show_default=True,
    help="Label Studio's address as this machine reaches it; tasks' pictures are fetched from there.",
)
@click.option(
    "--access-token",
    "access_token",
    type=Text(),
    metavar="TOKEN",
    envvar=_ENVIRONMENT,
    help="A personal access token of Label Studio (Account & Settings), or a legacy token where they are allowed, with"
    f" which pictures are fetched.  [default: {_ENVIRONMENT} of the environment, or the legacy token that Label Studio"
    " sends]",
)
@click.option(
    "--image-host",
    "image_hosts",
    multiple=True,
    type=Text(),
    metavar="HOST[:PORT]",
    help="Another host from which pictures may be fetched; it never sees the token. Repeat for more.",
)
@host_option
@click.option(
    "--port", type=Whole(min=0, max=65535), default=_PORT, show_default=True, help="The port; 0 takes a free one."
)
@click.option(
    "--token",
    type=Text(),
    metavar="TEXT",
    envvar="MMMS_SERVE_TOKEN",
    help="What callers must know: the password of Basic authentication in Label Studio's form, with any name.",
)
@names_option("Label Studio calls", "a container")
@click.option(
    "--sessions", type=Whole(min=1), default=32, show_default=True, help="Tasks that are kept open at the same time."
)
@click.option(
    "--idle",
    type=Number(min=0.1),
    default=30.0,
    show_default=True,
    metavar="MINUTES",
    help="Free a task that was not clicked on for so long; its next click takes all points again.",
)
@click.option(
    "--upload", type=Whole(min=1), default=64, show_default=True, metavar="MIB", help="The largest file of a picture."
)
@click.option(
    "--seconds",
    type=Number(min=0.1),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a picture may take to be fetched.",
)
@settings_option(
    "A setting of every session, such as zoom=true, store_mib=4096 or store_folder=features; repeat for more."
)
@engine_options
def label_studio(
    bundle: Path,
    address: str,
    access_token: str | None,
    image_hosts: tuple[str, ...],
    host: str,
    port: int,
    token: str | None,
    names: tuple[str, ...],
    sessions: int,
    idle: float,
    upload: int,
    seconds: float,
    given: tuple[str, ...],
    request: EngineRequest,
) -> None:
    """Answer an annotator's points in Label Studio with masks of BUNDLE, until Ctrl-C.

    In Label Studio, add the printed address under Settings > Model of a project, and switch interactive
    preannotations on.
    """
    with wrong_usage():
        from mmms_deploy.doors.label_studio.settings import LabelStudio
        from mmms_deploy.doors.opening import Opening

        chosen = LabelStudio(address, None if access_token is None else access_token.strip(), image_hosts, seconds)
        opening = Opening.of(settings_of(given, request))
    check_bundle(bundle)
    from mmms_deploy.server.packages import check_packages
    from mmms_deploy.server.settings import MIB, Settings

    check_packages()

    listens = Settings(
        host=host,
        port=port,
        token=token,
        most_sessions=sessions,
        idle_seconds=60 * idle,
        upload_bytes=upload * MIB,
        allowed_hosts=names,
    )
    _serve(fetched_bundle(bundle), opening, chosen, listens)


def _serve(bundle: Path, opening: Opening, label_studio: LabelStudio, settings: Settings) -> None:
    from mmms_deploy.bundle import Bundle
    from mmms_deploy.doors.label_studio.serving import serve

    with progress_bars("opening the bundle"):
        opened = Bundle(bundle)
        check_encodes(opened, "serve the whole bundle")
        model = opening.model(lasting_name(opened))
    with closing(model):
        if not opened.manifest.trained:
            warn(f"the weights of {opened.reference} are random, so its masks mean nothing")
        print_engine(model.engine)

        def listening(url: str, token: str | None) -> None:
            console.print(f"pictures {escape(label_studio.base)}", soft_wrap=True)
            console.print(f"address  {escape(url)}", soft_wrap=True)
            if token is not None:
                console.print(f"password {escape(token)}", soft_wrap=True)
            console.print("         add it under Settings > Model of a project; Ctrl-C ends it", soft_wrap=True)
            if settings.loopback:
                say(
                    "note",
                    "Label Studio refuses models on its own machine or a private network unless it was started with"
                    " ML_BLOCK_LOCAL_IP=false and USE_DEFAULT_BANNED_SUBNETS=false in its environment",
                )
            if label_studio.token is None:
                say(
                    "note",
                    "no access token was given: pictures are fetched with the legacy token that Label Studio sends,"
                    " which a new installation refuses (401)",
                )

        serve(model, opening, label_studio, settings, listening)
